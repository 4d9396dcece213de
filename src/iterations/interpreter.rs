//! Interprets a shader once, with intervals for numbers, and counts the iterations of its loops.

use std::collections::HashMap;
use std::rc::Rc;

use naga::front::Typifier;
use naga::proc::ResolveContext;
use naga::{
    AddressSpace, BinaryOperator, Block, BuiltIn, Expression, Function, GlobalVariable, Handle, Literal,
    LocalVariable, MathFunction, Module, ScalarKind, Statement, TypeInner, UnaryOperator,
};

use super::number::{Form, Known, Number, Numbers, limited, minus, plus};

/// Mesa unrolls loops with a constant number of iterations, up to this many, if the counter indexes an array
/// of exactly as many elements,
const MOST_UNROLLED: u64 = 32;

/// or if they have up to `LOOP_UNROLL_LIMIT` (26) times as many instructions when unrolled. Mesa counts more
/// of them than are counted here, such as copies of arrays, so this is half of it.
const MOST_INSTRUCTIONS: u64 = 13 * MOST_UNROLLED;

/// The counts of a piece of code.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    /// Iterations of its loops if lanes are active.
    pub(super) active: u64,
    /// Iterations of its loops if no lane is active.
    idle: u64,
    /// Its instructions. A loop counts those of one iteration.
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

    /// The counts of a loop of `trips` iterations around a body with these counts.
    fn looped(self, trips: u64) -> Self {
        let idle = self.idle.saturating_add(1);
        let active = trips.saturating_mul(self.active.saturating_add(1)).saturating_add(idle);
        Self { active, idle, instructions: self.instructions }
    }
}

/// The value of an expression. Vectors and structs are lists of components.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Number(Number),
    Components(Vec<Value>),
}

/// The state of a function during its interpretation.
struct Frame<'a> {
    function: &'a Function,
    types: Rc<Typifier>,
    arguments: Vec<Value>,
    values: HashMap<Handle<Expression>, Value>,
    locals: HashMap<Handle<LocalVariable>, Number>,
    returned: Option<Value>,
}

pub(super) struct Interpreter<'a> {
    module: &'a Module,
    uniforms: [&'a [u8]; 2],
    grid: [u32; 3],
    /// Private variables.
    globals: HashMap<Handle<GlobalVariable>, Number>,
    numbers: Numbers,
    /// The types of each function's expressions.
    types: HashMap<*const Function, Rc<Typifier>>,
    /// Number of loops around the current statement.
    depth: usize,
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(module: &'a Module, uniforms: [&'a [u8]; 2], grid: [u32; 3]) -> Self {
        let private =
            module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::Private);
        let globals = private.map(|(variable, _)| (variable, Number::unknown())).collect();
        Self { module, uniforms, grid, globals, numbers: Numbers::default(), types: HashMap::new(), depth: 0 }
    }

    /// An argument of an entry point, or a component of one.
    pub(super) fn argument(&mut self, ty: Handle<naga::Type>, binding: Option<&naga::Binding>) -> Value {
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
                grid.iter().map(|&most| Value::Number(self.numbers.between(0, most - 1, false))).collect(),
            ),
            BuiltIn::NumWorkGroups => Value::Components(
                grid.iter()
                    .map(|&count| Value::Number(Number::exact(Form::constant(count), false)))
                    .collect(),
            ),
            BuiltIn::LocalInvocationIndex => {
                Value::Number(self.numbers.between(0, i64::from(threads) - 1, true))
            }
            _ => Value::Number(Number::unknown()),
        }
    }

    /// The result of a function, and the counts of its body.
    pub(super) fn call(&mut self, function: &'a Function, arguments: Vec<Value>) -> (Value, Count) {
        let locals = function.local_variables.iter().map(|(local, variable)| {
            let value = variable.init.and_then(|init| literal(self.module, &function.expressions, init));
            (local, value.map_or_else(Number::unknown, Number::constant))
        });
        let Some(types) = self.types(function) else {
            return (Value::Number(Number::unknown()), Count::ENDLESS);
        };
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

    /// The types of a function's expressions; `None` if naga cannot resolve one.
    fn types(&mut self, function: &'a Function) -> Option<Rc<Typifier>> {
        if let Some(types) = self.types.get(&std::ptr::from_ref(function)) {
            return Some(Rc::clone(types));
        }
        let context =
            ResolveContext::with_locals(self.module, &function.local_variables, &function.arguments);
        let mut types = Typifier::new();
        for (expression, _) in function.expressions.iter() {
            types.grow(expression, &function.expressions, &context).ok()?;
        }
        let types = Rc::new(types);
        self.types.insert(function, Rc::clone(&types));
        Some(types)
    }

    /// Number of instructions of an expression: one for each component, and none if it only computes a place.
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
                Count::instructions(stored(frame.function, *pointer))
            }
            Statement::If { condition, accept, reject } => {
                let condition = self.number(frame, *condition);
                self.branch(frame, &condition, accept, reject)
            }
            Statement::Loop { body, continuing, break_if: None } => self.looped(frame, body, continuing),
            Statement::Call { function, arguments, result } => {
                for &argument in arguments {
                    self.forget(frame, &frame.function.expressions[argument]);
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
            // One for each component of a vector.
            Statement::SubgroupGather { .. } => Count::instructions(4),
            // The library's shaders have neither, and neither is handled here.
            Statement::Loop { .. } | Statement::Switch { .. } => Count::ENDLESS,
            _ => Count::default(),
        }
    }

    /// Lanes that do not take a branch idle through it. If all lanes take the same branch, only that one
    /// counts as active.
    fn branch(
        &mut self,
        frame: &mut Frame<'a>,
        condition: &Number,
        accept: &'a Block,
        reject: &'a Block,
    ) -> Count {
        let before = (frame.locals.clone(), self.globals.clone());
        let accepted = self.block(frame, accept);
        let after = (
            std::mem::replace(&mut frame.locals, before.0.clone()),
            std::mem::replace(&mut self.globals, before.1.clone()),
        );
        let rejected = self.block(frame, reject);
        // A variable that either branch has changed becomes unknown.
        for (local, number) in before.0 {
            if after.0[&local] != number || frame.locals[&local] != number {
                frame.locals.insert(local, Number::unknown());
            }
        }
        for (global, number) in before.1 {
            if after.1[&global] != number || self.globals[&global] != number {
                self.globals.insert(global, Number::unknown());
            }
        }
        let only_accepted = accepted.active.saturating_add(rejected.idle);
        let only_rejected = rejected.active.saturating_add(accepted.idle);
        let active = match (self.numbers.least(condition), self.numbers.most(condition)) {
            (1.., _) => only_accepted,
            (_, Some(0)) => only_rejected,
            _ if condition.varying => accepted.active.saturating_add(rejected.active),
            _ => only_accepted.max(only_rejected),
        };
        Count { active, ..accepted.then(rejected) }
    }

    /// Makes a variable unknown, because code with a pointer to it may store anything there.
    fn forget(&mut self, frame: &mut Frame<'a>, pointer: &Expression) {
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

    /// A loop `for (; counter < bound; counter += step)`, the form that `tests/conformance/tests/shaders.rs`
    /// checks of every loop.
    fn looped(&mut self, frame: &mut Frame<'a>, body: &'a Block, continuing: &'a Block) -> Count {
        let Some((counter, bound, step)) = counted(self.module, frame.function, body, continuing) else {
            return Count::ENDLESS;
        };
        let first = frame.locals[&counter].clone();
        // Any variable that the body stores to may have any value when the body begins again.
        let mut stored = Vec::new();
        stores(frame.function, body, &mut stored);
        for (_, function) in self.module.functions.iter() {
            let globals = |pointer: &&Expression| matches!(pointer, Expression::GlobalVariable(_));
            let mut everywhere = Vec::new();
            stores(function, &function.body, &mut everywhere);
            stored.extend(everywhere.into_iter().filter(globals));
        }
        for pointer in &stored {
            self.forget(frame, pointer);
        }

        // The bound does not depend on the counter, so the counter may have any value while the bound is
        // evaluated.
        frame.locals.insert(counter, Number { upper: Vec::new(), ..first.clone() });
        for statement in body.iter().take_while(|statement| matches!(statement, Statement::Emit(_))) {
            self.statement(frame, statement);
        }
        let bound = self.number(frame, bound);
        let distance = minus(&bound, &first);
        let Some(distance) = self.numbers.most(&distance) else { return Count::ENDLESS };
        let trips = distance.max(0).unsigned_abs().div_ceil(step.unsigned_abs());

        let constant = first.known == Known::Yes && bound.known == Known::Yes && trips <= MOST_UNROLLED;
        self.depth += 1;
        let passed = self.numbers.between(0, (distance.max(1) - 1) / step * step, false);
        let mut at = plus(&first, &passed);
        at.upper.extend(bound.upper.iter().map(|form| form.plus(&Form::constant(1), -1)));
        let known = if constant { Known::Unrolled(self.depth) } else { Known::No };
        frame.locals.insert(counter, Number { varying: first.varying, known, ..limited(at) });
        let count = self.block(frame, body).then(self.block(frame, continuing));
        self.depth -= 1;
        // After the loop these variables are unknown again, because the number of runs is unknown.
        for pointer in stored {
            self.forget(frame, pointer);
        }
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
                self.numbers.binary(op, &left, &right)
            }
            Expression::Math {
                fun: fun @ (MathFunction::Min | MathFunction::Max),
                arg,
                arg1: Some(other),
                ..
            } => {
                let (one, other) = (self.number(frame, arg), self.number(frame, other));
                self.numbers.extreme(fun, one, other)
            }
            Expression::Select { accept, reject, .. } => {
                let (one, other) = (self.number(frame, accept), self.number(frame, reject));
                let least = self.numbers.least(&one).min(self.numbers.least(&other));
                match (self.numbers.most(&one), self.numbers.most(&other)) {
                    (Some(one), Some(other)) => self.numbers.between(least, one.max(other), true),
                    _ => Number::unknown(),
                }
            }
            _ => Number::unknown(),
        })
    }

    /// A member of a uniform, which is known if it is an unsigned integer.
    fn uniform(&mut self, frame: &Frame<'_>, base: Handle<Expression>, member: u32) -> Number {
        let Expression::GlobalVariable(global) = frame.function.expressions[base] else {
            return Number::unknown();
        };
        let variable = &self.module.global_variables[global];
        let TypeInner::Struct { ref members, .. } = self.module.types[variable.ty].inner else {
            return Number::unknown();
        };
        let Some(naga::ResourceBinding { group, binding: 0 }) = variable.binding else {
            return Number::unknown();
        };
        let known = self.uniforms.get(group as usize).copied().unwrap_or_default();
        let is_uniform = variable.space == AddressSpace::Uniform;
        let member = &members[member as usize];
        let scalar = self.module.types[member.ty].inner.scalar();
        let unsigned = scalar.is_some_and(|scalar| scalar.kind == ScalarKind::Uint);
        let bytes = known.get(member.offset as usize..).and_then(|bytes| bytes.first_chunk());
        match bytes {
            Some(bytes) if unsigned && is_uniform => {
                Number::exact(Form::constant(u32::from_le_bytes(*bytes).into()), false)
            }
            _ => Number { varying: !is_uniform, ..Number::unknown() },
        }
    }
}

/// The value of an integer or a condition that is a literal or a named constant.
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

/// A loop's counter, its bound and its step.
fn counted(
    module: &Module,
    function: &Function,
    body: &Block,
    continuing: &Block,
) -> Option<(Handle<LocalVariable>, Handle<Expression>, i64)> {
    let expressions = &function.expressions;
    let is_load = |expression: Handle<Expression>, counter: Handle<LocalVariable>| {
        matches!(expressions[expression], Expression::Load { pointer }
            if matches!(expressions[pointer], Expression::LocalVariable(local) if local == counter))
    };
    // The body begins with: if counter < bound {} else { break }
    let Some(Statement::If { condition, accept, reject }) =
        body.iter().find(|statement| !matches!(statement, Statement::Emit(_)))
    else {
        return None;
    };
    if !accept.is_empty() || !matches!(reject.last(), Some(Statement::Break)) {
        return None;
    }
    let Expression::Binary { op: BinaryOperator::Less, left, right: bound } = expressions[*condition] else {
        return None;
    };
    let Expression::Load { pointer } = expressions[left] else { return None };
    let Expression::LocalVariable(counter) = expressions[pointer] else { return None };
    // The loop ends with the only store to the counter: counter += step
    let (mut inside, mut behind) = (Vec::new(), Vec::new());
    stores(function, body, &mut inside);
    stores(function, continuing, &mut behind);
    let is_counter =
        |pointer: &&Expression| matches!(pointer, Expression::LocalVariable(local) if *local == counter);
    if inside.iter().any(is_counter) || behind.len() != 1 || !behind.iter().all(is_counter) {
        return None;
    }
    let increment = continuing.iter().find_map(|statement| match statement {
        Statement::Store { value, .. } => Some(*value),
        _ => None,
    })?;
    let Expression::Binary { op: BinaryOperator::Add, left, right: step } = expressions[increment] else {
        return None;
    };
    let step = literal(module, expressions, step)?;
    (step > 0 && is_load(left, counter)).then_some((counter, bound, step))
}

/// Whether a loop's counter indexes a local array of `length` elements directly in the loop's body.
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

/// Number of instructions of a store: none to a variable that becomes registers.
fn stored(function: &Function, pointer: Handle<Expression>) -> u64 {
    match function.expressions[pointer] {
        Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => stored(function, base),
        Expression::GlobalVariable(_) => 4,
        _ => 0,
    }
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
