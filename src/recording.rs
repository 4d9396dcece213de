//! An operation as data: everything that a host needs to run it, except the tensors themselves.

use bytemuck::Pod;

use crate::element::Element;
use crate::error::{Error, Limit};
use crate::kernel::{BindingKind, Parts, Shader};
use crate::plan::{Choice, DeviceProfile, Grid};

/// An operation planned for up to a number of tokens: its steps and their bindings.
///
/// [`Kernels::bind`](crate::Kernels::bind) runs it on wgpu. With the feature `serde` it can be serialised,
/// including the shaders' WGSL, for a host in another language with its own WebGPU. Such a host
///
/// 1. creates a buffer for each entry of `scratch`, with that many bytes;
/// 2. for each step, compiles `wgsl` (entry point `main`) and creates a uniform buffer that holds `uniform`;
/// 3. in group 0, binds that buffer at binding 0 and the `slots` from binding 1 on: tensors by their names,
///    with at least as many bytes as `tensors` says, and scratch buffers by their numbers, read or written as
///    `bindings` says;
/// 4. in group 1, if `varying` is `Batch`, binds at binding 0 a uniform buffer of four u32: the number
///    of tokens, the low and the high half of dropout's seed, and the step; if it is `Hyper`, one that holds
///    [`AdamWHyper::uniform`](crate::AdamWHyper::uniform);
/// 5. dispatches the steps in order, each with the workgroups of its `grid`. `Fixed` lists them. `Tiles`
///    gives `x`, `ceil(n / z)` and `z`, where `n` is the lesser of `ceil(tokens / tile) - first` and `count`,
///    and `z` is `ceil(n / most)`. A step whose `n` is not above 0 is left out.
///
/// The results of a step are correct only on devices whose subgroups have at least `subgroup_lanes` lanes.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Recording {
    /// The operation's name.
    pub operation: &'static str,
    /// The most tokens that it can run.
    pub capacity: u32,
    /// The tensors that it binds, for that many tokens.
    pub tensors: Vec<Operand>,
    /// Bytes of each piece of scratch memory. Their contents before and after do not matter.
    pub scratch: Vec<u64>,
    /// The dispatches, in order.
    pub steps: Vec<Step>,
    /// The choice that was made, if the operation has choices.
    pub choice: Option<Choice>,
    /// Its work for that many tokens; with [`Plans::Invariant`](crate::Plans::Invariant), for at least 32.
    /// The floating-point operations include those that padding and slices repeat.
    pub work: Work,
}

/// One dispatch of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The shader, as its key in the pipeline cache.
    pub shader: Shader,
    /// The contents of the uniform buffer at binding 0 of group 0.
    pub uniform: Vec<u8>,
    /// Workgroups.
    pub grid: Grid,
    /// The bindings of group 0 from binding 1 on.
    pub slots: Vec<Slot>,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u64,
}

/// One binding of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Slot {
    /// The caller's tensor with this name.
    Tensor(&'static str),
    /// The piece of scratch memory with this number.
    Scratch(usize),
}

/// A tensor as an operation needs it: row-major. Rows are dense, but may start further apart than they are
/// long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operand {
    /// The operation's name for it.
    pub name: &'static str,
    /// Whether it is read or written.
    pub kind: BindingKind,
    /// The type of its elements.
    pub element: Element,
    /// Rows; 1 for a vector.
    pub rows: u64,
    /// Elements in a row.
    pub columns: u64,
    /// Elements from the start of a row to the start of the next.
    pub stride: u64,
    /// Advice if its bytes do not fit one binding.
    fix: &'static str,
}

impl Operand {
    /// A matrix with a row for each token.
    pub(crate) fn matrix(
        name: &'static str,
        kind: BindingKind,
        element: Element,
        rows: u32,
        width: u32,
    ) -> Self {
        let fix = "request a device with the adapter's limit, or process fewer tokens at a time";
        let columns = u64::from(width);
        Self { name, kind, element, rows: rows.into(), columns, stride: columns, fix }
    }

    /// A vector of `elements` elements.
    pub(crate) fn vector(name: &'static str, kind: BindingKind, element: Element, elements: u64) -> Self {
        let fix = "request a device with the adapter's limit, or use a smaller rank or fewer experts";
        Self { name, kind, element, rows: 1, columns: elements, stride: elements, fix }
    }

    /// A matrix whose rows are not tokens.
    pub(crate) fn weight(
        name: &'static str,
        element: Element,
        rows: u32,
        width: u32,
        fix: &'static str,
    ) -> Self {
        Self { fix, ..Self::matrix(name, BindingKind::Read, element, rows, width) }
    }

    /// The same, but written.
    pub(crate) fn written(self) -> Self {
        Self { kind: BindingKind::Write, ..self }
    }

    /// The same, with rows that start `stride` elements apart.
    ///
    /// # Errors
    /// A stride that is shorter than a row, or not a multiple of four.
    pub(crate) fn strided(self, stride: Option<u32>) -> Result<Self, Error> {
        let Some(stride) = stride else { return Ok(self) };
        let (tensor, width) = (self.name, self.columns);
        if u64::from(stride) < width || !(stride.is_multiple_of(4) || u64::from(stride) == width) {
            return Err(Error::Stride { tensor, stride, width });
        }
        Ok(Self { stride: stride.into(), ..self })
    }

    /// The same, with other advice if its bytes do not fit one binding.
    pub(crate) fn or(self, fix: &'static str) -> Self {
        Self { fix, ..self }
    }

    /// Bytes that it covers, from the start of the first row to the end of the last.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let before = self.rows.saturating_sub(1).saturating_mul(self.stride);
        self.element.bytes().saturating_mul(before.saturating_add(self.columns))
    }

    /// Whether it is the same tensor, for no more tokens than `other`.
    pub(crate) fn is_smaller(&self, other: &Self) -> bool {
        self.rows <= other.rows && Self { rows: other.rows, ..self.clone() } == *other
    }

    /// Its shape in words.
    #[must_use]
    pub fn shape(&self) -> String {
        match self {
            Self { rows: 1, columns, element, .. } => format!("{columns} {element}"),
            Self { rows, columns, stride, element, .. } if stride == columns => {
                format!("{rows} x {columns} {element}")
            }
            Self { rows, columns, stride, element, .. } => {
                format!("{rows} x {columns} {element}, rows {stride} apart")
            }
        }
    }

    /// Advice if its bytes do not fit one binding.
    pub(crate) fn fix(&self) -> &'static str {
        self.fix
    }
}

/// The work of an operation: that of a plan, or the least that the layer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Work {
    /// Bytes read and written: each tensor once for each, and scratch memory likewise.
    pub bytes: u64,
    /// Floating-point operations of the products: two for each multiply-add.
    pub flops: u64,
}

impl std::ops::Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), flops: self.flops.saturating_add(other.flops) }
    }
}

impl Recording {
    /// The start of each piece of scratch memory in one buffer, at multiples of `alignment`, and the bytes of
    /// that buffer.
    pub(crate) fn scratch_layout(&self, alignment: u64) -> (Vec<u64>, u64) {
        let mut end: u64 = 0;
        let mut place = |bytes: &u64| {
            let offset = end.next_multiple_of(alignment);
            end = offset.saturating_add(*bytes);
            offset
        };
        let offsets = self.scratch.iter().map(&mut place).collect();
        (offsets, end)
    }

    /// The shaders of its steps, for compiling them ahead of their first use.
    pub fn shaders(&self) -> impl Iterator<Item = Shader> + '_ {
        self.steps.iter().map(|step| step.shader.clone())
    }

    /// The named tensor, if the operation has it.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Operand> {
        self.tensors.iter().find(|operand| operand.name == name)
    }
}

impl Step {
    /// A step, checked for up to `tokens` tokens.
    pub(crate) fn new(
        shader: Shader,
        uniform: &impl Pod,
        grid: Grid,
        slots: Vec<Slot>,
        workgroup_memory: u64,
        tokens: u32,
        device: &DeviceProfile,
    ) -> Result<Self, Error> {
        let uniform = bytemuck::bytes_of(uniform).to_vec();
        let step = Self { shader, uniform, grid, slots, workgroup_memory };
        step.check(tokens, device)?;
        Ok(step)
    }

    /// Checks that the device can run the step for up to `tokens` tokens: its limits, the lanes that the
    /// shader assumes to be in one subgroup, and the shader's loops.
    pub(crate) fn check(&self, tokens: u32, device: &DeviceProfile) -> Result<(), Error> {
        let parts = self.shader.parts();
        let Parts { label, ref bindings, .. } = parts;
        let storage = bindings.iter().filter(|binding| binding.kind != BindingKind::Uniform).count();
        Error::check_limit(
            format_args!("{label} (storage buffers)"),
            Limit::StorageBuffersPerShaderStage,
            storage as u64,
            u64::from(device.limits.max_storage_buffers_per_shader_stage),
            "request a device with the adapter's limit",
        )?;
        Error::check_limit(
            format_args!("{label} (threads in a workgroup)"),
            Limit::ComputeInvocationsPerWorkgroup,
            u64::from(parts.threads),
            u64::from(device.limits.max_compute_invocations_per_workgroup),
            "request a device with compute shaders",
        )?;
        Error::check_limit(
            format_args!("{label} (lanes in one subgroup)"),
            Limit::SubgroupLanes,
            u64::from(parts.subgroup_lanes),
            u64::from(device.subgroup_lanes.max(1)),
            "plan for this device's profile",
        )?;
        let grid = self.grid.at(tokens);
        Error::check_limit(
            format_args!("{label} (workgroups)"),
            Limit::ComputeWorkgroupsPerDimension,
            grid.into_iter().max().unwrap_or(0).into(),
            device.limits.max_compute_workgroups_per_dimension.into(),
            "use a narrower layer or fewer experts, or process fewer tokens at a time",
        )?;
        check_loops(&self.shader, &parts, &self.uniform, grid, tokens, device)
    }
}

/// A host in another language needs the shader's text, not its key.
#[cfg(feature = "serde")]
impl serde::Serialize for Step {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let source = self.shader.source();
        let kinds: Vec<BindingKind> = source.bindings[1..].iter().map(|binding| binding.kind).collect();
        let mut step = serializer.serialize_struct("Step", 8)?;
        step.serialize_field("label", source.label)?;
        step.serialize_field("wgsl", &source.wgsl)?;
        step.serialize_field("uniform", &self.uniform)?;
        step.serialize_field("slots", &self.slots)?;
        step.serialize_field("bindings", &kinds)?;
        step.serialize_field("varying", &source.varying)?;
        step.serialize_field("subgroup_lanes", &self.shader.parts().subgroup_lanes)?;
        step.serialize_field("grid", &self.grid)?;
        step.end()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Operand {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut operand = serializer.serialize_struct("Operand", 8)?;
        operand.serialize_field("name", self.name)?;
        operand.serialize_field("kind", &self.kind)?;
        operand.serialize_field("element", &self.element)?;
        operand.serialize_field("rows", &self.rows)?;
        operand.serialize_field("columns", &self.columns)?;
        operand.serialize_field("stride", &self.stride)?;
        operand.serialize_field("bytes", &self.bytes())?;
        operand.serialize_field("fix", self.fix)?;
        operand.end()
    }
}

/// Refuses a dispatch whose threads run more loop iterations than the driver allows.
#[cfg(not(target_arch = "wasm32"))]
fn check_loops(
    shader: &Shader,
    parts: &Parts,
    uniform: &[u8],
    grid: [u32; 3],
    tokens: u32,
    device: &DeviceProfile,
) -> Result<(), Error> {
    if device.max_loop_iterations == u64::MAX {
        return Ok(());
    }
    let label = parts.label;
    Error::check_limit(
        format_args!("{label} (loop iterations in a thread)"),
        Limit::LoopIterations,
        crate::iterations::most_iterations(&parts.wgsl(), [uniform, &tokens.to_le_bytes()], grid),
        device.max_loop_iterations,
        match shader {
            Shader::BackwardParams(_) | Shader::GateSums(_) | Shader::GateGradients(_) => {
                "process fewer tokens at a time, or use another driver"
            }
            Shader::Linear(_) | Shader::LinearReduce(_) => "use a narrower layer, or another driver",
            Shader::Shrink(_) | Shader::Forward(_) | Shader::BackwardInput(_) => {
                "use a narrower layer, a smaller rank or fewer experts, or another driver"
            }
            _ => "split the parameters, or use another driver",
        },
    )
}

/// A browser does not tell which driver runs, so no bound is known.
#[cfg(target_arch = "wasm32")]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it refuses")]
fn check_loops(_: &Shader, _: &Parts, _: &[u8], _: [u32; 3], _: u32, _: &DeviceProfile) -> Result<(), Error> {
    Ok(())
}
