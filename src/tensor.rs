//! Tensors: ranges of the caller's buffers, and the checks before they are bound.

use crate::element::Element;
use crate::error::{Error, Limit};

/// A dense tensor: a range of bytes in one of the caller's buffers, and the type of its elements.
///
/// `(&buffer).into()` takes a whole buffer as f32, `buffer.slice(..).into()` a slice of one;
/// `Tensor::from(&buffer).of(Element::F16)` says that its elements are something else.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    buffer: &'a wgpu::Buffer,
    offset: u64,
    size: u64,
    element: Element,
}

impl<'a> Tensor<'a> {
    /// `size` bytes of `buffer` from byte `offset` on, f32. Checked when an operation is prepared.
    #[must_use]
    pub fn new(buffer: &'a wgpu::Buffer, offset: u64, size: u64) -> Self {
        Self { buffer, offset, size, element: Element::F32 }
    }

    /// The same bytes with elements of another type.
    #[must_use]
    pub fn of(self, element: Element) -> Self {
        Self { element, ..self }
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

/// Kernels count in u32, and their loops step past the end: 4 GiB is 2^31 elements at most.
pub(crate) const MOST_BYTES: u64 = 1 << 32;

/// What a dispatch does with a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Read,
    Write,
}

/// A tensor together with what an operation needs of it, in binding order.
#[derive(Debug, Clone)]
pub(crate) struct Operand<'a> {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) tensor: Tensor<'a>,
    /// The shape in words, for messages.
    pub(crate) shape: String,
    /// Bytes that the shape needs.
    pub(crate) bytes: u64,
    only_f32: bool,
    /// What to change where no binding holds so many bytes.
    fix: &'static str,
}

impl<'a> Operand<'a> {
    /// A row-major matrix with a row for each token, of whatever elements the tensor has.
    pub(crate) fn matrix(
        name: &'static str,
        role: Role,
        tensor: Tensor<'a>,
        rows: u32,
        columns: u32,
    ) -> Self {
        Self {
            name,
            role,
            tensor,
            shape: format!("{rows} x {columns} {}", tensor.element),
            bytes: (tensor.element.bytes() * u64::from(rows)).saturating_mul(u64::from(columns)),
            only_f32: false,
            fix: "request a device with the adapter's limit, or process fewer tokens at a time",
        }
    }

    /// `elements` elements of whatever type the tensor has.
    pub(crate) fn vector(name: &'static str, role: Role, tensor: Tensor<'a>, elements: u64) -> Self {
        Self {
            name,
            role,
            tensor,
            shape: format!("{elements} {}", tensor.element),
            bytes: elements.saturating_mul(tensor.element.bytes()),
            only_f32: false,
            fix: "request a device with the adapter's limit, or use a smaller rank or fewer experts",
        }
    }

    /// The same, refused unless its elements are f32.
    pub(crate) fn only_f32(self) -> Self {
        Self { only_f32: true, ..self }
    }

    /// The same, with other advice where no binding holds it.
    pub(crate) fn or(self, fix: &'static str) -> Self {
        Self { fix, ..self }
    }

    /// Exactly the bytes that the shape needs, so that what follows in the buffer is out of reach.
    pub(crate) fn binding(&self) -> wgpu::BindingResource<'a> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: self.tensor.buffer,
            offset: self.tensor.offset,
            size: std::num::NonZeroU64::new(self.bytes),
        })
    }

    fn check(&self, limits: &wgpu::Limits) -> Result<(), Error> {
        let Tensor { buffer, offset, size, element } = self.tensor;
        let tensor = self.name;
        if self.only_f32 && element != Element::F32 {
            return Err(Error::NotF32 { tensor, element });
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
        if size < self.bytes {
            return Err(Error::TooSmall {
                tensor,
                shape: self.shape.clone(),
                needed: self.bytes,
                given: size,
            });
        }
        Error::check_limit(
            format_args!("{tensor} ({})", self.shape),
            Limit::StorageBufferBindingSize,
            self.bytes,
            limits.max_storage_buffer_binding_size.min(MOST_BYTES),
            self.fix,
        )
    }
}

/// Checks every operand, and that no buffer is written and used twice.
pub(crate) fn check_operands(operands: &[Operand<'_>], limits: &wgpu::Limits) -> Result<(), Error> {
    for operand in operands {
        operand.check(limits)?;
    }
    for (index, first) in operands.iter().enumerate() {
        for second in &operands[index + 1..] {
            if first.tensor.buffer != second.tensor.buffer {
                continue;
            }
            match (first.role, second.role) {
                (Role::Read, Role::Read) => {}
                (Role::Write, _) => {
                    return Err(Error::Aliased { written: first.name, other: second.name });
                }
                (Role::Read, Role::Write) => {
                    return Err(Error::Aliased { written: second.name, other: first.name });
                }
            }
        }
    }
    Ok(())
}
