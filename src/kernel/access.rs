//! Access to matrices.

use crate::element::Element;
use crate::error::Error;

/// How a matrix is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Rows that are a multiple of four elements: one vec4 at a time.
    Vecs(Element),
    /// f32 rows of any length: element by element.
    Scalar,
}

impl Access {
    /// Access to the tensor `name` with rows of `width` elements.
    ///
    /// # Errors
    /// Half-precision rows whose length is not a multiple of four elements.
    pub(crate) fn new(name: &'static str, element: Element, width: u32) -> Result<Self, Error> {
        match element {
            element if width.is_multiple_of(4) => Ok(Self::Vecs(element)),
            Element::F32 => Ok(Self::Scalar),
            element => Err(Error::HalfRows { tensor: name, element, width }),
        }
    }
}
