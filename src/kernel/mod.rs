//! The WGSL that the library runs. For each kernel there is a key, which holds the compile-time options of
//! its shader, and the parts that make up its text.

mod access;
mod adamw;
mod backward_input;
mod backward_params;
mod binding;
mod compose;
mod constants;
mod dropout;
mod forward;
mod gate;
mod gate_gradients;
mod gate_losses;
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
pub use dropout::Drops;
pub use forward::ForwardShader;
pub use gate_gradients::GateGradientsShader;
pub use gate_losses::GateSumsShader;
pub(crate) use linear::LinearTarget;
pub use linear::{LinearReduceShader, LinearShader};
pub use shrink::ShrinkShader;

/// One of the library's shaders with all its compile-time options: the key of the pipeline cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "one variant per kernel, named after it")]
pub enum Shader {
    Shrink(ShrinkShader),
    Forward(ForwardShader),
    BackwardInput(BackwardInputShader),
    BackwardParams(BackwardParamsShader),
    BackwardParamsReduce(ReduceShader),
    Linear(LinearShader),
    LinearReduce(LinearReduceShader),
    GateGradients(GateGradientsShader),
    GateSums(GateSumsShader),
    GateLosses,
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

    /// The label, the bindings and the parts of the text.
    pub(crate) fn parts(&self) -> Parts {
        match self {
            Self::Shrink(shader) => shader.parts(),
            Self::Forward(shader) => shader.parts(),
            Self::BackwardInput(shader) => shader.parts(),
            Self::BackwardParams(shader) => shader.parts(),
            Self::BackwardParamsReduce(shader) => shader.parts(),
            Self::Linear(shader) => shader.parts(),
            Self::LinearReduce(shader) => shader.parts(),
            Self::GateGradients(shader) => shader.parts(),
            Self::GateSums(shader) => shader.parts(),
            Self::GateLosses => gate_losses::gate_losses_parts(),
            Self::GradientNorm => adamw::gradient_norm_parts(),
            Self::GradientNormReduce => adamw::gradient_norm_reduce_parts(),
            Self::AdamW(shader) => shader.parts(),
        }
    }
}
