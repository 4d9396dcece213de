//! AdamW over one or several buffers of packed parameters: one update for each, after the global norm of the
//! gradients if they are clipped.

use bytemuck::{Pod, Zeroable};

use super::Planner;
use crate::element::Element;
use crate::error::{Error, Limit};
use crate::kernel::{AdamWShader, BindingKind, Shader};
use crate::layer::AdamWHyper;
use crate::plan::{DeviceProfile, Grid, WORKGROUP, fold};
use crate::recording::{Operand, Recording, Slot, Step, Work};

/// `struct Hyper` in `uniform/hyper.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub(crate) struct Hyper {
    pub(crate) decay: [f32; 4],
    pub(crate) step_size: [f32; 4],
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) second_scale: f32,
    pub(crate) epsilon: f32,
    pub(crate) max_norm: f32,
    pub(crate) gradient_scale: f32,
    /// To the 16 bytes that structs with a vec4 are long in WGSL.
    pub(crate) padding: [u32; 2],
}

/// `struct Dims` in `adamw.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Dims {
    pub(super) vecs: u32,
}

/// `struct Dims` in `gradient_norm.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct NormDims {
    pub(super) vecs: u32,
    pub(super) first_square: u32,
}

/// `struct Dims` in `gradient_norm_reduce.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct ReduceDims {
    pub(super) squares: u32,
}

/// 32-bit words in `struct Squares` in `optimiser/norm.wgsl`.
pub(super) const SQUARES_WORDS: u64 = 4;

/// Bytes of `thread_squares` in `optimiser/norm_threads.wgsl`.
const THREAD_SQUARES: u64 = 4 * SQUARES_WORDS * WORKGROUP as u64;

/// Advice if a buffer is too large.
const SPLIT: &str = "split the parameters";

impl Planner {
    /// Records a step of AdamW over buffers with these numbers of elements. With clipping, the first
    /// recordings are `gradient_norm` for each buffer and `gradient_norm_reduce`, which adds up the partial
    /// sums that those leave in the tensor `squares`. Then comes `adamw` for each buffer.
    ///
    /// # Errors
    /// A constant out of its range, a buffer without elements, a number of elements that is not a multiple of four,
    /// or more than the device's limits allow.
    pub fn adamw(&self, elements: &[u64], hyper: &AdamWHyper) -> Result<Vec<Recording>, Error> {
        hyper.check()?;
        let device = &self.profile;
        let (clip, groups) = (hyper.max_norm.is_some(), hyper.has_groups());
        if elements.is_empty() {
            return Err(Error::ZeroDimension { dimension: "the number of buffers" });
        }
        // The sums of squares have room for this many, over all buffers.
        let all = elements.iter().fold(0, |all: u64, &elements| all.saturating_add(elements));
        Error::check_limit("AdamW", Limit::Elements, all, 1 << 30, SPLIT)?;
        let squares = u64::from(WORKGROUP) * SQUARES_WORDS * elements.len() as u64;
        for &elements in elements {
            if elements == 0 {
                return Err(Error::ZeroDimension { dimension: "elements" });
            }
            if !elements.is_multiple_of(4) {
                let (name, value) = ("elements", elements as f64);
                return Err(Error::number(name, value, "a multiple of four"));
            }
        }
        let mut recordings = Vec::new();
        if clip {
            for (at, &elements) in elements.iter().enumerate() {
                recordings.push(norm(at, elements, squares, device)?);
            }
            recordings.push(norm_reduce(squares, device)?);
        }
        for &elements in elements {
            recordings.push(update(elements, clip, groups, device)?);
        }
        Ok(recordings)
    }
}

/// Words of the groups of so many parameters.
pub(crate) fn group_words(elements: u64) -> u64 {
    (elements / 4).div_ceil(16)
}

fn recording(operation: &'static str, tensors: Vec<Operand>, step: Step, work: Work) -> Recording {
    Recording { operation, capacity: 1, tensors, scratch: Vec::new(), steps: vec![step], choice: None, work }
}

fn slots(tensors: &[Operand]) -> Vec<Slot> {
    tensors.iter().map(|operand| Slot::Tensor(operand.name)).collect()
}

fn vector(name: &'static str, kind: BindingKind, elements: u64) -> Operand {
    Operand::vector(name, kind, Element::F32, elements).or(SPLIT)
}

fn update(elements: u64, clip: bool, groups: bool, device: &DeviceProfile) -> Result<Recording, Error> {
    let (read, write) = (BindingKind::Read, BindingKind::Write);
    let mut tensors = vec![
        vector("parameters", write, elements),
        vector("gradients", read, elements),
        vector("moments", write, 2 * elements),
    ];
    if clip {
        tensors.push(vector("status", read, 2));
    }
    if groups {
        tensors.push(vector("groups", read, group_words(elements)));
    }
    let vecs = (elements / 4) as u32;
    let [x, y] = fold("adamw", vecs.div_ceil(WORKGROUP), &device.limits, SPLIT)?;
    let shader = Shader::AdamW(AdamWShader { clip, groups });
    let grid = Grid::Fixed([x, y, 1]);
    let step = Step::new(shader, &Dims { vecs }, grid, slots(&tensors), 0, 1, device)?;
    // It reads parameters, gradients and both moments, and writes all but the gradients.
    let work = Work { bytes: 4 * 7 * elements, flops: 15 * elements };
    Ok(recording("adamw", tensors, step, work))
}

fn norm(at: usize, elements: u64, squares: u64, device: &DeviceProfile) -> Result<Recording, Error> {
    let tensors = vec![
        vector("gradients", BindingKind::Read, elements),
        vector("squares", BindingKind::Write, squares),
    ];
    let dims = NormDims { vecs: (elements / 4) as u32, first_square: WORKGROUP * at as u32 };
    let grid = Grid::Fixed([WORKGROUP, 1, 1]);
    let step = Step::new(Shader::GradientNorm, &dims, grid, slots(&tensors), THREAD_SQUARES, 1, device)?;
    Ok(recording("gradient_norm", tensors, step, Work { bytes: 4 * elements, flops: 2 * elements }))
}

fn norm_reduce(squares: u64, device: &DeviceProfile) -> Result<Recording, Error> {
    let tensors =
        vec![vector("squares", BindingKind::Read, squares), vector("status", BindingKind::Write, 2)];
    let dims = ReduceDims { squares: (squares / SQUARES_WORDS) as u32 };
    let (shader, grid) = (Shader::GradientNormReduce, Grid::Fixed([1; 3]));
    let step = Step::new(shader, &dims, grid, slots(&tensors), THREAD_SQUARES, 1, device)?;
    let work = Work { bytes: 4 * (squares + 2), flops: 0 };
    Ok(recording("gradient_norm_reduce", tensors, step, work))
}
