//! From shape, token count and device limits to tile sizes and grids. Pure: no device is needed.

mod cost;
mod fused;
mod outer;

pub use fused::{FusedChoice, Tile};
pub(crate) use fused::{FusedPlacement, FusedProblem, ShrinkPlacement};
pub use outer::OuterChoice;
pub(crate) use outer::{OuterBlock, OuterDispatch, OuterPlacement, OuterProblem};

use bytemuck::Pod;

use crate::error::{Error, Limit};
use crate::shader::{BindingKind, Parts, Shader};
use crate::tuning::Tuning;

/// What a plan needs to know of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceProfile {
    /// The limits the device was requested with.
    pub limits: wgpu::Limits,
    /// Workgroups that keep the device busy. Few tokens are spread over output slices, and parameter
    /// gradients over token splits, until about this many are in flight.
    pub busy_workgroups: u32,
    /// Loop iterations that a thread may run, over all loops of a shader together: some drivers end all loops
    /// after so many. They are counted from the shader's text, as such a driver counts them.
    pub max_loop_iterations: u64,
    /// Threads that are surely in one subgroup and may add their sums by subgroup operations: the
    /// device's least subgroup size, if it was requested with `Features::SUBGROUP`, else 1.
    pub subgroup_lanes: u32,
    /// Whether shaders run on the CPU: there lanes compute together, but access memory one after another,
    /// and a branch that a subgroup does not take costs almost as much as one that it takes.
    pub software: bool,
    /// What was measured to be best on this device, if anything was: preferred to what is predicted.
    pub tuning: Tuning,
}

/// Mesa's llvmpipe ends every loop of a thread after 65,535 iterations in all
/// (`LP_MAX_TGSI_LOOP_ITERATIONS`), and says nothing: results would be wrong. The rest is a margin.
const LLVMPIPE_LOOP_ITERATIONS: u64 = 60_000;

/// What keeps a software driver busy: it runs a workgroup on each core, and more slices only repeat work. Not
/// the number of cores that the process may use: plans, and with them the order of sums, must not depend on it.
const SOFTWARE_WORKGROUPS: u32 = 4;

impl DeviceProfile {
    /// A device with these limits, without subgroup operations and with no bound on loops.
    #[must_use]
    pub fn new(limits: wgpu::Limits, busy_workgroups: u32) -> Self {
        Self {
            limits,
            busy_workgroups,
            max_loop_iterations: u64::MAX,
            subgroup_lanes: 1,
            software: false,
            tuning: Tuning::default(),
        }
    }

    /// The profile of a device.
    #[must_use]
    pub fn of(device: &wgpu::Device) -> Self {
        let info = device.adapter_info();
        let software = info.device_type == wgpu::DeviceType::Cpu;
        let busy_workgroups = match info.device_type {
            wgpu::DeviceType::Cpu => SOFTWARE_WORKGROUPS,
            wgpu::DeviceType::IntegratedGpu => 64,
            _ => 256,
        };
        let max_loop_iterations =
            if info.name.contains("llvmpipe") { LLVMPIPE_LOOP_ITERATIONS } else { u64::MAX };
        // In a browser shaders would have to say that they use them.
        let subgroups =
            cfg!(not(target_arch = "wasm32")) && device.features().contains(wgpu::Features::SUBGROUP);
        let subgroup_lanes = if subgroups { info.subgroup_min_size } else { 1 };
        let profile = Self::new(device.limits(), busy_workgroups);
        Self { max_loop_iterations, subgroup_lanes, software, ..profile }
    }

    /// Lanes of a tile that may add their sums by shuffles: a power of two.
    pub(crate) fn shuffled_lanes(&self) -> u32 {
        1 << self.subgroup_lanes.max(1).ilog2()
    }

    /// Lanes of which each can hold a coefficient for all others; 1 where none can.
    pub(crate) fn holders(&self) -> u32 {
        self.shuffled_lanes().min(MOST_HOLDERS)
    }

    /// Whether so many coefficients can be held at a time, and whether they can not.
    pub(crate) fn ways_to_coefficients(&self, coefficients: u32) -> &'static [bool] {
        if self.holders() > 1 && coefficients <= self.holders() { &[false, true] } else { &[false] }
    }

    /// No more than `device` guarantees: more would be wrong results, or fail only in the caller's submission.
    pub(crate) fn within(self, device: &Self) -> Self {
        Self {
            limits: self.limits.or_worse_values_from(&device.limits),
            max_loop_iterations: self.max_loop_iterations.min(device.max_loop_iterations),
            subgroup_lanes: self.subgroup_lanes.min(device.subgroup_lanes),
            ..self
        }
    }
}

/// One dispatch as planned: everything but the tensors that are bound to it, which the shader's
/// [`Source`](crate::shader::Source) names in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchPlan {
    /// The shader, as a key to warm the pipeline cache with.
    pub shader: Shader,
    /// What the uniform buffer, binding 0, holds.
    pub uniform: Vec<u8>,
    /// Workgroups in each dimension.
    pub grid: [u32; 3],
}

impl DispatchPlan {
    pub(crate) fn new(
        shader: Shader,
        uniform: &impl Pod,
        grid: [u32; 3],
        device: &DeviceProfile,
    ) -> Result<Self, Error> {
        let parts = shader.parts();
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
            u64::from(WORKGROUP),
            u64::from(device.limits.max_compute_invocations_per_workgroup),
            "request a device with compute shaders",
        )?;
        let uniform = bytemuck::bytes_of(uniform);
        check_loops(&shader, &parts, uniform, grid, device)?;
        Ok(Self { shader, uniform: uniform.to_vec(), grid })
    }
}

/// Refuses a dispatch whose threads run more loop iterations than the driver lets them.
#[cfg(not(target_arch = "wasm32"))]
fn check_loops(
    shader: &Shader,
    parts: &Parts,
    uniform: &[u8],
    grid: [u32; 3],
    device: &DeviceProfile,
) -> Result<(), Error> {
    if device.max_loop_iterations == u64::MAX {
        return Ok(());
    }
    let label = parts.label;
    Error::check_limit(
        format_args!("{label} (loop iterations in a thread)"),
        Limit::LoopIterations,
        crate::iterations::most_iterations(&parts.wgsl(), uniform, grid),
        device.max_loop_iterations,
        match shader {
            Shader::BackwardParams(_) => "process fewer tokens at a time, or use another driver",
            Shader::Linear(_) => "use a narrower layer, or another driver",
            Shader::Shrink(_) | Shader::Forward(_) | Shader::BackwardInput(_) => {
                "use a narrower layer, a smaller rank or fewer experts, or another driver"
            }
            _ => "split the parameters, or use another driver",
        },
    )
}

/// In a browser no driver with such a bound can be told.
#[cfg(target_arch = "wasm32")]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it refuses")]
fn check_loops(_: &Shader, _: &Parts, _: &[u8], _: [u32; 3], _: &DeviceProfile) -> Result<(), Error> {
    Ok(())
}

/// Threads in every workgroup: the widest subgroup of today's GPUs.
pub(crate) const WORKGROUP: u32 = 64;

/// Lanes that hold a coefficient each. Compilers unroll the loop over them only while it is short, and
/// only then is the lane that holds one known to them.
const MOST_HOLDERS: u32 = 8;

/// What to do about a grid of token tiles.
pub(crate) const FEWER_TOKENS: &str = "process fewer tokens at a time";

/// Spreads `count` workgroups over two dimensions of the grid; the product may exceed `count` by
/// less than the second dimension, so kernels check their index.
pub(crate) fn fold(
    kernel: &'static str,
    count: u32,
    limits: &wgpu::Limits,
    fix: &'static str,
) -> Result<[u32; 2], Error> {
    let most = limits.max_compute_workgroups_per_dimension;
    let second = count.div_ceil(most.max(1)).max(1);
    Error::check_limit(
        format_args!("{kernel}'s grid (workgroups, folded over two dimensions)"),
        Limit::ComputeWorkgroupsPerDimension,
        u64::from(second),
        u64::from(most),
        fix,
    )?;
    Ok([count.div_ceil(second).max(1), second])
}

/// `most`, half of it, and so on down to 1.
pub(crate) fn halvings(most: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(most.max(1)), |&n| (n > 1).then_some(n / 2))
}

/// The plans in the order of their predicted costs; equal ones as they are.
fn cheapest_first<T>(plans: Vec<T>, cost: impl Fn(&T) -> f64) -> Vec<T> {
    let mut plans: Vec<_> = plans.into_iter().map(|plan| (cost(&plan), plan)).collect();
    plans.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    plans.into_iter().map(|(_, plan)| plan).collect()
}

/// Placements that are tried where the driver's bound on loop iterations refuses the best.
const MOST_TRIES: usize = 4;

/// Plans the first of `placements` (best first, at least one) whose loops the driver lets run. `rounds` is about
/// proportional to a placement's loop iterations, and tells which of the others can have few enough.
pub(crate) fn first_that_runs<P, T>(
    placements: &[P],
    rounds: impl Fn(&P) -> u64,
    plan: impl Fn(&P) -> Result<T, Error>,
) -> Result<T, Error> {
    let (best, others) = (&placements[0], &placements[1..]);
    let best_planned = plan(best);
    let Err(Error::OverLimit { limit: Limit::LoopIterations, needed, allowed, .. }) = best_planned else {
        return best_planned;
    };
    let enough = u128::from(rounds(best)) * u128::from(allowed);
    let few = |other: &&P| u128::from(rounds(other)) * u128::from(needed) <= enough;
    let mut least: Vec<&P> = others.iter().collect();
    least.sort_by_key(|&other| rounds(other));
    let tried = others.iter().filter(few).take(MOST_TRIES).chain(least.into_iter().take(MOST_TRIES));
    tried.map(plan).find(Result::is_ok).unwrap_or(best_planned)
}

/// Plans all of `placements` whose loops the driver lets run, in their order; refused at once where none does.
fn all_that_run<P, T>(
    placements: &[P],
    rounds: impl Fn(&P) -> u64,
    plan: impl Fn(&P) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    first_that_runs(placements, rounds, &plan)?;
    let too_long =
        |plan: &Result<T, Error>| matches!(plan, Err(Error::OverLimit { limit: Limit::LoopIterations, .. }));
    placements.iter().map(plan).filter(|plan| !too_long(plan)).collect()
}

/// Refuses a choice that no kernel was written for, such as one from a file.
fn check_choice(name: &'static str, value: u32, possible: bool) -> Result<(), Error> {
    let value = f64::from(value);
    if possible {
        Ok(())
    } else {
        Err(Error::InvalidNumber { name, value, expected: "one of the plan's candidates" })
    }
}

/// What a dispatch does: predicted by its plan, or the least that the layer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Bytes of every tensor that is read and of every one that is written, once each.
    pub bytes: u64,
    /// Floating-point operations of the products, two for a multiply-add.
    pub flops: u64,
}

impl std::ops::Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), flops: self.flops.saturating_add(other.flops) }
    }
}
