//! The bindings of a shader.

/// A binding in group 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The variable's name in the shader.
    pub name: &'static str,
    /// The kind of buffer that is bound.
    pub kind: BindingKind,
}

/// The kind of buffer that is bound, and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum BindingKind {
    /// A uniform buffer.
    Uniform,
    /// A storage buffer that is only read.
    Read,
    /// A storage buffer that is written, and possibly read.
    Write,
}

/// The uniform at binding 0 of group 1. It may change from one submission to the next, and is shared by all
/// operations that change together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Varying {
    /// There is no group 1.
    Nothing,
    /// `batch`: the number of tokens (`shaders/uniform/batch.wgsl`).
    Batch,
    /// `hyper`: the optimiser's constants, corrected for its step (`shaders/uniform/hyper.wgsl`).
    Hyper,
}

/// A shader's text and its bindings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The kernel's name, which is also the name of its file.
    pub label: &'static str,
    /// The whole WGSL text. The entry point is `main`.
    pub wgsl: String,
    /// The bindings of group 0, in order from binding 0.
    pub bindings: Vec<Binding>,
    /// The uniform of group 1.
    pub varying: Varying,
}

impl Source {
    /// The same for tensors in pools. Read-only bindings are declared as written too, so that one buffer may
    /// be read and written in one dispatch.
    pub(crate) fn pooled(mut self) -> Self {
        self.wgsl = self.wgsl.replace("var<storage, read>", "var<storage, read_write>");
        for binding in &mut self.bindings {
            if binding.kind == BindingKind::Read {
                binding.kind = BindingKind::Write;
            }
        }
        self
    }
}
