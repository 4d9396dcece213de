//! What a shader binds.

/// A binding in group 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The variable's name in the shader.
    pub name: &'static str,
    /// What is bound.
    pub kind: BindingKind,
}

/// What is bound, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum BindingKind {
    /// A uniform buffer.
    Uniform,
    /// A storage buffer that is only read.
    Read,
    /// A storage buffer that is written, and perhaps read.
    Write,
}

/// What group 1 has at its binding 0: a uniform with what changes from one submission to the next, shared by
/// all operations that change together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Varying {
    /// There is no group 1.
    Nothing,
    /// `batch`: the number of tokens (`shaders/part/batch.wgsl`).
    Batch,
    /// `hyper`: the optimiser's constants, corrected for its step (`shaders/part/hyper.wgsl`).
    Hyper,
}

/// A shader's text and its bindings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The kernel's name, which is also its file's.
    pub label: &'static str,
    /// The whole WGSL text. The entry point is `main`.
    pub wgsl: String,
    /// The bindings of group 0, in order from binding 0.
    pub bindings: Vec<Binding>,
    /// What group 1 has.
    pub varying: Varying,
}

impl Source {
    /// The same for tensors in pools: what is only read is declared as written, so that a buffer may be both
    /// in one dispatch.
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
