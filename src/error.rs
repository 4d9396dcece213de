//! Errors, with the numbers behind them and advice.

use std::borrow::Cow;
use std::fmt;

use crate::element::Element;

/// A limit on an operation. Most are limits that the device was requested with, displayed by their names in
/// [`wgpu::Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Limit {
    /// `max_buffer_size`.
    BufferSize,
    /// `max_storage_buffer_binding_size`, or the 4 GiB that kernels can count.
    StorageBufferBindingSize,
    /// `max_storage_buffers_per_shader_stage`.
    StorageBuffersPerShaderStage,
    /// `max_compute_workgroup_storage_size`.
    ComputeWorkgroupStorageSize,
    /// `max_compute_invocations_per_workgroup`.
    ComputeInvocationsPerWorkgroup,
    /// `max_compute_workgroups_per_dimension`.
    ComputeWorkgroupsPerDimension,
    /// The elements that a kernel can count in 32 bits.
    Elements,
    /// The bytes that the host can have in one piece: 2 GiB in browsers, where addresses have 32 bits.
    HostBytes,
    /// The loop iterations after which the driver silently ends a thread's loops
    /// ([`DeviceProfile::max_loop_iterations`](crate::DeviceProfile::max_loop_iterations)).
    LoopIterations,
    /// The lanes that are guaranteed to be in one subgroup
    /// ([`DeviceProfile::subgroup_lanes`](crate::DeviceProfile::subgroup_lanes)).
    SubgroupLanes,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BufferSize => "the device's max_buffer_size",
            Self::StorageBufferBindingSize => "the device's max_storage_buffer_binding_size",
            Self::StorageBuffersPerShaderStage => "the device's max_storage_buffers_per_shader_stage",
            Self::ComputeWorkgroupStorageSize => "the device's max_compute_workgroup_storage_size",
            Self::ComputeInvocationsPerWorkgroup => "the device's max_compute_invocations_per_workgroup",
            Self::ComputeWorkgroupsPerDimension => "the device's max_compute_workgroups_per_dimension",
            Self::Elements => "the kernels' 32-bit element count",
            Self::HostBytes => "the bytes that this machine's addresses reach in one piece",
            Self::SubgroupLanes => "the lanes that the device guarantees in a subgroup",
            Self::LoopIterations => "the driver's bound on loop iterations",
        })
    }
}

/// Every reason for which the library refuses or fails.
///
/// Mistakes in shapes and limits are found when an operation is prepared, and mistakes in buffers when it is
/// bound, before anything is recorded. Encoding refuses only a batch over the capacity.
///
/// With the feature `serde` it can be serialised for a host in another language: the variant's name as `code`, and the
/// fields beside it in camelCase.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(tag = "code", rename_all_fields = "camelCase"))]
#[non_exhaustive]
pub enum Error {
    /// A dimension that must be at least 1 is zero.
    #[error("{dimension} is 0: every dimension must be at least 1")]
    ZeroDimension {
        /// Which dimension.
        dimension: &'static str,
    },

    /// A number is not finite, or lies outside its range.
    #[error("{name} is {value:?}: it must be {expected}")]
    InvalidNumber {
        /// Which number.
        name: &'static str,
        /// The value that was given.
        value: f64,
        /// The values that are accepted.
        expected: Cow<'static, str>,
    },

    /// Host data has the wrong number of elements.
    #[error("{what} has {given} elements, but the configuration needs {needed}")]
    WrongLength {
        /// Which array.
        what: String,
        /// Elements needed.
        needed: u64,
        /// Elements given.
        given: u64,
    },

    /// A tensor was given that the operation does not use.
    #[error("{tensor} was given, but {reason}: leave it out")]
    UnusedTensor {
        /// Which tensor.
        tensor: &'static str,
        /// Why the operation does not use it.
        reason: &'static str,
    },

    /// Two options that exclude each other.
    #[error("{option} and {other} exclude each other: choose one of them")]
    Exclusive {
        /// One of them.
        option: &'static str,
        /// The other.
        other: &'static str,
    },

    /// A tensor's elements have another type than the operation was planned for.
    #[error(
        "{tensor} is {given}, but the operation takes it as {needed}: say Tensor::of({needed:?}), or plan the \
         operation for {given} where its options have it"
    )]
    WrongElement {
        /// Which tensor.
        tensor: &'static str,
        /// The type of its elements.
        given: Element,
        /// The type that the operation was planned for.
        needed: Element,
    },

    /// The row length of a half-precision tensor is not a multiple of four elements.
    #[error(
        "{tensor} is {element} with rows of {width} elements: half-precision rows must be multiples of 4, \
         so pad them, or use f32"
    )]
    HalfRows {
        /// Which tensor.
        tensor: &'static str,
        /// The type of its elements.
        element: Element,
        /// Elements in a row.
        width: u32,
    },

    /// A tensor's stride is shorter than its rows, or not a multiple of four elements.
    #[error(
        "{tensor} has rows of {width} elements, {stride} apart: a stride must be a multiple of 4, and at least a row"
    )]
    Stride {
        /// Which tensor.
        tensor: &'static str,
        /// Elements from the start of a row to the start of the next.
        stride: u32,
        /// Elements in a row.
        width: u64,
    },

    /// A tensor's offset does not meet the device's storage alignment.
    #[error(
        "{tensor} starts at byte {offset} of its buffer, but this device needs a multiple of {alignment}: \
         place tensors at multiples of min_storage_buffer_offset_alignment"
    )]
    Misaligned {
        /// Which tensor.
        tensor: &'static str,
        /// Its offset in bytes.
        offset: u64,
        /// The device's alignment in bytes.
        alignment: u64,
    },

    /// A tensor's range reaches past the end of its buffer.
    #[error(
        "{tensor} covers bytes {offset}..{offset}+{size} of a buffer of {buffer_size} bytes: \
         shorten the range or enlarge the buffer"
    )]
    OutOfBuffer {
        /// Which tensor.
        tensor: &'static str,
        /// Start of the range in bytes.
        offset: u64,
        /// Length of the range in bytes.
        size: u64,
        /// The buffer's size in bytes.
        buffer_size: u64,
    },

    /// A tensor's range is shorter than its shape needs.
    #[error("{tensor} needs {needed} bytes ({shape}), but its range has {given}")]
    TooSmall {
        /// Which tensor.
        tensor: &'static str,
        /// Its shape in words.
        shape: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes given.
        given: u64,
    },

    /// A buffer was created without a usage flag that the operation needs.
    #[error("the buffer of {tensor} was created without BufferUsages::{missing}: add the flag")]
    MissingUsage {
        /// Which tensor.
        tensor: &'static str,
        /// The missing flag.
        missing: &'static str,
    },

    /// A written tensor covers bytes of another one.
    #[error(
        "{written} covers bytes {}..{} of a buffer and {other} bytes {}..{}, and shaders write there, or in pools \
         declare that they do: put them in ranges that do not overlap. The range of a strided tensor has what \
         lies between its rows", .ranges[0].start, .ranges[0].end, .ranges[1].start, .ranges[1].end
    )]
    Overlap {
        /// The written tensor.
        written: &'static str,
        /// The other tensor in that buffer.
        other: &'static str,
        /// The byte ranges of both, in this order.
        ranges: [std::ops::Range<u64>; 2],
    },

    /// One buffer holds a written tensor and a read-only one, in ranges that do not overlap.
    ///
    /// In one dispatch, a buffer is either read or written. Shaders from
    /// [`Kernels::pooled`](crate::Kernels::pooled) declare the tensors that they read as written too, so that
    /// these may share a buffer.
    #[error(
        "{written} and {other} lie in the same buffer, which one dispatch would both write and only read: put them \
         in two buffers, or use Kernels::pooled"
    )]
    Aliased {
        /// The written tensor.
        written: &'static str,
        /// The other tensor in that buffer.
        other: &'static str,
    },

    /// A tensor that the operation needs was not given.
    #[error("{operation} needs the tensor {tensor}, which was not given")]
    MissingTensor {
        /// The operation.
        operation: &'static str,
        /// Which tensor.
        tensor: &'static str,
    },

    /// One tensor was given twice.
    #[error("{operation} was given the tensor {tensor} twice: give it once")]
    DuplicateTensor {
        /// The operation.
        operation: &'static str,
        /// Which tensor.
        tensor: String,
    },

    /// The recordings do not belong together.
    #[error("these recordings cannot be prepared together: {reason}")]
    Recordings {
        /// Why.
        reason: &'static str,
    },

    /// The operation does not run for a batch of tokens.
    #[error("{operation} takes no batch, but the constants of an optimiser's step: run it with AdamW")]
    NoBatch {
        /// The operation.
        operation: &'static str,
    },

    /// A tensor was given under a name that the operation does not have.
    #[error("{operation} has no tensor {tensor:?}: its recording lists the names, beside `scratch`")]
    UnknownTensor {
        /// The operation.
        operation: &'static str,
        /// The name that was given.
        tensor: String,
    },

    /// Two modules have the same name.
    #[error("the module {module:?} comes twice: give each adapter a name of its own")]
    DuplicateModule {
        /// The name.
        module: String,
    },

    /// No module has this name.
    #[error("there is no module {module:?}: Pack::places lists them")]
    UnknownModule {
        /// The name.
        module: String,
    },

    /// A stack that does not train was asked for the state of training.
    #[error("the stack has no optimiser: StackDescriptor::operations needs a backward_params")]
    NoOptimiser,

    /// The choice belongs to another kind of operation.
    #[error("the choice is none of {operation}: take one of Planner::choices")]
    WrongChoice {
        /// The operation.
        operation: &'static str,
    },

    /// A batch has more tokens than an operation was planned for.
    #[error(
        "{operation} was prepared for up to {capacity} tokens, and the batch has {tokens}: prepare it for more"
    )]
    OverCapacity {
        /// The operation.
        operation: &'static str,
        /// The most tokens that it was prepared for.
        capacity: u32,
        /// Tokens of the batch.
        tokens: u32,
    },

    /// The operation needs more than the device allows.
    #[error("{what} needs {needed}, over {limit} of {allowed}: {fix}")]
    OverLimit {
        /// What needs it.
        what: String,
        /// Which limit.
        limit: Limit,
        /// How much is needed.
        needed: u64,
        /// How much the device allows.
        allowed: u64,
        /// What to change.
        fix: &'static str,
    },

    /// wgpu reported an error while `action` ran.
    #[error("wgpu reported an error while {action}: {message}")]
    Device {
        /// The action that failed.
        action: String,
        /// wgpu's message.
        message: String,
    },

    /// In a browser, the outcome of an action is known only later.
    #[error(
        "in a browser the outcome of {action} is known only later: await what ends in _async instead, or before, such \
         as prepare_async of Kernels or AdamW, Stack::new_async, Kernels::warm_async, or Gpu::read"
    )]
    NotYetKnown {
        /// The action.
        action: &'static str,
    },

    /// What was measured once cannot be used here.
    #[error("these measurements are of no use here, so measure again: {reason}")]
    Tuning {
        /// Why.
        reason: String,
    },

    /// A file could not be written.
    #[error("{path} could not be written: {message}")]
    File {
        /// Its path.
        path: String,
        /// The system's message.
        message: String,
    },

    /// No adapter fits the request.
    #[error("no GPU adapter was found ({request}): {fix}")]
    NoAdapter {
        /// The request.
        request: String,
        /// How to get one.
        fix: String,
    },
}

/// What Rust allows an allocation.
const HOST_BYTES: u64 = isize::MAX as u64;

impl Error {
    /// Refuses `needed` over `allowed`.
    pub(crate) fn check_limit(
        what: impl fmt::Display,
        limit: Limit,
        needed: u64,
        allowed: u64,
        fix: &'static str,
    ) -> Result<(), Self> {
        if needed <= allowed {
            return Ok(());
        }
        Err(Self::OverLimit { what: what.to_string(), limit, needed, allowed, fix })
    }

    /// Refuses host data that is larger than anything that can be allocated, which would be a panic.
    pub(crate) fn check_host(what: impl fmt::Display, elements: u64, bytes_each: u64) -> Result<(), Self> {
        let needed = elements.saturating_mul(bytes_each);
        Self::check_limit(what, Limit::HostBytes, needed, HOST_BYTES, "split it, or use a 64-bit machine")
    }

    /// Refuses a zero.
    pub(crate) fn check_dimension(dimension: &'static str, value: u32) -> Result<(), Self> {
        if value == 0 { Err(Self::ZeroDimension { dimension }) } else { Ok(()) }
    }

    /// A number that is not one of those that are accepted.
    pub(crate) fn number(name: &'static str, value: f64, expected: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidNumber { name, value, expected: expected.into() }
    }

    /// Refuses an array of another length.
    pub(crate) fn check_length(what: impl fmt::Display, needed: usize, given: usize) -> Result<(), Self> {
        if needed == given {
            return Ok(());
        }
        Err(Self::WrongLength { what: what.to_string(), needed: needed as u64, given: given as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_data_fits_the_addresses() {
        assert_eq!(Error::check_host("it", HOST_BYTES / 8, 8), Ok(()));
        for elements in [HOST_BYTES / 8 + 1, u64::MAX] {
            let refused = Error::check_host("it", elements, 8);
            let Err(Error::OverLimit { limit, needed, allowed, .. }) = refused else {
                panic!("{elements} elements: {refused:?}")
            };
            assert_eq!((limit, allowed), (Limit::HostBytes, isize::MAX as u64));
            assert!(needed > allowed);
        }
    }
}
