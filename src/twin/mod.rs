//! A float64 CPU twin of every kernel. It is written for reading, and it also bounds the errors of f32.
//!
//! Every number is an [`Approx`]: a value, and a first-order bound on the absolute error that f32 arithmetic
//! may add to it, in any order of summation. Bounds compose, so the bound of a twin's result is the tolerance
//! for its kernel. No tolerance is chosen per kernel or per test.
//!
//! The rules (u is f32's unit roundoff, 2^-24):
//! - a sum of n products carries [`C`] * u * sqrt(n) * sum |terms| for its own rounding (Higham and Mary
//!   2019: rounding errors behave as if independent), plus each factor's error times the other factor;
//! - any other operation carries u times its result; a division carries 2.5 units in the last place, and an
//!   exponential 3 + 2|x| of them (the accuracy in the WGSL specification);
//! - any result that may flush to zero carries f32's smallest normal number;
//! - a store in half precision carries its rounding ([`stored`]).

mod adamw;
mod backward_input;
mod backward_params;
mod dropout;
mod forward;
mod gate_gradients;
mod gate_losses;
mod linear;

pub use adamw::{AdamWStep, Moments, adamw, gradient_norm};
pub use backward_input::{InputGradient, backward_input};
pub use backward_params::{Activations, backward_params};
pub use dropout::{Random, philox};
pub use forward::{Output, forward};
pub use gate_gradients::gate_gradients;
pub use gate_losses::{GateLosses, gate_losses};
pub use linear::{linear, linear_backward};

use std::ops::{Add, Mul, Sub};

use crate::element::Element;
use crate::layer::{Adapter, Config, GateGradient};

/// f32's unit roundoff.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;

/// The only constant of all bounds. With 2, the bound of a sum holds rigorously up to four terms, in any
/// order, and with or without fused multiply-add (n roundings of at most u * sum |terms| each). Beyond that
/// it is probabilistic, because n roundings hardly ever all go in the same direction.
pub const C: f64 = 2.0;

/// f32's smallest normal number. Smaller numbers may be flushed to zero.
const SMALLEST_NORMAL: f64 = f32::MIN_POSITIVE as f64;

/// The unit roundoffs of half precision.
const F16_U: f64 = 1.0 / (1u64 << 11) as f64;
const BF16_U: f64 = 1.0 / (1u64 << 8) as f64;

/// f16's largest, smallest normal and smallest number.
const F16_LARGEST: f64 = 65504.0;
const F16_SMALLEST_NORMAL: f64 = 1.0 / (1u64 << 14) as f64;
const F16_SMALLEST: f64 = 1.0 / (1u64 << 24) as f64;

/// A value with a bound on its absolute error.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Approx {
    /// The value in float64.
    pub value: f64,
    /// The bound on the absolute error of f32 arithmetic.
    pub bound: f64,
}

impl Approx {
    /// A value without error, such as an input.
    #[must_use]
    pub fn exact(value: f64) -> Self {
        Self { value, bound: 0.0 }
    }

    /// A float64 value after rounding to f32.
    #[must_use]
    pub fn rounded(value: f64) -> Self {
        Self { value, bound: U * value.abs() + SMALLEST_NORMAL }
    }

    fn with_rounding(self, units: f64) -> Self {
        Self { bound: self.bound + units * U * self.value.abs() + SMALLEST_NORMAL, ..self }
    }

    /// `sqrt(self)`, for a value of at least 0.
    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        // |sqrt(a + e) - sqrt(a)| is at most e / sqrt(a), and at most sqrt(e).
        let bound = (self.bound / value).min(self.bound.sqrt());
        // WGSL's sqrt is as accurate as 1 / inverseSqrt: 2 and 2.5 units in the last place, each up to 2 u.
        Self { value, bound: if self.bound == 0.0 { 0.0 } else { bound } }.with_rounding(9.0)
    }

    /// `exp(self)`.
    fn exp(self) -> Self {
        let value = self.value.exp();
        Self { value, bound: value * self.bound }.with_rounding(2.0 * (3.0 + 2.0 * self.value.abs()))
    }

    /// The natural logarithm: 2^-21 or 3 units in the last place.
    fn ln(self) -> Self {
        let value = self.value.ln();
        let of_log = 2f64.powi(-21) + 6.0 * U * value.abs();
        Self { value, bound: self.bound / self.value + of_log }
    }

    /// `self / divisor`.
    fn divide(self, divisor: Self) -> Self {
        let value = self.value / divisor.value;
        let bound = (self.bound + value.abs() * divisor.bound) / divisor.value.abs();
        Self { value, bound }.with_rounding(5.0)
    }
}

impl Add for Approx {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { value: self.value + other.value, bound: self.bound + other.bound }.with_rounding(1.0)
    }
}

impl Sub for Approx {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { value: self.value - other.value, bound: self.bound + other.bound }.with_rounding(1.0)
    }
}

impl Mul for Approx {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self {
            value: self.value * other.value,
            bound: self.value.abs() * other.bound + other.value.abs() * self.bound,
        }
        .with_rounding(1.0)
    }
}

/// The sum of products in any order, with f32 accumulation.
fn dot(products: impl Iterator<Item = (Approx, Approx)>) -> Approx {
    let mut sum = Approx::default();
    let mut magnitude = 0.0;
    let mut count = 0.0;
    for (a, b) in products {
        sum.value += a.value * b.value;
        sum.bound += a.value.abs() * b.bound + b.value.abs() * a.bound;
        magnitude += (a.value * b.value).abs();
        count += 1.0;
    }
    sum.bound += C * U * f64::sqrt(count) * magnitude + count * SMALLEST_NORMAL;
    sum
}

/// The same, added to `base` if there is one: kernels start the sum with it.
fn dot_onto(base: Option<Approx>, products: impl Iterator<Item = (Approx, Approx)>) -> Approx {
    dot(base.map(|base| (base, Approx::exact(1.0))).into_iter().chain(products))
}

impl From<&Adapter> for Adapter<Approx> {
    fn from(adapter: &Adapter) -> Self {
        Self {
            a: exact(&adapter.a),
            router: exact(&adapter.router),
            router_bias: exact(&adapter.router_bias),
            b: adapter.b.iter().map(|b| exact(b)).collect(),
        }
    }
}

/// f32 inputs. They have no error, except those below the normal numbers, which may be flushed to zero when
/// they are read.
#[must_use]
pub fn exact(values: &[f32]) -> Vec<Approx> {
    exact_in(Element::F32, values)
}

/// Like [`exact`], for inputs that are stored as `element`, which must be able to hold them.
#[must_use]
pub fn exact_in(element: Element, values: &[f32]) -> Vec<Approx> {
    let smallest_normal = match element {
        Element::F32 | Element::Bf16 => f32::MIN_POSITIVE,
        Element::F16 => F16_SMALLEST_NORMAL as f32,
    };
    values
        .iter()
        .map(|&value| {
            let bound = if value.abs() < smallest_normal { f64::from(value.abs()) } else { 0.0 };
            Approx { value: f64::from(value), bound }
        })
        .collect()
}

/// Results after a store as `element`: f16 rounds to either neighbour, and bf16 to the nearest. Beyond f16's
/// largest number there is no bound.
#[must_use]
pub fn stored(element: Element, results: Vec<Approx>) -> Vec<Approx> {
    let store = |Approx { value, bound }: Approx| {
        let largest = value.abs() + bound;
        let rounding = match element {
            Element::F32 => 0.0,
            Element::F16 if largest > F16_LARGEST => f64::INFINITY,
            // A unit in the last place, or the whole number if it may be flushed to zero.
            Element::F16 if value.abs() - bound < F16_SMALLEST_NORMAL => {
                (2.0 * F16_U * largest).max(F16_SMALLEST_NORMAL.min(largest)).max(F16_SMALLEST)
            }
            Element::F16 => 2.0 * F16_U * largest,
            Element::Bf16 => BF16_U * largest + SMALLEST_NORMAL,
        };
        Approx { value, bound: bound + rounding }
    };
    results.into_iter().map(store).collect()
}

/// What a batch brings besides its activations, for options that need it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extras<'a> {
    /// Given weights or logits, a row for each token: tokens x experts.
    pub gates: Option<&'a [Approx]>,
    /// A gradient that is added to the weights' or the logits', a row for each token: tokens x experts.
    pub gate_gradient: Option<(GateGradient, &'a [Approx])>,
    /// The factor of the z-loss, where the added gradient is that of the router's losses.
    pub z_factor: Option<Approx>,
    /// A number for each token, as in the kernels' tensor: zero for those that take no adapter, and above zero for those that
    /// count for the router's losses. All do if there is no mask.
    pub mask: Option<&'a [f32]>,
    /// What dropout drops; nothing in inference.
    pub random: Option<Random>,
}

impl Extras<'_> {
    fn takes(&self, token: usize) -> bool {
        self.mask.is_none_or(|mask| mask[token] != 0.0)
    }

    fn counts(&self, token: usize) -> bool {
        self.mask.is_none_or(|mask| mask[token] > 0.0)
    }
}

/// Numbers per token that the gate leaves: the weights, 1 for one expert, and what else is saved of them.
fn gate_len(config: &Config) -> usize {
    (config.state_len() - config.a_rows()).max(1) as usize
}

/// Row `index` of a row-major matrix.
fn row(matrix: &[Approx], index: usize, columns: usize) -> &[Approx] {
    &matrix[index * columns..(index + 1) * columns]
}

/// Column `index` of a row-major matrix.
fn column(matrix: &[Approx], index: usize, columns: usize) -> impl Iterator<Item = Approx> + '_ {
    matrix[index..].iter().step_by(columns).copied()
}

/// The inner product of two vectors.
fn inner<'a>(a: &'a [Approx], b: &'a [Approx]) -> Approx {
    dot(a.iter().copied().zip(b.iter().copied()))
}
