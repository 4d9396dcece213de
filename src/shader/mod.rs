//! The WGSL that the library runs: a prelude of constants, element access and a kernel's files put
//! one after the other. Kernels are plain WGSL; the only generated text is `const` lines and tensor
//! names.

mod adamw;
mod backward_input;
mod backward_params;
mod forward;
pub(crate) mod linear;
mod shrink;

pub use adamw::AdamWShader;
pub use backward_input::BackwardInputShader;
pub use backward_params::{BackwardParamsShader, ReduceShader};
pub use forward::ForwardShader;
pub use linear::{LinearDirection, LinearShader};
pub use shrink::ShrinkShader;

use std::borrow::Cow;

use crate::config::Gate;
use crate::element::Element;
use crate::error::Error;
use crate::plan::Tile;
use crate::tensor::Role;

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

/// Whether an operation overwrites its result or adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "tuner", derive(serde::Serialize, serde::Deserialize))]
pub enum WriteMode {
    /// What was there is ignored, whatever it is.
    Overwrite,
    /// The result is added to what is there.
    Accumulate,
}

impl WriteMode {
    /// How often the result's memory is gone through: written, and perhaps read.
    pub(crate) fn passes(self) -> u64 {
        match self {
            Self::Overwrite => 1,
            Self::Accumulate => 2,
        }
    }
}

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

/// A binding in group 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The variable's name in the shader, which for most tensors is the operation's name for it.
    pub name: &'static str,
    /// What is bound.
    pub kind: BindingKind,
}

/// What is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingKind {
    /// A uniform buffer.
    Uniform,
    /// A read-only storage buffer.
    Read,
    /// A storage buffer that is written, and perhaps read.
    Write,
}

/// A shader's text and its bindings, in order from binding 0 of group 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The kernel's name, which is also its file's.
    pub label: &'static str,
    /// The whole WGSL text. The entry point is `main`.
    pub wgsl: String,
    /// The bindings.
    pub bindings: Vec<Binding>,
}

impl Shader {
    /// The shader's text and bindings.
    #[must_use]
    pub fn source(&self) -> Source {
        let parts = self.parts();
        Source { label: parts.label, wgsl: parts.wgsl(), bindings: parts.bindings }
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

/// A shader that is not put together yet: plans need only its label and bindings.
pub(crate) struct Parts {
    pub(crate) label: &'static str,
    pub(crate) bindings: Vec<Binding>,
    texts: Vec<Cow<'static, str>>,
    thread: Thread,
}

/// What a thread's number is made of: `THREAD_ARGUMENTS` of the entry point, and `THREAD_NAMES`, their names.
/// No struct holds them: in one, naga's HLSL overlooks those of subgroups, and DX12 refuses the shader.
#[derive(Default)]
struct Thread {
    arguments: &'static str,
    names: &'static str,
}

impl Parts {
    /// Starts with the uniform, the variable `uniform` at binding 0.
    pub(crate) fn new(label: &'static str, uniform: &'static str) -> Self {
        let uniform = Binding { name: uniform, kind: BindingKind::Uniform };
        Self { label, bindings: vec![uniform], texts: Vec::new(), thread: Thread::default() }
            .constant("WORKGROUP", crate::plan::WORKGROUP)
    }

    /// The whole text.
    pub(crate) fn wgsl(&self) -> String {
        let Thread { arguments, names } = self.thread;
        self.texts.join("\n").replace("THREAD_ARGUMENTS", arguments).replace("THREAD_NAMES", names)
    }

    pub(crate) fn constant(self, name: &str, value: u32) -> Self {
        self.text(format!("const {name} = {value}u;"))
    }

    pub(crate) fn flag(self, name: &str, value: bool) -> Self {
        self.text(format!("const {name} = {value};"))
    }

    pub(crate) fn write_mode(self, mode: WriteMode) -> Self {
        self.flag("ACCUMULATE", mode == WriteMode::Accumulate)
    }

    /// The next binding: a storage buffer that the kernel's own text declares.
    pub(crate) fn buffer(mut self, name: &'static str, role: Role) -> Self {
        let kind = match role {
            Role::Read => BindingKind::Read,
            Role::Write => BindingKind::Write,
        };
        self.bindings.push(Binding { name, kind });
        self
    }

    /// The next binding: a dense matrix with rows of `width` elements (a WGSL expression), read and
    /// written through `load_<name>` and `store_<name>`.
    pub(crate) fn matrix(self, name: &'static str, width: &str, access: Access, role: Role) -> Self {
        let (parts, read, write) = match access {
            Access::Groups(element) => (
                self.groups(name, element, role),
                include_str!("../../shaders/access/read_rows.wgsl"),
                include_str!("../../shaders/access/write_rows.wgsl"),
            ),
            Access::Scalar => (
                self.buffer(name, role),
                include_str!("../../shaders/access/read_scalar.wgsl"),
                include_str!("../../shaders/access/write_scalar.wgsl"),
            ),
        };
        let named = |text: &str| text.replace("TENSOR", name).replace("WIDTH", width);
        let parts = parts.text(named(read));
        match role {
            Role::Read => parts,
            Role::Write => parts.text(named(write)),
        }
    }

    /// The next binding: groups of four elements, read and written through `group_<name>` and
    /// `set_group_<name>`.
    pub(crate) fn groups(self, name: &'static str, element: Element, role: Role) -> Self {
        let (read, write) = match element {
            Element::F32 => (
                include_str!("../../shaders/access/f32.wgsl"),
                include_str!("../../shaders/access/write_f32.wgsl"),
            ),
            Element::F16 => (
                include_str!("../../shaders/access/f16.wgsl"),
                include_str!("../../shaders/access/write_f16.wgsl"),
            ),
            Element::Bf16 => (
                include_str!("../../shaders/access/bf16.wgsl"),
                include_str!("../../shaders/access/write_bf16.wgsl"),
            ),
        };
        let parts = self.buffer(name, role).text(read.replace("TENSOR", name));
        match role {
            Role::Read => parts,
            Role::Write => parts.text(write.replace("TENSOR", name)),
        }
    }

    /// How threads are numbered.
    fn threads(mut self, by_subgroups: bool) -> Self {
        let (thread, text) = if by_subgroups {
            let arguments = "@builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) invocation: u32";
            let thread = Thread { arguments, names: "subgroup, size, invocation" };
            (thread, include_str!("../../shaders/part/threads_subgroup.wgsl"))
        } else {
            let thread = Thread { arguments: "@builtin(local_invocation_index) index: u32", names: "index" };
            (thread, include_str!("../../shaders/part/threads_local.wgsl"))
        };
        self.thread = thread;
        self.text(text)
    }

    /// How lanes get the coefficients that all of them want: `holders` lanes hold one each, or every lane
    /// reads them all where that is 1.
    fn coefficients(self, holders: u32) -> Self {
        if holders > 1 {
            let held = include_str!("../../shaders/part/coefficients_held.wgsl");
            self.constant("HOLDERS", holders).text(held)
        } else {
            self.text(include_str!("../../shaders/part/coefficients_read.wgsl"))
        }
    }

    pub(crate) fn text(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.texts.push(text.into());
        self
    }
}

/// How a fused kernel comes by its shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ShrinkFrom {
    /// It reads the rows of a tensor, and shrinks them.
    Rows(Access),
    /// It adds up what so many splits of a dispatch before have made of them.
    Sums(u32),
}

impl Parts {
    /// The constants of a tile and of the products with it.
    fn tile(self, columns: u32, tile: &Tile) -> Self {
        self.constant("COLUMNS", columns)
            .constant("QUADS", tile.quads)
            .constant("TILE_TOKENS", tile.tokens())
            .constant("REDUCE", tile.reduce)
            .constant("SCRATCH", tile.scratch)
            .threads(tile.shuffled > 1)
    }

    /// The shrink of a tile: `source` is the text that provides its X and M.
    fn shrink(self, tile: &Tile, source: &'static str) -> Self {
        self.constant("LANES", tile.lanes)
            .constant("GROUP", tile.group)
            .constant("SHUFFLED", tile.shuffled)
            .constant("PARTS", tile.lanes / tile.shuffled)
            .text(source)
            .text(include_str!("../../shaders/part/shrink.wgsl"))
            .text(if tile.shuffled > 1 {
                include_str!("../../shaders/part/lanes_subgroup.wgsl")
            } else {
                include_str!("../../shaders/part/lanes_workgroup.wgsl")
            })
    }

    /// The next binding of a fused kernel: the tensor `name` with its shrink, provided by `source`, or the
    /// sums that are already made.
    fn source(
        self,
        name: &'static str,
        width: &str,
        from: ShrinkFrom,
        tile: &Tile,
        source: &'static str,
    ) -> Self {
        match from {
            ShrinkFrom::Rows(access) => self.matrix(name, width, access, Role::Read).shrink(tile, source),
            ShrinkFrom::Sums(splits) => self
                .buffer("shrink_sums", Role::Read)
                .constant("SPLITS", splits)
                .text(include_str!("../../shaders/part/source_sums.wgsl")),
        }
    }
}

/// The first parts of a fused kernel: the constants that both share, and `part/fused.wgsl`.
fn fused_parts(label: &'static str, [rank, experts, columns]: [u32; 3], gate: Gate, tile: &Tile) -> Parts {
    Parts::new(label, "dims")
        .constant("RANK", rank)
        .constant("EXPERTS", experts)
        .constant("STATE", gate.state_len(rank, experts))
        .constant("SHRINK_ROWS", gate.shrink_rows(rank, experts))
        .tile(columns, tile)
        .constant("EXPAND_QUADS", tile.expand_quads)
        .constant("STEP", tile.step)
        .constant("CHUNK", tile.chunk)
        .flag("ONE_CHUNK", tile.one_chunk)
        .text(include_str!("../../shaders/part/fused.wgsl"))
}
