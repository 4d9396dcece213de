//! Tensors: ranges of the caller's buffers, and their checks before binding.

use crate::element::Element;
use crate::error::{Error, Limit};
use crate::kernel::BindingKind;
use crate::plan::MOST_BYTES;
use crate::recording::Operand;

/// A tensor: a range of bytes in one of the caller's buffers, and the type of its elements.
///
/// `(&buffer).into()` takes a whole buffer as f32, and `buffer.slice(..).into()` takes a slice of one.
/// `Tensor::from(&buffer).of(Element::F16)` gives its elements another type.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    buffer: &'a wgpu::Buffer,
    offset: u64,
    size: u64,
    element: Element,
}

impl<'a> Tensor<'a> {
    /// `size` bytes of `buffer` from byte `offset` on, as f32. The range is checked when the tensor is bound.
    #[must_use]
    pub fn new(buffer: &'a wgpu::Buffer, offset: u64, size: u64) -> Self {
        Self { buffer, offset, size, element: Element::F32 }
    }

    /// The same bytes, with elements of another type.
    #[must_use]
    pub fn of(self, element: Element) -> Self {
        Self { element, ..self }
    }

    /// `size` bytes of the tensor from its byte `offset` on.
    pub(super) fn part(&self, offset: u64, size: u64) -> wgpu::BindingResource<'a> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: self.buffer,
            offset: self.offset + offset,
            size: std::num::NonZeroU64::new(size),
        })
    }

    /// The type of its elements.
    #[must_use]
    pub fn element(&self) -> Element {
        self.element
    }
}

impl<'a> From<&'a wgpu::Buffer> for Tensor<'a> {
    fn from(buffer: &'a wgpu::Buffer) -> Self {
        Self::new(buffer, 0, buffer.size())
    }
}

impl<'a> From<wgpu::BufferSlice<'a>> for Tensor<'a> {
    fn from(slice: wgpu::BufferSlice<'a>) -> Self {
        Self::new(slice.buffer(), slice.offset(), slice.size())
    }
}

/// A tensor as an operation binds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) operand: &'a Operand,
    pub(crate) tensor: Tensor<'a>,
}

impl<'a> Given<'a> {
    /// Exactly the bytes that the shape needs, so that the rest of the buffer is out of reach.
    pub(super) fn resource(&self) -> wgpu::BindingResource<'a> {
        self.tensor.part(0, self.operand.bytes())
    }

    fn is_written(&self) -> bool {
        self.operand.kind == BindingKind::Write
    }

    /// Whether it lies in the same buffer as another tensor.
    pub(super) fn shares(&self, other: &Tensor<'_>) -> bool {
        self.tensor.buffer == other.buffer
    }

    fn range(&self) -> std::ops::Range<u64> {
        self.tensor.offset..self.tensor.offset + self.operand.bytes()
    }

    fn check(&self, limits: &wgpu::Limits) -> Result<(), Error> {
        let Tensor { buffer, offset, size, element } = self.tensor;
        let tensor = self.operand.name;
        let (needed, shape) = (self.operand.bytes(), || self.operand.shape());
        if element != self.operand.element {
            return Err(Error::WrongElement { tensor, given: element, needed: self.operand.element });
        }
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::MissingUsage { tensor, missing: "STORAGE" });
        }
        let alignment = u64::from(limits.min_storage_buffer_offset_alignment);
        if !offset.is_multiple_of(alignment) {
            return Err(Error::Misaligned { tensor, offset, alignment });
        }
        if offset.checked_add(size).is_none_or(|end| end > buffer.size()) {
            return Err(Error::OutOfBuffer { tensor, offset, size, buffer_size: buffer.size() });
        }
        if size < needed {
            return Err(Error::TooSmall { tensor, shape: shape(), needed, given: size });
        }
        Error::check_limit(
            format_args!("{tensor} ({})", shape()),
            Limit::StorageBufferBindingSize,
            needed,
            limits.max_storage_buffer_binding_size.min(MOST_BYTES),
            self.operand.fix(),
        )
    }
}

/// Checks every tensor by itself, and that no written tensor covers bytes of another one. In pools all
/// tensors count as written, because their shaders declare them so.
pub(crate) fn check(bound: &[Given<'_>], pooled: bool, limits: &wgpu::Limits) -> Result<(), Error> {
    for tensor in bound {
        tensor.check(limits)?;
    }
    for (first, second) in pairs_in_a_buffer(bound) {
        let ranges = [first.range(), second.range()];
        let overlap = ranges[0].start < ranges[1].end && ranges[1].start < ranges[0].end;
        if overlap && (pooled || first.is_written()) {
            let (written, other) = (first.operand.name, second.operand.name);
            return Err(Error::Overlap { written, other, ranges });
        }
    }
    Ok(())
}

/// Checks that no buffer is written as one tensor and only read as another, which wgpu forbids in a dispatch.
pub(super) fn check_buffers(bound: &[Given<'_>]) -> Result<(), Error> {
    let aliased = pairs_in_a_buffer(bound).find(|(first, second)| first.is_written() && !second.is_written());
    aliased.map_or(Ok(()), |(written, other)| {
        Err(Error::Aliased { written: written.operand.name, other: other.operand.name })
    })
}

/// All pairs of tensors in one buffer. If one of them is written, the first is.
fn pairs_in_a_buffer<'b, 'a>(bound: &'b [Given<'a>]) -> impl Iterator<Item = (&'b Given<'a>, &'b Given<'a>)> {
    let pairs = bound
        .iter()
        .enumerate()
        .flat_map(move |(index, first)| bound[index + 1..].iter().map(move |second| (first, second)));
    pairs
        .filter(|(first, second)| first.shares(&second.tensor))
        .map(|(first, second)| if first.is_written() { (first, second) } else { (second, first) })
}
