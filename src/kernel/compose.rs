//! Composes a shader: a block of constants, then files of `shaders/`, each after a banner with its name. The
//! files are plain WGSL. Only that block is generated, and what replaces placeholders: the names, row widths
//! and strides of tensors, and the arguments of the entry point.

use std::borrow::Cow;

use super::access::Access;
use super::binding::{Binding, BindingKind, Varying};
use super::constants::meaning;
use crate::element::Element;
use crate::layer::{Gate, WriteMode};
use crate::plan::{Tile, WORKGROUP};

/// A file of `shaders/`.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(super) path: &'static str,
    pub(super) text: Cow<'static, str>,
}

/// The text of a file of `shaders/`.
#[cfg(not(hydralora_mutants))]
macro_rules! shader_text {
    ($path:literal) => {
        std::borrow::Cow::Borrowed(include_str!(concat!("../../shaders/", $path)))
    };
}

/// The same, read when it is needed: `cargo xtask mutants` changes it, and builds nothing for that.
#[cfg(hydralora_mutants)]
macro_rules! shader_text {
    ($path:literal) => {{
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $path);
        std::fs::read_to_string(path).expect("a file of shaders/").into()
    }};
}
pub(crate) use shader_text;

/// The file of `shaders/` with this path.
macro_rules! wgsl {
    ($path:literal) => {
        $crate::kernel::compose::File { path: $path, text: $crate::kernel::compose::shader_text!($path) }
    };
}
pub(crate) use wgsl;

impl File {
    /// The same file for one tensor.
    fn of(self, tensor: &str) -> Self {
        Self { text: self.text.replace("TENSOR", tensor).into(), ..self }
    }

    /// The same file for rows of `width` elements that start `stride` elements apart (both are WGSL
    /// expressions).
    fn rows(self, width: &str, stride: &str) -> Self {
        Self { text: self.text.replace("WIDTH", width).replace("STRIDE", stride).into(), ..self }
    }
}

/// A shader that is not composed yet: most plans need only its label and bindings.
pub(crate) struct Parts {
    pub(crate) label: &'static str,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) varying: Varying,
    /// Threads of a workgroup.
    pub(crate) threads: u32,
    /// Lanes that the shader assumes to be in one subgroup.
    pub(crate) subgroup_lanes: u32,
    constants: Vec<(String, String)>,
    files: Vec<File>,
    thread: Thread,
    /// What the text begins with: the extensions of WGSL that it uses.
    enables: &'static str,
}

/// The arguments of the entry point that number a thread (`THREAD_ARGUMENTS`), and their names
/// (`THREAD_NAMES`). They are not members of a struct, because naga's HLSL overlooks subgroup members there,
/// and DX12 refuses the shader.
#[derive(Default)]
struct Thread {
    arguments: &'static str,
    names: &'static str,
}

impl Parts {
    /// Starts with the uniform `dims` at binding 0, for workgroups of [`WORKGROUP`] threads.
    pub(crate) fn new(label: &'static str) -> Self {
        let bindings = vec![Binding { name: "dims", kind: BindingKind::Uniform }];
        let (constants, files) = (Vec::new(), Vec::new());
        let (thread, varying) = (Thread::default(), Varying::Nothing);
        let (threads, subgroup_lanes, enables) = (WORKGROUP, 1, "");
        Self { label, bindings, varying, threads, subgroup_lanes, constants, files, thread, enables }
    }

    /// Sets the number of threads of a workgroup.
    pub(super) fn workgroup(self, threads: u32) -> Self {
        Self { threads, ..self }
    }

    /// Adds the uniform of group 1.
    pub(crate) fn varying(self, varying: Varying) -> Self {
        let parts = Self { varying, ..self };
        match varying {
            Varying::Nothing => parts,
            Varying::Batch => parts.file(wgsl!("uniform/batch.wgsl")),
            Varying::Hyper => parts.file(wgsl!("uniform/hyper.wgsl")),
        }
    }

    /// The whole text of the shader.
    pub(crate) fn wgsl(&self) -> String {
        let workgroup = ("WORKGROUP".to_owned(), format!("{}u", self.threads));
        let mut constants: Vec<_> = [&workgroup]
            .into_iter()
            .chain(&self.constants)
            .map(|(name, value)| (meaning(name).unwrap_or((usize::MAX, "")), name, value))
            .collect();
        constants.sort();
        let heading = format!("// {}: constants that the host has set.\n", self.label);
        let constants = constants
            .into_iter()
            .map(|((_, meaning), name, value)| format!("const {name} = {value}; // {meaning}\n"));
        // The whole text needs no imports.
        let without_imports = |text: &str| -> String {
            text.split_inclusive('\n').filter(|line| !line.starts_with("//@")).collect()
        };
        let files = self
            .files
            .iter()
            .map(|File { path, text }| format!("\n// ---- {path}\n{}", without_imports(text)));
        let heading = format!("{}{heading}", self.enables);
        let text: String = [heading].into_iter().chain(constants).chain(files).collect();
        let Thread { arguments, names } = self.thread;
        text.replace("THREAD_ARGUMENTS", arguments).replace("THREAD_NAMES", names)
    }

    /// Adds files that use cooperative matrices with this many rows and columns.
    pub(super) fn matrices(self, size: u32, files: impl IntoIterator<Item = File>) -> Self {
        let named = |file: File| {
            let text = file.text.replace("coop_matSIZE", &format!("coop_mat{size}x{size}")).into();
            File { text, ..file }
        };
        let parts = Self { enables: "enable f16;\nenable wgpu_cooperative_matrix;\n", ..self };
        files.into_iter().map(named).fold(parts.constant("SIZE", size), Self::file)
    }

    /// Assumes that this many lanes are in one subgroup.
    fn in_one_subgroup(self, lanes: u32) -> Self {
        Self { subgroup_lanes: self.subgroup_lanes.max(lanes), ..self }
    }

    pub(crate) fn constant(mut self, name: &str, value: u32) -> Self {
        debug_assert!(meaning(name).is_some(), "{name} means nothing");
        self.constants.push((name.to_owned(), format!("{value}u")));
        self
    }

    pub(crate) fn flag(mut self, name: &str, value: bool) -> Self {
        self.constants.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn write_mode(self, mode: WriteMode) -> Self {
        self.flag("ACCUMULATE", mode == WriteMode::Accumulate)
    }

    pub(crate) fn file(mut self, file: File) -> Self {
        self.files.push(file);
        self
    }

    /// Whether a file is among the parts.
    pub(super) fn has(&self, path: &str) -> bool {
        self.files.iter().any(|file| file.path == path)
    }

    /// Adds a file that is included once for each tensor.
    pub(crate) fn file_of(self, file: File, tensor: &str) -> Self {
        self.file(file.of(tensor))
    }

    /// Adds the next binding: a storage buffer that a file declares.
    pub(crate) fn buffer(mut self, name: &'static str, kind: BindingKind) -> Self {
        self.bindings.push(Binding { name, kind });
        self
    }

    /// Adds the next binding: a matrix with rows of `width` elements, which start `stride` elements apart
    /// (both are WGSL expressions). It is read and written through `load_<name>` and `store_<name>`.
    pub(crate) fn matrix(
        self,
        name: &'static str,
        [width, stride]: [&str; 2],
        access: Access,
        kind: BindingKind,
    ) -> Self {
        let (parts, read, write) = match access {
            Access::Vecs(element) => (
                self.vecs(name, element, kind),
                wgsl!("access/read_rows.wgsl"),
                wgsl!("access/write_rows.wgsl"),
            ),
            Access::Scalar => {
                (self.buffer(name, kind), wgsl!("access/read_scalar.wgsl"), wgsl!("access/write_scalar.wgsl"))
            }
        };
        let parts = parts.file(read.of(name).rows(width, stride));
        if kind == BindingKind::Write { parts.file(write.of(name).rows(width, stride)) } else { parts }
    }

    /// Adds the next binding, whose number the constant says: a storage buffer that is read, and that not every
    /// shader of the kernel has.
    pub(super) fn optional(self, name: &'static str, constant: &str) -> Self {
        let binding = self.bindings.len() as u32;
        self.constant(constant, binding).buffer(name, BindingKind::Read)
    }

    /// Adds the next binding: vec4s of elements, read and written through `vec_<name>` and `set_vec_<name>`.
    pub(crate) fn vecs(self, name: &'static str, element: Element, kind: BindingKind) -> Self {
        let (read, write) = match element {
            Element::F32 => (wgsl!("access/f32.wgsl"), wgsl!("access/write_f32.wgsl")),
            Element::F16 => (wgsl!("access/f16.wgsl"), wgsl!("access/write_f16.wgsl")),
            Element::Bf16 => (wgsl!("access/bf16.wgsl"), wgsl!("access/write_bf16.wgsl")),
        };
        let parts = self.buffer(name, kind).file_of(read, name);
        if kind == BindingKind::Write { parts.file_of(write, name) } else { parts }
    }

    /// Numbers the threads by subgroups, or by their local index.
    pub(super) fn threads(mut self, by_subgroups: bool) -> Self {
        let (thread, file) = if by_subgroups {
            let arguments = "@builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) invocation: u32";
            let thread = Thread { arguments, names: "subgroup, size, invocation" };
            (thread, wgsl!("lanes/threads_subgroup.wgsl"))
        } else {
            let thread = Thread { arguments: "@builtin(local_invocation_index) index: u32", names: "index" };
            (thread, wgsl!("lanes/threads_local.wgsl"))
        };
        self.thread = thread;
        self.file(file)
    }

    /// Gives lanes the coefficients that all of them need: each of `broadcast_lanes` lanes reads one and
    /// broadcasts it, or, if that is 1, every lane reads all of them.
    pub(super) fn coefficients(self, broadcast_lanes: u32) -> Self {
        self.in_one_subgroup(broadcast_lanes).constant("BROADCAST_LANES", broadcast_lanes).file(
            if broadcast_lanes > 1 {
                wgsl!("lanes/coefficients_broadcast.wgsl")
            } else {
                wgsl!("lanes/coefficients_read.wgsl")
            },
        )
    }
}

/// Where a fused kernel gets its shrink from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ShrinkFrom {
    /// It reads the rows of a tensor and shrinks them.
    Rows(Access),
    /// It adds up the partial sums that this many splits of the preceding shrink wrote.
    Sums(u32),
}

impl Parts {
    /// Adds the constants of a tile that all products with it share.
    pub(super) fn tile(self, columns: u32, tile: &Tile) -> Self {
        self.workgroup(tile.threads())
            .constant("COLUMNS", columns)
            .constant("QUADS", tile.quads)
            .constant("TILE_TOKENS", tile.tokens())
            .constant("SUMMED_COLUMNS", tile.summed_columns)
            .constant("SCRATCH", tile.scratch)
            .threads(tile.shuffled_lanes > 1)
    }

    /// Adds the shrink of a tile. `source` is the file that provides its X and M.
    pub(super) fn shrink(self, tile: &Tile, source: File) -> Self {
        let parts = self
            .constant("LANES", tile.lanes)
            .constant("PASS_COLUMNS", tile.pass_columns)
            .file(source)
            .file(wgsl!("product/shrink.wgsl"));
        if tile.shuffled_lanes > 1 {
            parts
                .in_one_subgroup(tile.shuffled_lanes)
                .constant("GROUPS", tile.groups)
                .constant("SHUFFLED_LANES", tile.shuffled_lanes)
                .constant("LANE_PARTS", tile.lanes / tile.shuffled_lanes)
                .file(wgsl!("lanes/sums_subgroup.wgsl"))
        } else {
            parts.file(wgsl!("lanes/sums_workgroup.wgsl"))
        }
    }

    /// Adds the next binding of a fused kernel: the tensor `name` with its shrink, whose X and M `source`
    /// provides, or the sums of a separate shrink.
    pub(super) fn source(
        self,
        name: &'static str,
        width: &str,
        from: ShrinkFrom,
        tile: &Tile,
        source: File,
    ) -> Self {
        match from {
            ShrinkFrom::Rows(access) => self
                .matrix(name, [width, "dims.source_stride"], access, BindingKind::Read)
                .shrink(tile, source),
            ShrinkFrom::Sums(splits) => self
                .buffer("shrink_sums", BindingKind::Read)
                .constant("SPLITS", splits)
                .file(wgsl!("product/splits.wgsl"))
                .file(wgsl!("source/sums.wgsl")),
        }
    }

    /// Adds the expand of a tile.
    pub(super) fn expand(self, tile: &Tile) -> Self {
        self.constant("EXPAND_QUADS", tile.expand_quads)
            .constant("STEP", tile.step)
            .constant("STAGED_ROWS", tile.staged_rows)
            .flag("ALL_STAGED", tile.all_staged)
            .coefficients(tile.broadcast_lanes)
            .file(wgsl!("product/expand.wgsl"))
    }
}

/// The first parts of a fused kernel: the constants that forward and `backward_input` share, and
/// `uniform/fused.wgsl`.
pub(super) fn fused_parts(
    label: &'static str,
    [a_rows, rank, experts, columns]: [u32; 4],
    gate: Gate,
    tile: &Tile,
) -> Parts {
    Parts::new(label)
        .varying(Varying::Batch)
        .constant("RANK", rank)
        .constant("EXPERTS", experts)
        .constant("A_ROWS", a_rows)
        .constant("STATE", gate.state_len(a_rows, experts))
        .tile(columns, tile)
        .file(wgsl!("uniform/fused.wgsl"))
}
