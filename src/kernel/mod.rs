//! The WGSL that the library runs: for each kernel the key of what is fixed when its shader is compiled, and
//! the parts that its text is put together from.

mod access;
mod adamw;
mod backward_input;
mod backward_params;
mod binding;
mod compose;
mod constants;
mod forward;
mod gate;
mod linear;
mod shrink;
#[cfg(test)]
mod tests;

pub use access::Access;
pub use adamw::AdamWShader;
pub use backward_input::BackwardInputShader;
pub use backward_params::{BackwardParamsShader, ReduceShader};
pub use binding::{Binding, BindingKind, Source, Varying};
pub(crate) use compose::{Parts, ShrinkFrom};
pub use forward::ForwardShader;
pub use linear::LinearShader;
pub use shrink::ShrinkShader;

/// One of the library's shaders with everything that is fixed when it is compiled: the key of the
/// pipeline cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "one variant per kernel, named after it")]
pub enum Shader {
    Shrink(ShrinkShader),
    Forward(ForwardShader),
    BackwardInput(BackwardInputShader),
    BackwardParams(BackwardParamsShader),
    BackwardParamsReduce(ReduceShader),
    Linear(LinearShader),
    GradientNorm,
    GradientNormReduce,
    AdamW(AdamWShader),
}

impl Shader {
    /// The shader's text and bindings.
    #[must_use]
    pub fn source(&self) -> Source {
        let parts = self.parts();
        Source { label: parts.label, wgsl: parts.wgsl(), bindings: parts.bindings, varying: parts.varying }
    }

    /// Label and bindings, and what the text is put together from.
    pub(crate) fn parts(&self) -> Parts {
        match self {
            Self::Shrink(shader) => shader.parts(),
            Self::Forward(shader) => shader.parts(),
            Self::BackwardInput(shader) => shader.parts(),
            Self::BackwardParams(shader) => shader.parts(),
            Self::BackwardParamsReduce(shader) => shader.parts(),
            Self::Linear(shader) => shader.parts(),
            Self::GradientNorm => adamw::gradient_norm_parts(),
            Self::GradientNormReduce => adamw::gradient_norm_reduce_parts(),
            Self::AdamW(shader) => shader.parts(),
        }
    }
}
