//! The knowledge about the integers of a shader: bounds that are linear forms over loop counters.

use naga::{BinaryOperator, MathFunction};

/// The most linear forms for a bound of a number. More would rarely make it tighter.
const MOST_FORMS: usize = 8;

/// A constant plus multiples of counters. A counter is a number from 0 to its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) constant: i64,
    /// Counters and their factors, in the order of the counters. No factor is 0.
    terms: Vec<(usize, i64)>,
}

impl Form {
    pub(super) fn constant(constant: i64) -> Self {
        Self { constant, terms: Vec::new() }
    }

    /// `self + factor * other`.
    pub(super) fn plus(&self, other: &Self, factor: i64) -> Self {
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

/// The knowledge about an unsigned integer. A condition is 0 or 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Number {
    /// Lower bounds: the number is at least each of these.
    pub(super) lower: Vec<Form>,
    /// Upper bounds: the number is at most each of these, and unbounded if there are none.
    pub(super) upper: Vec<Form>,
    /// Whether it may differ between the lanes of a workgroup.
    pub(super) varying: bool,
    /// Whether compilers know it.
    pub(super) known: Known,
}

/// Whether compilers know a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    No,
    /// Once the loop of this depth is unrolled.
    Unrolled(usize),
    Yes,
}

impl Known {
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, known) | (known, Self::Yes) => known,
            (one, other) if one == other => one,
            _ => Self::No,
        }
    }
}

impl Number {
    pub(super) fn exact(form: Form, varying: bool) -> Self {
        Self { lower: vec![form.clone()], upper: vec![form], varying, known: Known::No }
    }

    pub(super) fn constant(value: i64) -> Self {
        Self { known: Known::Yes, ..Self::exact(Form::constant(value), false) }
    }

    pub(super) fn unknown() -> Self {
        Self { lower: vec![Form::constant(0)], upper: Vec::new(), varying: true, known: Known::No }
    }
}

/// Counters, and arithmetic on numbers that are made of them.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The range of each counter.
    ranges: Vec<i64>,
}

impl Numbers {
    /// A number that is guaranteed to be between `least` and `most`.
    pub(super) fn between(&mut self, least: i64, most: i64, varying: bool) -> Number {
        if least >= most {
            return Number::exact(Form::constant(least), varying);
        }
        self.ranges.push(most - least);
        Number::exact(Form { constant: least, terms: vec![(self.ranges.len() - 1, 1)] }, varying)
    }

    pub(super) fn binary(&mut self, op: BinaryOperator, left: &Number, right: &Number) -> Number {
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

    pub(super) fn extreme(&mut self, fun: MathFunction, one: Number, other: Number) -> Number {
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

    pub(super) fn up_to(&mut self, least: i64, most: Option<i64>, varying: bool) -> Number {
        match most {
            Some(most) => self.between(least, most, varying),
            None => Number { lower: vec![Form::constant(least)], varying, ..Number::unknown() },
        }
    }

    /// The greatest guaranteed lower bound, at least 0.
    pub(super) fn least(&self, number: &Number) -> i64 {
        self.least_signed(number).max(0)
    }

    fn least_signed(&self, number: &Number) -> i64 {
        number.lower.iter().map(|form| self.extent(form, -1)).max().unwrap_or(i64::MIN)
    }

    /// The least guaranteed upper bound, if there is one.
    pub(super) fn most(&self, number: &Number) -> Option<i64> {
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

pub(super) fn plus(one: &Number, other: &Number) -> Number {
    combined(one, other, pairs(&one.lower, &other.lower, 1), pairs(&one.upper, &other.upper, 1))
}

pub(super) fn minus(one: &Number, other: &Number) -> Number {
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

/// Removes repeated forms, and forms beyond [`MOST_FORMS`].
pub(super) fn limited(mut number: Number) -> Number {
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
