//! The careful alternative: A and the router as one matrix, all experts as another, and a dispatch for
//! each step of the formula. Its matrix products are made of the library's own parts, take the same
//! packed parameters, and get the tile that is fastest on the device.

use bytemuck::Pod;
use hydralora::device::Gpu;
use hydralora::kernel::BindingKind::{self, Read, Write};
use hydralora::stopwatch::Stopwatch;
use hydralora::{
    BackwardParamsOptions, Choice, Config, DeviceProfile, Layout, Operation, OuterChoice, Planner, wgpu,
};

use crate::recorder::{Dispatches, Recorder, fold};

const WORKGROUP: u32 = 64;
const BATCH: &str = include_str!("../../../../shaders/uniform/batch.wgsl");
const SHRINK: &str = include_str!("../../../../shaders/product/shrink.wgsl");
const SHRINK_DROPS: &str = include_str!("../../../../shaders/dropout/shrink_none.wgsl");
const EXPAND_DROPS: &str = include_str!("../../../../shaders/dropout/expand_none.wgsl");
const LANES_WORKGROUP: &str = include_str!("../../../../shaders/lanes/sums_workgroup.wgsl");
const LANES_SUBGROUP: &str = include_str!("../../../../shaders/lanes/sums_subgroup.wgsl");
const EXPAND: &str = include_str!("../../../../shaders/product/expand.wgsl");
const THREADS_LOCAL: &str = include_str!("../../../../shaders/lanes/threads_local.wgsl");
const THREADS_SUBGROUP: &str = include_str!("../../../../shaders/lanes/threads_subgroup.wgsl");
const COEFFICIENTS_READ: &str = include_str!("../../../../shaders/lanes/coefficients_read.wgsl");
const COEFFICIENTS_BROADCAST: &str = include_str!("../../../../shaders/lanes/coefficients_broadcast.wgsl");

/// The concatenated form of one layer with the input router, for one set of inputs.
pub struct Concatenated {
    pub forward: Dispatches,
    pub backward: Dispatches,
}

/// The tiles of its four products, in quads of tokens.
#[derive(Debug, Clone, Copy)]
pub struct Tiles {
    forward_shrink: u32,
    forward_expand: u32,
    backward_shrink: u32,
    backward_expand: u32,
}

/// What is written; inputs that are used in turn may share it.
pub struct Outputs {
    pub y: wgpu::Buffer,
    pub dx: wgpu::Buffer,
    pub gradients: wgpu::Buffer,
    /// Shrink's result, then with softmax in place of the logits: tokens x rows of the shrink block.
    logits: wgpu::Buffer,
    saved: wgpu::Buffer,
    dstate: wgpu::Buffer,
    /// tokens x (experts * rank)
    z: wgpu::Buffer,
    v: wgpu::Buffer,
    copies: wgpu::Buffer,
}

/// A layer on a device.
pub struct Form {
    config: Config,
    tokens: u32,
    layout: Layout,
    outer: OuterChoice,
    profile: DeviceProfile,
    outputs: Outputs,
}

/// What the form reads.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub x: &'a wgpu::Buffer,
    pub g: &'a wgpu::Buffer,
    pub parameters: &'a wgpu::Buffer,
}

impl Form {
    pub fn new(gpu: &Gpu, config: Config, tokens: u32) -> Result<Self, hydralora::Error> {
        let profile = DeviceProfile::of(&gpu.device);
        let layout = config.layout()?;
        let backward_params = Operation::BackwardParams(BackwardParamsOptions::default());
        let planned = Planner::new(profile.clone()).plan(&backward_params, &config, tokens)?;
        let Some(Choice::Outer(outer)) = planned.choice else {
            unreachable!("this is what there is to choose about backward_params")
        };
        let matrix = |width: u32| gpu.zeroed("concatenated", tokens as usize * width as usize);
        let outputs = Outputs {
            y: matrix(config.d_out)?,
            dx: matrix(config.d_in)?,
            gradients: gpu.zeroed("concatenated", layout.len())?,
            logits: matrix(config.state_len())?,
            saved: matrix(config.state_len())?,
            dstate: matrix(config.state_len())?,
            z: matrix(config.rank * config.experts)?,
            v: matrix(config.rank * config.experts)?,
            copies: gpu.zeroed("concatenated", layout.len() * outer.splits as usize)?,
        };
        Ok(Self { config, tokens, layout, outer, profile, outputs })
    }

    pub fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// The fastest tile of each product.
    pub fn tune(
        &self,
        recorder: &mut Recorder<'_>,
        stopwatch: &Stopwatch,
        inputs: Inputs<'_>,
    ) -> Result<Tiles, hydralora::Error> {
        type Product = fn(&Form, &mut Recorder<'_>, Inputs<'_>, u32);
        let mut fastest = |product: Product| {
            let mut times = Vec::new();
            for quads in [1, 2, 4, 8].into_iter().filter(|&quads| quads == 1 || 2 * quads < self.tokens) {
                product(self, recorder, inputs, quads);
                let dispatches = recorder.finish();
                let run = || dispatches.time(stopwatch);
                run()?;
                times.push((run()?.min(run()?).min(run()?), quads));
            }
            Ok(times.into_iter().min().map_or(1, |(_, quads)| quads))
        };
        Ok(Tiles {
            forward_shrink: fastest(Self::forward_shrink)?,
            forward_expand: fastest(Self::forward_expand)?,
            backward_shrink: fastest(Self::backward_shrink)?,
            backward_expand: fastest(Self::backward_expand)?,
        })
    }

    /// Columns of the shrink block's product, and of what it leaves: A's, and the router's if there is one.
    fn state(&self) -> u32 {
        self.layout.shrink().rows() as u32
    }

    /// The experts that a router weighs: none where the layer has no router.
    fn routed(&self) -> u32 {
        self.state() - self.config.rank
    }

    pub fn record(&self, recorder: &mut Recorder<'_>, inputs: Inputs<'_>, tiles: &Tiles) -> Concatenated {
        let Config { experts, rank, .. } = self.config;
        let Outputs { logits, saved, z, v, dstate, .. } = &self.outputs;
        self.forward_shrink(recorder, inputs, tiles.forward_shrink);
        // Without a router the shrink leaves all that there is.
        let saved = if self.routed() > 0 { saved } else { logits };
        if self.routed() > 0 {
            self.per_token(recorder, "softmax", 1, [logits, logits, saved]);
        }
        self.per_token(recorder, "scale", experts * rank, [saved, saved, z]);
        self.forward_expand(recorder, inputs, tiles.forward_expand);
        let forward = recorder.finish();
        self.backward_shrink(recorder, inputs, tiles.backward_shrink);
        self.per_token(recorder, "backward", 1, [v, saved, dstate]);
        self.backward_expand(recorder, inputs, tiles.backward_expand);
        self.parameter_gradients(recorder, inputs);
        Concatenated { forward, backward: recorder.finish() }
    }

    fn forward_shrink(&self, recorder: &mut Recorder<'_>, inputs: Inputs<'_>, quads: u32) {
        let buffers = [inputs.x, inputs.parameters, &self.outputs.logits];
        let matrix = [self.config.d_in, self.state()];
        self.shrink(recorder, quads, matrix, self.layout.shrink().offset(), buffers);
    }

    fn backward_shrink(&self, recorder: &mut Recorder<'_>, inputs: Inputs<'_>, quads: u32) {
        let Config { d_out, rank, experts, .. } = self.config;
        let buffers = [inputs.g, inputs.parameters, &self.outputs.v];
        self.shrink(recorder, quads, [d_out, rank * experts], self.layout.expand().offset(), buffers);
    }

    fn forward_expand(&self, recorder: &mut Recorder<'_>, inputs: Inputs<'_>, quads: u32) {
        let Config { d_out, rank, experts, .. } = self.config;
        let buffers = [&self.outputs.z, inputs.parameters, &self.outputs.y];
        self.expand(recorder, quads, [rank * experts, d_out], self.layout.expand().offset(), buffers);
    }

    fn backward_expand(&self, recorder: &mut Recorder<'_>, inputs: Inputs<'_>, quads: u32) {
        let buffers = [&self.outputs.dstate, inputs.parameters, &self.outputs.dx];
        let matrix = [self.state(), self.config.d_in];
        self.expand(recorder, quads, matrix, self.layout.shrink().offset(), buffers);
    }

    /// `buffers` are X (tokens x width), the parameters, with M (columns x width) at `offset`, and P.
    fn shrink(
        &self,
        recorder: &mut Recorder<'_>,
        quads: u32,
        [width, columns]: [u32; 2],
        offset: usize,
        buffers: [&wgpu::Buffer; 3],
    ) {
        let pass_columns = columns.div_ceil(columns.div_ceil(16));
        let lanes = WORKGROUP / quads;
        let shuffled = lanes.min(self.shuffled_lanes());
        let parts = lanes / shuffled;
        let consts = [
            ("QUADS", quads),
            ("GROUPS", 1),
            ("LANES", lanes),
            ("PASS_COLUMNS", pass_columns),
            ("SUMMED_COLUMNS", pass_columns),
            ("SHUFFLED_LANES", shuffled),
            ("LANE_PARTS", parts),
            ("SCRATCH", pass_columns * quads * parts),
        ];
        let [threads, lanes] =
            if shuffled > 1 { [THREADS_SUBGROUP, LANES_SUBGROUP] } else { [THREADS_LOCAL, LANES_WORKGROUP] };
        let x = access("x", width, Read);
        let wgsl = text(&consts, &[&x, include_str!("shrink.wgsl"), SHRINK_DROPS, SHRINK, threads, lanes]);
        let dims = [width, offset as u32 / 4, columns];
        let [y, z] = fold(self.tokens.div_ceil(4 * quads));
        self.dispatch(recorder, &wgsl, &dims, buffers, [columns.div_ceil(pass_columns), y, z]);
    }

    /// `buffers` are Z (tokens x rows), the parameters, with M (rows x width) at `offset`, and Y.
    fn expand(
        &self,
        recorder: &mut Recorder<'_>,
        quads: u32,
        [rows, width]: [u32; 2],
        offset: usize,
        buffers: [&wgpu::Buffer; 3],
    ) {
        let expand_quads = quads.min(4).min(self.broadcast_lanes().unwrap_or(4));
        let most_step = self.broadcast_lanes().map_or(8, |lanes| lanes / expand_quads);
        // The rows whose coefficients fit workgroup memory.
        let room = rows.min(self.profile.limits.max_compute_workgroup_storage_size / (16 * quads));
        let step = (1..=most_step.min(room)).rev().find(|&step| rows.is_multiple_of(step)).unwrap_or(1);
        let staged_rows = room / step * step;
        let consts =
            [("STEP", step), ("STAGED_ROWS", staged_rows), ("QUADS", quads), ("EXPAND_QUADS", expand_quads)];
        let flags = format!(
            "const ACCUMULATE = false; const LATE_TARGET = false; const A_ROWS = 0u; const ALL_STAGED = {};",
            staged_rows == rows
        );
        let (y, coefficients) = (access("y", width, Write), self.coefficients());
        let wgsl =
            text(&consts, &[&flags, &y, include_str!("expand.wgsl"), EXPAND_DROPS, EXPAND, &coefficients]);
        let groups = width.div_ceil(4);
        let tiles = self.tokens.div_ceil(4 * quads);
        // Slices repeat nothing here: enough of them to keep the device busy.
        let slices = (4 * self.profile.busy_workgroups).div_ceil(tiles).min(groups.div_ceil(WORKGROUP));
        let slice_vecs = groups.div_ceil(slices).next_multiple_of(WORKGROUP);
        let dims = [width, offset as u32 / 4, slice_vecs, rows];
        let [y, z] = fold(tiles);
        self.dispatch(recorder, &wgsl, &dims, buffers, [groups.div_ceil(slice_vecs), y, z]);
    }

    /// Lanes that may add their sums by shuffles: a power of two.
    fn shuffled_lanes(&self) -> u32 {
        1 << self.profile.subgroup_lanes.max(1).ilog2()
    }

    /// Lanes that broadcast coefficients, if those of the library's own outer products do.
    fn broadcast_lanes(&self) -> Option<u32> {
        self.outer.broadcast.then(|| self.shuffled_lanes().min(8))
    }

    /// How lanes get coefficients.
    fn coefficients(&self) -> String {
        match self.broadcast_lanes() {
            Some(lanes) => text(&[("BROADCAST_LANES", lanes)], &[THREADS_SUBGROUP, COEFFICIENTS_BROADCAST]),
            None => text(&[("BROADCAST_LANES", 1)], &[THREADS_LOCAL, COEFFICIENTS_READ]),
        }
    }

    /// `operation` is a function of tokens.wgsl, run for `rows` items a token.
    fn per_token(
        &self,
        recorder: &mut Recorder<'_>,
        operation: &str,
        rows: u32,
        buffers: [&wgpu::Buffer; 3],
    ) {
        let Config { rank, experts, scaling, .. } = self.config;
        let consts =
            [("RANK", rank), ("EXPERTS", experts), ("ROUTED", self.routed()), ("ROWS_PER_TOKEN", rows)];
        let body = include_str!("tokens.wgsl").replace("OPERATION", operation);
        let [x, y] = fold((self.tokens * rows).div_ceil(WORKGROUP));
        self.dispatch(recorder, &text(&consts, &[&body]), &scaling, buffers, [x, y, 1]);
    }

    fn parameter_gradients(&self, recorder: &mut Recorder<'_>, inputs: Inputs<'_>) {
        let Config { d_in, d_out, rank, experts, .. } = self.config;
        let Outputs { gradients, dstate, z, copies, .. } = &self.outputs;
        let OuterChoice { rows: most_rows, splits, .. } = self.outer;
        let coefficients = self.coefficients();
        let drops = include_str!("../../../../shaders/dropout/outer_none.wgsl");
        let outer = include_str!("../../../../shaders/product/outer.wgsl");
        let part = [drops, outer].concat().replace("TENSOR", "x");
        let target = if splits == 1 { gradients } else { copies };
        let copy_vecs = self.layout.len() as u32 / 4;
        for (x, z, width, z_rows, offset) in [
            (inputs.x, dstate, d_in, self.state(), self.layout.shrink().offset()),
            (inputs.g, z, d_out, rank * experts, self.layout.expand().offset()),
        ] {
            let rows = z_rows.div_ceil(z_rows.div_ceil(most_rows)).next_multiple_of(4);
            let wgsl = text(
                &[("ROWS_x", rows), ("TOKENS_AT_ONCE", 1)],
                &[
                    "const ACCUMULATE = false; const TOKEN_QUADS = false;",
                    &access("x", width, Read),
                    include_str!("outer.wgsl"),
                    &part,
                    &coefficients,
                ],
            );
            let dims = [width, offset as u32 / 4, splits, z_rows, copy_vecs];
            let blocks = width.div_ceil(4 * WORKGROUP) * z_rows.div_ceil(rows);
            self.dispatch(recorder, &wgsl, &dims, [x, z, target], [blocks, splits, 1]);
        }
        if splits > 1 {
            let reduce = include_str!("../../../../shaders/kernel/backward_params_reduce.wgsl");
            let wgsl = text(&[("WORKGROUP", WORKGROUP)], &["const ACCUMULATE = false;", reduce]);
            let [x, y] = fold(copy_vecs.div_ceil(WORKGROUP));
            recorder.dispatch(
                wgsl,
                &[bytemuck::bytes_of(&[copy_vecs, splits])],
                &[(Read, copies), (Write, gradients)],
                [x, y, 1],
            );
        }
    }

    /// `buffers` are two that are read and one that is written.
    fn dispatch(
        &self,
        recorder: &mut Recorder<'_>,
        wgsl: &str,
        dims: &impl Pod,
        [left, right, result]: [&wgpu::Buffer; 3],
        grid: [u32; 3],
    ) {
        let bindings = [(Read, left), (Read, right), (Write, result)];
        let wgsl = text(&[("WORKGROUP", WORKGROUP)], &[BATCH, &with_threads(wgsl)]);
        let batch = [self.tokens, 0, 0, 0];
        let uniforms = [bytemuck::bytes_of(dims), bytemuck::bytes_of(&batch)];
        recorder.dispatch(wgsl, &uniforms, &bindings, grid);
    }
}

/// `load_<name>` and, of what is written, `store_<name>` of the dense f32 matrix `name` with rows of `width`
/// elements, as the library has them.
fn access(name: &str, width: u32, kind: BindingKind) -> String {
    let (read, write) = if width.is_multiple_of(4) {
        (
            [
                include_str!("../../../../shaders/access/f32.wgsl"),
                include_str!("../../../../shaders/access/read_rows.wgsl"),
            ],
            [
                include_str!("../../../../shaders/access/write_f32.wgsl"),
                include_str!("../../../../shaders/access/write_rows.wgsl"),
            ],
        )
    } else {
        (
            [include_str!("../../../../shaders/access/read_scalar.wgsl"), ""],
            [include_str!("../../../../shaders/access/write_scalar.wgsl"), ""],
        )
    };
    let parts = if kind == Write { [read, write].concat() } else { read.to_vec() };
    text(&[], &parts).replace("TENSOR", name).replace("WIDTH", "dims.width").replace("STRIDE", "dims.width")
}

fn text(consts: &[(&str, u32)], parts: &[&str]) -> String {
    let mut lines: Vec<_> = consts.iter().map(|(name, value)| format!("const {name} = {value}u;")).collect();
    // What the library's own files say of their imports, names what is replaced below.
    let lines_of =
        |part: &&str| part.lines().filter(|line| !line.starts_with("//@")).collect::<Vec<_>>().join("\n");
    lines.extend(parts.iter().map(lines_of));
    lines.join("\n")
}

/// A kernel's text with the arguments that its numbering of threads takes.
fn with_threads(wgsl: &str) -> String {
    let (arguments, names) = if wgsl.contains(text(&[], &[THREADS_SUBGROUP]).as_str()) {
        let arguments = "@builtin(subgroup_id) subgroup: u32, @builtin(subgroup_size) size: u32, \
                         @builtin(subgroup_invocation_id) invocation: u32";
        (arguments, "subgroup, size, invocation")
    } else {
        ("@builtin(local_invocation_index) index: u32", "index")
    };
    wgsl.replace("THREAD_ARGUMENTS", arguments).replace("THREAD_NAMES", names)
}
