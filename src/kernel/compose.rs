//! Puts a shader together: a prelude of constants, element access and a kernel's files, one after the other.
//! Kernels are plain WGSL; the only generated text is `const` lines and tensor names.

use std::borrow::Cow;

use super::access::Access;
use super::binding::{Binding, BindingKind, Varying};
use crate::element::Element;
use crate::layer::{Gate, WriteMode};
use crate::plan::{Tile, WORKGROUP};

/// A shader that is not put together yet: plans need only its label and bindings.
pub(crate) struct Parts {
    pub(crate) label: &'static str,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) varying: Varying,
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
    /// Starts with the uniform `dims` at binding 0.
    pub(crate) fn new(label: &'static str) -> Self {
        let bindings = vec![Binding { name: "dims", kind: BindingKind::Uniform }];
        let (texts, thread, varying) = (Vec::new(), Thread::default(), Varying::Nothing);
        Self { label, bindings, varying, texts, thread }.constant("WORKGROUP", WORKGROUP)
    }

    /// The uniform of group 1.
    pub(crate) fn varying(self, varying: Varying) -> Self {
        let parts = Self { varying, ..self };
        match varying {
            Varying::Nothing => parts,
            Varying::Batch => parts.text(include_str!("../../shaders/part/batch.wgsl")),
            Varying::Hyper => parts.text(include_str!("../../shaders/part/hyper.wgsl")),
        }
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
    pub(crate) fn buffer(mut self, name: &'static str, kind: BindingKind) -> Self {
        self.bindings.push(Binding { name, kind });
        self
    }

    /// The next binding: a matrix with rows of `width` elements, which start `stride` elements apart (both are
    /// WGSL expressions), read and written through `load_<name>` and `store_<name>`.
    pub(crate) fn matrix(
        self,
        name: &'static str,
        [width, stride]: [&str; 2],
        access: Access,
        kind: BindingKind,
    ) -> Self {
        let (parts, read, write) = match access {
            Access::Groups(element) => (
                self.groups(name, element, kind),
                include_str!("../../shaders/access/read_rows.wgsl"),
                include_str!("../../shaders/access/write_rows.wgsl"),
            ),
            Access::Scalar => (
                self.buffer(name, kind),
                include_str!("../../shaders/access/read_scalar.wgsl"),
                include_str!("../../shaders/access/write_scalar.wgsl"),
            ),
        };
        let named =
            |text: &str| text.replace("TENSOR", name).replace("WIDTH", width).replace("STRIDE", stride);
        let parts = parts.text(named(read));
        if kind == BindingKind::Write { parts.text(named(write)) } else { parts }
    }

    /// The next binding: groups of four elements, read and written through `group_<name>` and
    /// `set_group_<name>`.
    pub(crate) fn groups(self, name: &'static str, element: Element, kind: BindingKind) -> Self {
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
        let parts = self.buffer(name, kind).text(read.replace("TENSOR", name));
        if kind == BindingKind::Write { parts.text(write.replace("TENSOR", name)) } else { parts }
    }

    /// How threads are numbered.
    pub(super) fn threads(mut self, by_subgroups: bool) -> Self {
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
    pub(super) fn coefficients(self, holders: u32) -> Self {
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
    pub(super) fn tile(self, columns: u32, tile: &Tile) -> Self {
        self.constant("COLUMNS", columns)
            .constant("QUADS", tile.quads)
            .constant("TILE_TOKENS", tile.tokens())
            .constant("REDUCE", tile.reduce)
            .constant("SCRATCH", tile.scratch)
            .threads(tile.shuffled > 1)
    }

    /// The shrink of a tile: `source` is the text that provides its X and M.
    pub(super) fn shrink(self, tile: &Tile, source: &'static str) -> Self {
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
    pub(super) fn source(
        self,
        name: &'static str,
        width: &str,
        from: ShrinkFrom,
        tile: &Tile,
        source: &'static str,
    ) -> Self {
        match from {
            ShrinkFrom::Rows(access) => self
                .matrix(name, [width, "dims.source_stride"], access, BindingKind::Read)
                .shrink(tile, source),
            ShrinkFrom::Sums(splits) => self
                .buffer("shrink_sums", BindingKind::Read)
                .constant("SPLITS", splits)
                .text(include_str!("../../shaders/part/source_sums.wgsl")),
        }
    }
}

/// The first parts of a fused kernel: the constants that both share, and `part/fused.wgsl`.
pub(super) fn fused_parts(
    label: &'static str,
    [rank, experts, columns]: [u32; 3],
    gate: Gate,
    tile: &Tile,
) -> Parts {
    Parts::new(label)
        .varying(Varying::Batch)
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
