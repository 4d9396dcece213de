//! How tensors are accessed.

use crate::element::Element;
use crate::error::Error;

/// How a dense matrix is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Rows are multiples of four elements: a group of four at a time.
    Groups(Element),
    /// Rows of f32 of any length: element by element.
    Scalar,
}

impl Access {
    /// The access to rows of `width` elements of the tensor `name`.
    ///
    /// # Errors
    /// Half-precision rows that are no multiple of four elements.
    pub(crate) fn new(name: &'static str, element: Element, width: u32) -> Result<Self, Error> {
        match element {
            element if width.is_multiple_of(4) => Ok(Self::Groups(element)),
            Element::F32 => Ok(Self::Scalar),
            element => Err(Error::HalfRows { tensor: name, element, width }),
        }
    }
}
