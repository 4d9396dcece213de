//! Upper bounds on the loop iterations of a shader, read off its generated text.
//!
//! Mesa's llvmpipe ends all loops of a thread once it has counted 65,535 iterations, and says nothing. It
//! counts the way it runs loops: every loop tests its condition at the end of its body, so the body runs
//! once more, with no lane active, when the condition fails; loops inside that idle pass, or inside a branch
//! that no lane takes, each count once. This module interprets the shader over intervals, with that rule.
//!
//! Integers are bounded by intervals and by linear forms over loop counters, so that the difference between
//! a loop's bound and its first value stays exact where both move with an outer loop. Unsigned subtractions
//! are taken not to wrap. What is not known is bounded by nothing, and a loop that runs up to it counts as
//! endless: an unknown construct makes a count too high, never too low.

use std::collections::HashMap;
use std::rc::Rc;

use naga::front::Typifier;
use naga::proc::ResolveContext;
use naga::{
    AddressSpace, BinaryOperator, Block, BuiltIn, Expression, Function, GlobalVariable, Handle, Literal,
    LocalVariable, MathFunction, Module, ScalarKind, Statement, TypeInner, UnaryOperator,
};

/// The most iterations that one thread of a dispatch runs, over all loops of the shader together.
///
/// `uniform` are the bytes behind binding 0, `grid` the dispatch's workgroups.
pub(crate) fn most_iterations(wgsl: &str, uniform: &[u8], grid: [u32; 3]) -> u64 {
    let Ok(module) = naga::front::wgsl::parse_str(wgsl) else { return u64::MAX };
    let Some(entry) = module.entry_points.first() else { return u64::MAX };
    let mut interpreter = Interpreter::new(&module, uniform, grid);
    let arguments = entry.function.arguments.iter();
    let arguments = arguments.map(|argument| interpreter.argument(argument.ty, argument.binding.as_ref()));
    let arguments = arguments.collect();
    interpreter.call(&entry.function, arguments).1.active
}

/// Mesa unrolls loops of a constant number of iterations, up to this many, where the counter indexes an array
/// of just as many elements ...
const MOST_UNROLLED: u64 = 32;

/// ... and where they have up to this many instructions when unrolled (`LOOP_UNROLL_LIMIT` times the above).
const MOST_INSTRUCTIONS: u64 = 26 * MOST_UNROLLED;

/// Linear forms kept for a bound of a number: more would rarely make it tighter.
const MOST_FORMS: usize = 8;

/// What a piece of code amounts to.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// Iterations of its loops, with active lanes.
    active: u64,
    /// The same without any.
    idle: u64,
    /// Its instructions, of loops those of one iteration.
    instructions: u64,
}

impl Count {
    const ENDLESS: Self = Self { active: u64::MAX, idle: u64::MAX, instructions: u64::MAX };

    fn instructions(instructions: u64) -> Self {
        Self { instructions, ..Self::default() }
    }

    fn then(self, next: Self) -> Self {
        Self {
            active: self.active.saturating_add(next.active),
            idle: self.idle.saturating_add(next.idle),
            instructions: self.instructions.saturating_add(next.instructions),
        }
    }

    /// A loop of `trips` iterations around a body that counts this.
    fn looped(self, trips: u64) -> Self {
        let idle = self.idle.saturating_add(1);
        let active = trips.saturating_mul(self.active.saturating_add(1)).saturating_add(idle);
        Self { active, idle, instructions: self.instructions }
    }
}

/// A constant plus multiples of counters. A counter is a number from 0 to its range.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Form {
    constant: i64,
    /// Counter and factor, in the order of the counters; no factor is 0.
    terms: Vec<(usize, i64)>,
}

impl Form {
    fn constant(constant: i64) -> Self {
        Self { constant, terms: Vec::new() }
    }

    /// `self + factor * other`.
    fn plus(&self, other: &Self, factor: i64) -> Self {
        let mut terms = self.terms.clone();
        for &(counter, times) in &other.terms {
            let times = times.saturating_mul(factor);
            match terms.binary_search_by_key(&counter, |&(counter, _)| counter) {
                Ok(at) => terms[at].1 = terms[at].1.saturating_add(times),
                Err(at) => terms.insert(at, (counter, times)),
            }
        }
        terms.retain(|&(_, times)| times != 0);
        Self { constant: self.constant.saturating_add(other.constant.saturating_mul(factor)), terms }
    }
}

/// What is known of an unsigned integer; a condition is 0 or 1.
#[derive(Debug, Clone)]
struct Number {
    /// It is at least each of these.
    lower: Vec<Form>,
    /// It is at most each of these; unbounded where there are none.
    upper: Vec<Form>,
    /// Whether it may differ between the lanes of a workgroup.
    varying: bool,
    /// Whether compilers know it.
    known: Known,
}

/// Whether compilers know a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    No,
    /// Once the loop of this depth is unrolled.
    Unrolled(usize),
    Yes,
}

impl Known {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, known) | (known, Self::Yes) => known,
            (one, other) if one == other => one,
            _ => Self::No,
        }
    }
}

impl Number {
    fn exact(form: Form, varying: bool) -> Self {
        Self { lower: vec![form.clone()], upper: vec![form], varying, known: Known::No }
    }

    fn constant(value: i64) -> Self {
        Self { known: Known::Yes, ..Self::exact(Form::constant(value), false) }
    }

    fn unknown() -> Self {
        Self { lower: vec![Form::constant(0)], upper: Vec::new(), varying: true, known: Known::No }
    }
}

/// What an expression is: vectors and structs by their components.
#[derive(Debug, Clone)]
enum Value {
    Number(Number),
    Components(Vec<Value>),
}

/// A function in the middle of its interpretation.
struct Frame<'a> {
    function: &'a Function,
    types: Rc<Typifier>,
    arguments: Vec<Value>,
    values: HashMap<Handle<Expression>, Value>,
    locals: HashMap<Handle<LocalVariable>, Number>,
    returned: Option<Value>,
}

struct Interpreter<'a> {
    module: &'a Module,
    uniform: &'a [u8],
    grid: [u32; 3],
    /// Private variables.
    globals: HashMap<Handle<GlobalVariable>, Number>,
    /// The range of each counter.
    ranges: Vec<i64>,
    /// The types of each function's expressions.
    types: HashMap<*const Function, Rc<Typifier>>,
    /// How many loops are around what is interpreted.
    depth: usize,
}

impl<'a> Interpreter<'a> {
    fn new(module: &'a Module, uniform: &'a [u8], grid: [u32; 3]) -> Self {
        let private =
            module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::Private);
        let globals = private.map(|(variable, _)| (variable, Number::unknown())).collect();
        Self { module, uniform, grid, globals, ranges: Vec::new(), types: HashMap::new(), depth: 0 }
    }

    /// A number that is surely between `least` and `most`.
    fn between(&mut self, least: i64, most: i64, varying: bool) -> Number {
        if least >= most {
            return Number::exact(Form::constant(least), varying);
        }
        self.ranges.push(most - least);
        Number::exact(Form { constant: least, terms: vec![(self.ranges.len() - 1, 1)] }, varying)
    }

    /// The argument of an entry point, or a component of one.
    fn argument(&mut self, ty: Handle<naga::Type>, binding: Option<&naga::Binding>) -> Value {
        let module = self.module;
        if let TypeInner::Struct { members, .. } = &module.types[ty].inner {
            let members = members.iter();
            return Value::Components(
                members.map(|member| self.argument(member.ty, member.binding.as_ref())).collect(),
            );
        }
        let Some(&naga::Binding::BuiltIn(builtin)) = binding else { return Value::Number(Number::unknown()) };
        let threads: u32 = module.entry_points[0].workgroup_size.iter().product();
        let grid = self.grid.map(i64::from);
        match builtin {
            BuiltIn::WorkGroupId => Value::Components(
                grid.iter().map(|&most| Value::Number(self.between(0, most - 1, false))).collect(),
            ),
            BuiltIn::NumWorkGroups => Value::Components(
                grid.iter()
                    .map(|&count| Value::Number(Number::exact(Form::constant(count), false)))
                    .collect(),
            ),
            BuiltIn::LocalInvocationIndex => Value::Number(self.between(0, i64::from(threads) - 1, true)),
            _ => Value::Number(Number::unknown()),
        }
    }

    /// The result of a function, and what its loops count.
    fn call(&mut self, function: &'a Function, arguments: Vec<Value>) -> (Value, Count) {
        let locals = function.local_variables.iter().map(|(local, variable)| {
            let value = variable.init.and_then(|init| literal(self.module, &function.expressions, init));
            (local, value.map_or_else(Number::unknown, Number::constant))
        });
        let types = self.types(function);
        let mut frame = Frame {
            function,
            types,
            arguments,
            values: HashMap::new(),
            locals: locals.collect(),
            returned: None,
        };
        let count = self.block(&mut frame, &function.body);
        (frame.returned.unwrap_or_else(|| Value::Number(Number::unknown())), count)
    }

    fn types(&mut self, function: &'a Function) -> Rc<Typifier> {
        let module = self.module;
        let typed = self.types.entry(function).or_insert_with(|| {
            let context = ResolveContext::with_locals(module, &function.local_variables, &function.arguments);
            let mut types = Typifier::new();
            // A type that cannot be resolved leaves the rest out, which then counts as wide as it can be.
            let _ = function
                .expressions
                .iter()
                .try_for_each(|(expression, _)| types.grow(expression, &function.expressions, &context));
            Rc::new(types)
        });
        Rc::clone(typed)
    }

    /// Instructions that an expression becomes: one for each component, and none where it only says where
    /// something is.
    fn instructions(&self, frame: &Frame<'_>, expression: Handle<Expression>) -> u64 {
        let expressions = &frame.function.expressions;
        match expressions[expression] {
            Expression::Load { pointer } => {
                return u64::from(!matches!(expressions[pointer], Expression::LocalVariable(_)));
            }
            Expression::Access { .. } | Expression::AccessIndex { .. } | Expression::Compose { .. } => {
                return 0;
            }
            _ => {}
        }
        if let Some(Value::Number(Number { known, .. })) = frame.values.get(&expression)
            && known.and(Known::Unrolled(self.depth)) != Known::No
        {
            return 0;
        }
        // Products of vectors and conversions become several.
        let each = match expressions[expression] {
            Expression::Math { fun: MathFunction::Min | MathFunction::Max, .. } => 1,
            Expression::Math { .. } => 8,
            _ => 1,
        };
        each * match *frame.types[expression].inner_with(&self.module.types) {
            TypeInner::Scalar(_) => 1,
            TypeInner::Vector { size, .. } => size as u64,
            _ => 16,
        }
    }

    fn block(&mut self, frame: &mut Frame<'a>, block: &'a Block) -> Count {
        block.iter().fold(Count::default(), |count, statement| count.then(self.statement(frame, statement)))
    }

    fn statement(&mut self, frame: &mut Frame<'a>, statement: &'a Statement) -> Count {
        match statement {
            Statement::Emit(range) => {
                let mut instructions = 0;
                for expression in range.clone() {
                    let value = self.evaluate(frame, expression);
                    frame.values.insert(expression, value);
                    instructions += self.instructions(frame, expression);
                }
                Count::instructions(instructions)
            }
            Statement::Block(block) => self.block(frame, block),
            Statement::Store { pointer, value } => {
                let value = self.number(frame, *value);
                match frame.function.expressions[*pointer] {
                    Expression::LocalVariable(local) => {
                        frame.locals.insert(local, value);
                    }
                    Expression::GlobalVariable(global) => {
                        self.globals.entry(global).and_modify(|known| *known = value);
                    }
                    _ => {}
                }
                Count::default()
            }
            Statement::If { condition, accept, reject } => {
                let condition = self.number(frame, *condition);
                self.branch(frame, &condition, accept, reject)
            }
            Statement::Loop { body, continuing, break_if: None } => self.looped(frame, body, continuing),
            Statement::Call { function, arguments, result } => {
                for &argument in arguments {
                    if let Expression::LocalVariable(local) = frame.function.expressions[argument] {
                        frame.locals.insert(local, Number::unknown());
                    }
                }
                let arguments = arguments.iter().map(|&argument| self.value(frame, argument)).collect();
                let (value, count) = self.call(&self.module.functions[*function], arguments);
                if let Some(result) = *result {
                    frame.values.insert(result, value);
                }
                count
            }
            Statement::Return { value: Some(value) } => {
                let value = self.value(frame, *value);
                let several = frame.returned.is_some();
                frame.returned = Some(if several { Value::Number(Number::unknown()) } else { value });
                Count::default()
            }
            // Neither has the library's code, and neither is understood here.
            Statement::Loop { .. } | Statement::Switch { .. } => Count::ENDLESS,
            _ => Count::default(),
        }
    }

    /// Lanes that do not take a branch idle through it. Where all lanes go one way, only that is counted as
    /// active.
    fn branch(
        &mut self,
        frame: &mut Frame<'a>,
        condition: &Number,
        accept: &'a Block,
        reject: &'a Block,
    ) -> Count {
        let before = (frame.locals.clone(), self.globals.clone());
        let accepted = self.block(frame, accept);
        let after =
            (std::mem::replace(&mut frame.locals, before.0), std::mem::replace(&mut self.globals, before.1));
        let rejected = self.block(frame, reject);
        // What either branch has stored is not followed further.
        for (local, number) in after.0 {
            forget_unless_equal(frame.locals.get_mut(&local), &number);
        }
        for (global, number) in after.1 {
            forget_unless_equal(self.globals.get_mut(&global), &number);
        }
        let only_accepted = accepted.active.saturating_add(rejected.idle);
        let only_rejected = rejected.active.saturating_add(accepted.idle);
        let active = match (self.least(condition), self.most(condition)) {
            (1.., _) => only_accepted,
            (_, Some(0)) => only_rejected,
            _ if condition.varying => accepted.active.saturating_add(rejected.active),
            _ => only_accepted.max(only_rejected),
        };
        Count { active, ..accepted.then(rejected) }
    }

    /// `for (; counter < bound; counter += step)`, the form that tests/shaders.rs holds every loop to.
    fn looped(&mut self, frame: &mut Frame<'a>, body: &'a Block, continuing: &'a Block) -> Count {
        let Some((counter, bound, step)) = counted(self.module, frame.function, body, continuing) else {
            return Count::ENDLESS;
        };
        let first = frame.locals[&counter].clone();
        // Whatever the body stores may have any value when it begins again.
        let mut stored = Vec::new();
        stores(frame.function, body, &mut stored);
        for (_, function) in self.module.functions.iter() {
            let globals = |pointer: &&Expression| matches!(pointer, Expression::GlobalVariable(_));
            let mut everywhere = Vec::new();
            stores(function, &function.body, &mut everywhere);
            stored.extend(everywhere.into_iter().filter(globals));
        }
        for pointer in stored {
            match *pointer {
                Expression::LocalVariable(local) => {
                    frame.locals.insert(local, Number::unknown());
                }
                Expression::GlobalVariable(global) => {
                    self.globals.entry(global).and_modify(|number| *number = Number::unknown());
                }
                _ => {}
            }
        }

        // The bound does not depend on the counter, so the counter may be anything while it is found.
        frame.locals.insert(counter, Number { upper: Vec::new(), ..first.clone() });
        for statement in body.iter().take_while(|statement| matches!(statement, Statement::Emit(_))) {
            self.statement(frame, statement);
        }
        let bound = self.number(frame, bound);
        let distance = minus(&bound, &first);
        let Some(distance) = self.most(&distance) else { return Count::ENDLESS };
        let trips = distance.max(0).unsigned_abs().div_ceil(step.unsigned_abs());

        let constant = first.known == Known::Yes && bound.known == Known::Yes && trips <= MOST_UNROLLED;
        self.depth += 1;
        let passed = self.between(0, (distance.max(1) - 1) / step * step, false);
        let mut at = plus(&first, &passed);
        at.upper.extend(bound.upper.iter().map(|form| form.plus(&Form::constant(1), -1)));
        let known = if constant { Known::Unrolled(self.depth) } else { Known::No };
        frame.locals.insert(counter, Number { varying: first.varying, known, ..limited(at) });
        let count = self.block(frame, body).then(self.block(frame, continuing));
        self.depth -= 1;
        frame.locals.insert(counter, Number { upper: Vec::new(), varying: true, known: Known::No, ..first });
        let small = trips.saturating_mul(count.instructions) <= MOST_INSTRUCTIONS;
        let unrolled = constant
            && count.active == 0
            && (small || indexes(self.module, frame.function, body, counter, trips));
        if unrolled {
            Count::instructions(trips.saturating_mul(count.instructions))
        } else {
            count.looped(trips)
        }
    }
}

impl Interpreter<'_> {
    fn value(&mut self, frame: &Frame<'_>, expression: Handle<Expression>) -> Value {
        match frame.values.get(&expression) {
            Some(value) => value.clone(),
            None => self.evaluate(frame, expression),
        }
    }

    fn number(&mut self, frame: &Frame<'_>, expression: Handle<Expression>) -> Number {
        match self.value(frame, expression) {
            Value::Number(number) => number,
            Value::Components(_) => Number::unknown(),
        }
    }

    fn evaluate(&mut self, frame: &Frame<'_>, expression: Handle<Expression>) -> Value {
        if let Some(value) = literal(self.module, &frame.function.expressions, expression) {
            return Value::Number(Number::constant(value));
        }
        Value::Number(match frame.function.expressions[expression] {
            Expression::FunctionArgument(at) => return frame.arguments[at as usize].clone(),
            Expression::AccessIndex { base, index } => {
                if let Value::Components(components) = self.value(frame, base) {
                    return components[index as usize].clone();
                }
                Number::unknown()
            }
            Expression::Load { pointer } => match frame.function.expressions[pointer] {
                Expression::LocalVariable(local) => frame.locals[&local].clone(),
                Expression::GlobalVariable(global) => {
                    self.globals.get(&global).cloned().unwrap_or_else(Number::unknown)
                }
                Expression::AccessIndex { base, index } => self.uniform(frame, base, index),
                _ => Number::unknown(),
            },
            Expression::Unary { op: UnaryOperator::LogicalNot, expr } => {
                let operand = self.number(frame, expr);
                minus(&Number::constant(1), &operand)
            }
            Expression::Binary { op, left, right } => {
                let (left, right) = (self.number(frame, left), self.number(frame, right));
                self.binary(op, &left, &right)
            }
            Expression::Math {
                fun: fun @ (MathFunction::Min | MathFunction::Max),
                arg,
                arg1: Some(other),
                ..
            } => {
                let (one, other) = (self.number(frame, arg), self.number(frame, other));
                self.extreme(fun, one, other)
            }
            Expression::Select { accept, reject, .. } => {
                let (one, other) = (self.number(frame, accept), self.number(frame, reject));
                let least = self.least(&one).min(self.least(&other));
                match (self.most(&one), self.most(&other)) {
                    (Some(one), Some(other)) => self.between(least, one.max(other), true),
                    _ => Number::unknown(),
                }
            }
            _ => Number::unknown(),
        })
    }

    /// A member of the uniform, which is known where it is an integer.
    fn uniform(&mut self, frame: &Frame<'_>, base: Handle<Expression>, member: u32) -> Number {
        let Expression::GlobalVariable(global) = frame.function.expressions[base] else {
            return Number::unknown();
        };
        let variable = &self.module.global_variables[global];
        let TypeInner::Struct { ref members, .. } = self.module.types[variable.ty].inner else {
            return Number::unknown();
        };
        let member = &members[member as usize];
        let scalar = self.module.types[member.ty].inner.scalar();
        let unsigned = scalar.is_some_and(|scalar| scalar.kind == ScalarKind::Uint);
        let bytes = self.uniform.get(member.offset as usize..).and_then(|bytes| bytes.first_chunk());
        match bytes {
            Some(bytes) if unsigned && variable.space == AddressSpace::Uniform => {
                Number::exact(Form::constant(u32::from_le_bytes(*bytes).into()), false)
            }
            _ => Number { varying: variable.space != AddressSpace::Uniform, ..Number::unknown() },
        }
    }

    fn binary(&mut self, op: BinaryOperator, left: &Number, right: &Number) -> Number {
        let varying = left.varying || right.varying;
        let fixed = self.fixed(right);
        let number = match op {
            BinaryOperator::Add => plus(left, right),
            BinaryOperator::Subtract => minus(left, right),
            BinaryOperator::Multiply => match (self.fixed(left), fixed) {
                (Some(times), _) => times_constant(right, times),
                (_, Some(times)) => times_constant(left, times),
                _ => {
                    let least = self.least(left).saturating_mul(self.least(right));
                    let most =
                        self.most(left).zip(self.most(right)).map(|(one, other)| one.saturating_mul(other));
                    self.up_to(least, most, varying)
                }
            },
            BinaryOperator::Divide if fixed > Some(0) => self.quotient(left, fixed.unwrap_or(1)),
            BinaryOperator::Modulo if fixed > Some(0) => {
                let by = fixed.unwrap_or(1);
                if self.most(left).is_some_and(|most| most < by) {
                    left.clone()
                } else {
                    self.between(0, by - 1, varying)
                }
            }
            BinaryOperator::Less => self.less(left, right),
            BinaryOperator::Greater => self.less(right, left),
            BinaryOperator::LessEqual => self.negated_less(right, left),
            BinaryOperator::GreaterEqual => self.negated_less(left, right),
            BinaryOperator::LogicalAnd => self.extreme(MathFunction::Min, left.clone(), right.clone()),
            BinaryOperator::LogicalOr => self.extreme(MathFunction::Max, left.clone(), right.clone()),
            BinaryOperator::Equal | BinaryOperator::NotEqual => self.between(0, 1, varying),
            _ => Number::unknown(),
        };
        Number { varying, known: left.known.and(right.known), ..number }
    }

    /// 1 where `left < right`.
    fn less(&mut self, left: &Number, right: &Number) -> Number {
        let distance = minus(right, left);
        if self.least_signed(&distance) > 0 {
            Number::constant(1)
        } else if self.most(&distance).is_some_and(|most| most <= 0) {
            Number::constant(0)
        } else {
            self.between(0, 1, true)
        }
    }

    /// 1 where not `left < right`.
    fn negated_less(&mut self, left: &Number, right: &Number) -> Number {
        let less = self.less(left, right);
        minus(&Number::constant(1), &less)
    }

    fn extreme(&mut self, fun: MathFunction, one: Number, other: Number) -> Number {
        let (varying, known) = (one.varying || other.varying, one.known.and(other.known));
        let (least_one, least_other) = (self.least(&one), self.least(&other));
        let mosts = (self.most(&one), self.most(&other));
        limited(if fun == MathFunction::Min {
            let lower = vec![Form::constant(least_one.min(least_other))];
            Number { lower, upper: [one.upper, other.upper].concat(), varying, known }
        } else {
            let upper = match mosts {
                (Some(one), Some(other)) => vec![Form::constant(one.max(other))],
                _ => Vec::new(),
            };
            Number { lower: [one.lower, other.lower].concat(), upper, varying, known }
        })
    }

    fn quotient(&mut self, number: &Number, by: i64) -> Number {
        let divides =
            |form: &Form| form.constant % by == 0 && form.terms.iter().all(|&(_, times)| times % by == 0);
        if let Some(form) = number.lower.iter().find(|form| number.upper.contains(form) && divides(form)) {
            let terms = form.terms.iter().map(|&(counter, times)| (counter, times / by)).collect();
            return Number::exact(Form { constant: form.constant / by, terms }, number.varying);
        }
        let most = self.most(number).map(|most| most / by);
        self.up_to(self.least(number) / by, most, number.varying)
    }

    fn up_to(&mut self, least: i64, most: Option<i64>, varying: bool) -> Number {
        match most {
            Some(most) => self.between(least, most, varying),
            None => Number { lower: vec![Form::constant(least)], varying, ..Number::unknown() },
        }
    }

    /// The greatest number that it surely reaches.
    fn least(&self, number: &Number) -> i64 {
        self.least_signed(number).max(0)
    }

    fn least_signed(&self, number: &Number) -> i64 {
        number.lower.iter().map(|form| self.extent(form, -1)).max().unwrap_or(i64::MIN)
    }

    /// The least number that it surely does not exceed.
    fn most(&self, number: &Number) -> Option<i64> {
        number.upper.iter().map(|form| self.extent(form, 1)).min()
    }

    fn fixed(&self, number: &Number) -> Option<i64> {
        let most = self.most(number)?;
        (self.least(number) == most).then_some(most)
    }

    /// The largest value of a form, or the smallest for a `sign` of -1.
    fn extent(&self, form: &Form, sign: i64) -> i64 {
        form.terms
            .iter()
            .filter(|(_, times)| times.signum() == sign)
            .fold(form.constant, |sum, &(counter, times)| {
                sum.saturating_add(times.saturating_mul(self.ranges[counter]))
            })
    }
}

fn plus(one: &Number, other: &Number) -> Number {
    combined(one, other, pairs(&one.lower, &other.lower, 1), pairs(&one.upper, &other.upper, 1))
}

fn minus(one: &Number, other: &Number) -> Number {
    combined(one, other, pairs(&one.lower, &other.upper, -1), pairs(&one.upper, &other.lower, -1))
}

fn combined(one: &Number, other: &Number, lower: Vec<Form>, upper: Vec<Form>) -> Number {
    let (varying, known) = (one.varying || other.varying, one.known.and(other.known));
    limited(Number { lower, upper, varying, known })
}

fn times_constant(number: &Number, times: i64) -> Number {
    let scaled = |forms: &[Form]| forms.iter().map(|form| Form::constant(0).plus(form, times)).collect();
    Number { lower: scaled(&number.lower), upper: scaled(&number.upper), ..number.clone() }
}

fn pairs(one: &[Form], other: &[Form], factor: i64) -> Vec<Form> {
    one.iter().flat_map(|one| other.iter().map(move |other| one.plus(other, factor))).collect()
}

/// Without repeated forms, and without more than are worth their time.
fn limited(mut number: Number) -> Number {
    for forms in [&mut number.lower, &mut number.upper] {
        let mut distinct: Vec<Form> = Vec::new();
        for form in forms.drain(..) {
            if !distinct.contains(&form) {
                distinct.push(form);
            }
        }
        distinct.truncate(MOST_FORMS);
        *forms = distinct;
    }
    number
}

fn forget_unless_equal(number: Option<&mut Number>, other: &Number) {
    if let Some(number) = number
        && (number.lower != other.lower || number.upper != other.upper)
    {
        *number = Number::unknown();
    }
}

/// An integer or a condition that is written out or a named constant.
fn literal(
    module: &Module,
    expressions: &naga::Arena<Expression>,
    expression: Handle<Expression>,
) -> Option<i64> {
    match expressions[expression] {
        Expression::Literal(Literal::U32(value)) => Some(value.into()),
        Expression::Literal(Literal::I32(value)) => Some(value.into()),
        Expression::Literal(Literal::Bool(value)) => Some(value.into()),
        Expression::Constant(constant) => {
            literal(module, &module.global_expressions, module.constants[constant].init)
        }
        _ => None,
    }
}

/// A loop's counter, its bound, and by how much it counts.
fn counted(
    module: &Module,
    function: &Function,
    body: &Block,
    continuing: &Block,
) -> Option<(Handle<LocalVariable>, Handle<Expression>, i64)> {
    let expressions = &function.expressions;
    let Some(Statement::If { condition, .. }) =
        body.iter().find(|statement| !matches!(statement, Statement::Emit(_)))
    else {
        return None;
    };
    let Expression::Binary { op: BinaryOperator::Less, left, right: bound } = expressions[*condition] else {
        return None;
    };
    let Expression::Load { pointer } = expressions[left] else { return None };
    let Expression::LocalVariable(counter) = expressions[pointer] else { return None };
    let increment = continuing.iter().find_map(|statement| match statement {
        Statement::Store { value, .. } => Some(*value),
        _ => None,
    })?;
    let Expression::Binary { op: BinaryOperator::Add, right: step, .. } = expressions[increment] else {
        return None;
    };
    let step = literal(module, expressions, step)?;
    (step > 0).then_some((counter, bound, step))
}

/// Whether a loop's counter indexes a local array of `length` elements in the loop's own body.
fn indexes(
    module: &Module,
    function: &Function,
    body: &Block,
    counter: Handle<LocalVariable>,
    length: u64,
) -> bool {
    let expressions = &function.expressions;
    let is_counter = |index: Handle<Expression>| {
        matches!(expressions[index], Expression::Load { pointer }
            if matches!(expressions[pointer], Expression::LocalVariable(local) if local == counter))
    };
    let local_array = |base: Handle<Expression>| match expressions[base] {
        Expression::LocalVariable(local) => Some(function.local_variables[local].ty),
        Expression::FunctionArgument(at) => match module.types[function.arguments[at as usize].ty].inner {
            TypeInner::Pointer { base, space: AddressSpace::Function } => Some(base),
            _ => None,
        },
        _ => None,
    };
    let is_long = |ty: Handle<naga::Type>| {
        matches!(module.types[ty].inner, TypeInner::Array { size: naga::ArraySize::Constant(size), .. }
            if u64::from(size.get()) == length)
    };
    body.iter().any(|statement| match statement {
        Statement::Emit(range) => range.clone().any(|expression| {
            matches!(expressions[expression], Expression::Access { base, index }
                if is_counter(index) && local_array(base).is_some_and(is_long))
        }),
        Statement::Block(block) => indexes(module, function, block, counter, length),
        _ => false,
    })
}

/// The variables that a block stores to, at any depth.
fn stores<'a>(function: &'a Function, block: &'a Block, found: &mut Vec<&'a Expression>) {
    for statement in block {
        match statement {
            Statement::Store { pointer, .. } => found.push(&function.expressions[*pointer]),
            Statement::Block(block) => stores(function, block, found),
            Statement::If { accept, reject, .. } => {
                stores(function, accept, found);
                stores(function, reject, found);
            }
            Statement::Loop { body, continuing, .. } => {
                stores(function, body, found);
                stores(function, continuing, found);
            }
            Statement::Call { arguments, .. } => {
                found.extend(arguments.iter().map(|&argument| &function.expressions[argument]));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use wgpu::util::DeviceExt as _;

    use super::*;
    use crate::device::Gpu;
    use crate::op::{
        AdamWPlan, BackwardInputPlan, BackwardParamsPlan, ForwardPlan, LinearOptions, LinearPlan,
    };
    use crate::shader::{Binding, BindingKind};
    use crate::{
        AdamWHyper, Config, DeviceProfile, DispatchPlan, Element, LinearDirection, Operation, Router,
        WriteMode,
    };

    /// The count of a shader whose uniform says `n = 5, m = 7` and whose grid is 3 x 1 x 1.
    fn count(functions: &str, body: &str) -> u64 {
        let wgsl = format!(
            "struct Dims {{ n: u32, m: u32 }}
            @group(0) @binding(0) var<uniform> dims: Dims;
            @group(0) @binding(1) var<storage, read_write> out: array<u32>;
            {functions}
            @compute @workgroup_size(64)
            fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {{
                {body}
            }}"
        );
        most_iterations(&wgsl, bytemuck::bytes_of(&[5u32, 7]), [3, 1, 1])
    }

    #[test]
    fn loops_count_as_llvmpipe_counts_them() {
        let write = "out[local] += 1u;";
        let cases = [
            // The body runs once more, idle.
            ("for (var i = 0u; i < dims.n; i++) { WRITE }", 5 + 1),
            ("for (var i = 1u; i < dims.n; i += 3u) { WRITE }", 2 + 1),
            ("for (var i = 9u; i < dims.n; i++) { WRITE }", 1),
            // So does the loop inside it.
            (
                "for (var i = 0u; i < dims.n; i++) { for (var j = 0u; j < dims.m; j++) { WRITE } }",
                5 * (1 + 8) + 2,
            ),
            // The lanes start apart: the first takes the most.
            ("for (var i = local; i < 100u; i += 64u) { WRITE }", 2 + 1),
            // Both ends move with the outer loop.
            (
                "for (var i = 0u; i < 100u; i += 10u) {
                    for (var j = i + local; j < min(i + 10u, 95u); j++) { WRITE }
                }",
                10 * (1 + 11) + 2,
            ),
            // The workgroup's first group is its own.
            ("for (var i = group.x * dims.n; i < (group.x + 1u) * dims.n; i++) { WRITE }", 5 + 1),
            // Few and constant iterations of little are unrolled; many, or of much, are not.
            ("for (var i = 0u; i < 8u; i++) { WRITE }", 0),
            ("for (var i = 0u; i < 33u; i++) { WRITE }", 33 + 1),
            (
                "for (var i = 0u; i < 32u; i++) {
                    WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE
                }",
                32 + 1,
            ),
            // An untaken branch idles: all lanes take one, or each its own.
            (
                "if (group.x > 1u) { for (var i = 0u; i < dims.n; i++) { WRITE } }
                else { for (var i = 0u; i < dims.m; i++) { WRITE } }",
                8 + 1,
            ),
            (
                "if (local > 1u) { for (var i = 0u; i < dims.n; i++) { WRITE } }
                else { for (var i = 0u; i < dims.m; i++) { WRITE } }",
                8 + 6,
            ),
            ("let n = bound(group.x); for (var i = 0u; i < n; i++) { WRITE }", 7 + 1),
            // What is stored in memory may be anything.
            ("for (var i = 0u; i < out[0]; i++) { WRITE }", u64::MAX),
            (
                "var n = 1u;
                for (var i = 0u; i < 99u; i++) { n += 1u; }
                for (var i = 0u; i < n; i++) { WRITE }",
                u64::MAX,
            ),
        ];
        let functions = "fn bound(n: u32) -> u32 { return min(3u * n + 1u, dims.m); }";
        for (body, expected) in cases {
            assert_eq!(count(functions, &body.replace("WRITE", write)), expected, "{body}");
        }
    }

    /// A dispatch that first burns as many loop iterations as its uniform says.
    struct Burning<'a> {
        gpu: &'a Gpu,
        plan: &'a DispatchPlan,
        pipeline: wgpu::ComputePipeline,
        tensors: Vec<(wgpu::Buffer, BindingKind)>,
        numbers: Vec<f32>,
    }

    impl<'a> Burning<'a> {
        fn new(gpu: &'a Gpu, plan: &'a DispatchPlan, elements: usize) -> Self {
            let source = plan.shader.source();
            let begin = source.wgsl.rfind("fn main(").expect("an entry point");
            let begin = begin + source.wgsl[begin..].find(") {").expect("its body") + 3;
            let (before, after) = source.wgsl.split_at(begin);
            let wgsl = format!(
                "@group(1) @binding(0) var<uniform> burn: vec4<u32>;
                var<workgroup> burnt: u32;
                {before} for (var i = 0u; i < burn.x; i++) {{ burnt = i; }} {after}"
            );
            let layout = |bindings: &[BindingKind]| {
                let entries: Vec<_> =
                    (0..).zip(bindings).map(|(at, &kind)| crate::pipeline::layout_entry(at, kind)).collect();
                gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                    label: None,
                    entries: &entries,
                })
            };
            let kinds: Vec<_> = source.bindings.iter().map(|binding| binding.kind).collect();
            let layouts = [layout(&kinds), layout(&[BindingKind::Uniform])];
            let layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                bind_group_layouts: &layouts.each_ref().map(Some),
                ..Default::default()
            });
            let module = crate::pipeline::trusted_module(&gpu.device, source.label, wgsl);
            let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: Some(&layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            let tensor =
                |Binding { kind, .. }: &Binding| (gpu.zeroed("tensor", elements).expect("memory"), *kind);
            let mut random = crate::adapter::SplitMix64(1);
            Self {
                gpu,
                plan,
                pipeline,
                tensors: source.bindings[1..].iter().map(tensor).collect(),
                numbers: (0..elements).map(|_| random.uniform()).collect(),
            }
        }

        /// What the dispatch writes.
        fn run(&self, burn: u64) -> Vec<Vec<u32>> {
            let Self { gpu: Gpu { device, queue }, plan, pipeline, tensors, numbers, .. } = self;
            let uniform = |contents: &[u8]| {
                let usage = wgpu::BufferUsages::UNIFORM;
                device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage })
            };
            let mut bytes = plan.uniform.clone();
            bytes.resize(bytes.len().next_multiple_of(16), 0);
            let uniforms = [uniform(&bytes), uniform(bytemuck::bytes_of(&[burn as u32, 0, 0, 0]))];
            for (tensor, _) in tensors {
                queue.write_buffer(tensor, 0, bytemuck::cast_slice(numbers));
            }
            let group = |at: u32, buffers: &[&wgpu::Buffer]| {
                let entries: Vec<_> = (0..)
                    .zip(buffers)
                    .map(|(binding, buffer)| wgpu::BindGroupEntry {
                        binding,
                        resource: buffer.as_entire_binding(),
                    })
                    .collect();
                let layout = &pipeline.get_bind_group_layout(at);
                device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout,
                    entries: &entries,
                })
            };
            let bound: Vec<_> =
                [&uniforms[0]].into_iter().chain(tensors.iter().map(|(tensor, _)| tensor)).collect();
            let groups = [group(0, &bound), group(1, &[&uniforms[1]])];
            let [x, y, z] = plan.grid;
            let record = |pass: &mut wgpu::ComputePass<'_>| {
                pass.set_pipeline(pipeline);
                for (at, group) in (0..).zip(&groups) {
                    pass.set_bind_group(at, group, &[]);
                }
                pass.dispatch_workgroups(x, y, z);
            };
            self.gpu.submit(record).expect("a working device");
            let written = tensors.iter().filter(|(_, kind)| *kind == BindingKind::Write);
            let bits = |(tensor, _): &(wgpu::Buffer, _)| {
                let values = self.gpu.read_blocking(tensor).expect("a working device");
                values.into_iter().map(f32::to_bits).collect()
            };
            written.map(bits).collect()
        }
    }

    /// Burns what a plan leaves of the driver's 65,535 iterations: its results must not change. Where no loops
    /// are ended this says nothing; on llvmpipe it also sees that more than all of them do change results.
    #[test]
    fn no_plan_counts_fewer_iterations_than_the_driver() {
        const ALL: u64 = 65_535;
        let gpu = pollster::block_on(Gpu::from_env()).expect("a GPU or a software driver");
        let device = DeviceProfile { max_loop_iterations: u64::MAX, ..DeviceProfile::of(&gpu.device) };
        let alone = DeviceProfile { subgroup_lanes: 1, ..device.clone() };
        let mut plans: Vec<DispatchPlan> = Vec::new();
        let mut add = |dispatches: &[DispatchPlan]| plans.extend_from_slice(dispatches);
        for ([tokens, d_in, d_out, rank, experts], router) in
            [([20, 256, 192, 8, 4], Router::Latent), ([228, 384, 152, 65, 12], Router::Input)]
        {
            let config = Config { d_in, d_out, rank, experts, scaling: 1.0, router };
            let fits = "these shapes fit";
            for operation in Operation::training_step(Element::F32) {
                for device in [&device, &alone] {
                    let choices = operation.choices(&config, tokens, device).expect(fits);
                    for choice in [choices[0], choices[choices.len() - 1]] {
                        let mut tuned = device.clone();
                        tuned.tuning.set(&config, tokens, operation, choice);
                        match operation {
                            Operation::Forward(options) => {
                                add(&ForwardPlan::new(&config, tokens, &options, &tuned)
                                    .expect(fits)
                                    .dispatches);
                            }
                            Operation::BackwardInput(options) => {
                                let plan = BackwardInputPlan::new(&config, tokens, &options, &tuned);
                                add(&plan.expect(fits).dispatches);
                            }
                            Operation::BackwardParams(options) => {
                                let plan = BackwardParamsPlan::new(&config, tokens, &options, &tuned);
                                add(&plan.expect(fits).dispatches);
                            }
                        }
                    }
                }
            }
            for direction in [LinearDirection::Forward, LinearDirection::Backward] {
                let [source, weight, target] = [Element::F32; 3];
                let options =
                    LinearOptions { bias: false, write: WriteMode::Overwrite, source, weight, target };
                let plan = LinearPlan::new(direction, [d_in, d_out, tokens], &options, &device);
                add(&[plan.expect(fits).dispatch]);
            }
        }
        let hyper = AdamWHyper { max_norm: Some(1.0), ..AdamWHyper::default() };
        add(&AdamWPlan::new(400_000, hyper, &device).expect("it fits").dispatches);
        plans.sort_by_key(|plan| format!("{plan:?}"));
        plans.dedup();
        assert!(plans.len() > 20, "only {} dispatches", plans.len());

        let mut ended = 0;
        for plan in &plans {
            let counted = most_iterations(&plan.shader.source().wgsl, &plan.uniform, plan.grid);
            let burning = Burning::new(&gpu, plan, 600_000);
            let right = burning.run(0);
            assert!(burning.run(ALL - 1 - counted) == right, "{plan:?}: more than {counted} iterations");
            ended += usize::from(burning.run(ALL + 1) != right);
        }
        if DeviceProfile::of(&gpu.device).max_loop_iterations < u64::MAX {
            assert!(2 * ended > plans.len(), "only {ended} of {} dispatches were ended", plans.len());
        }
    }
}
