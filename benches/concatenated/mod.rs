//! The careful alternative: A and the router as one matrix, all experts as another, and a dispatch for
//! each step of the formula. Its matrix products are made of the library's own parts, take the same
//! packed parameters, and get the tile that is fastest on the device.

use std::time::Duration;

use bytemuck::Pod;
use hydralora::device::Gpu;
use hydralora::op::{BackwardParamsOptions, BackwardParamsPlan};
use hydralora::shader::BindingKind::{Read, Write};
use hydralora::stopwatch::Stopwatch;
use hydralora::{Config, DeviceProfile, Element, Layout, OuterChoice, WriteMode, wgpu};

use crate::recorder::{Dispatches, Recorder};

const WORKGROUP: u32 = 64;
const SHRINK: &str = include_str!("../../shaders/part/shrink.wgsl");
const LANES_WORKGROUP: &str = include_str!("../../shaders/part/lanes_workgroup.wgsl");
const LANES_SUBGROUP: &str = include_str!("../../shaders/part/lanes_subgroup.wgsl");
const EXPAND: &str = include_str!("../../shaders/part/expand.wgsl");
const THREADS_LOCAL: &str = include_str!("../../shaders/part/threads_local.wgsl");
const THREADS_SUBGROUP: &str = include_str!("../../shaders/part/threads_subgroup.wgsl");
const COEFFICIENTS_READ: &str = include_str!("../../shaders/part/coefficients_read.wgsl");
const COEFFICIENTS_HELD: &str = include_str!("../../shaders/part/coefficients_held.wgsl");

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
    /// Shrink's result, then with softmax in place of the logits: tokens x (rank + experts).
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
        let options = BackwardParamsOptions { write: WriteMode::Overwrite, x: Element::F32, g: Element::F32 };
        let outer = BackwardParamsPlan::new(&config, tokens, &options, &profile)?.choice;
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
    pub fn tune(&self, recorder: &mut Recorder<'_>, stopwatch: &Stopwatch, inputs: Inputs<'_>) -> Tiles {
        type Product = fn(&Form, &mut Recorder<'_>, Inputs<'_>, u32);
        let mut fastest = |product: Product| {
            let time = |quads: &u32| {
                product(self, recorder, inputs, *quads);
                let dispatches = recorder.finish();
                let run = || stopwatch.time(|pass| dispatches.encode(pass)).unwrap_or(Duration::MAX);
                run();
                (0..3).map(|_| run()).min()
            };
            [1, 2, 4, 8].into_iter().filter(|&quads| self.fits(quads)).min_by_key(time).unwrap_or(1)
        };
        Tiles {
            forward_shrink: fastest(Self::forward_shrink),
            forward_expand: fastest(Self::forward_expand),
            backward_shrink: fastest(Self::backward_shrink),
            backward_expand: fastest(Self::backward_expand),
        }
    }

    /// Whether the expand's coefficients fit 16 KiB of workgroup memory.
    fn fits(&self, quads: u32) -> bool {
        16 * quads * self.config.rank * self.config.experts <= 16384
            && (quads == 1 || 2 * quads < self.tokens)
    }

    pub fn record(&self, recorder: &mut Recorder<'_>, inputs: Inputs<'_>, tiles: &Tiles) -> Concatenated {
        let Config { experts, rank, .. } = self.config;
        let Outputs { logits, saved, z, v, dstate, .. } = &self.outputs;
        self.forward_shrink(recorder, inputs, tiles.forward_shrink);
        self.per_token(recorder, "softmax", 1, [logits, logits, saved]);
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
        let Config { d_in, rank, experts, .. } = self.config;
        let buffers = [inputs.x, inputs.parameters, &self.outputs.logits];
        self.shrink(recorder, quads, [d_in, rank + experts], self.layout.shrink().offset(), buffers);
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
        let Config { d_in, rank, experts, .. } = self.config;
        let buffers = [&self.outputs.dstate, inputs.parameters, &self.outputs.dx];
        self.expand(recorder, quads, [rank + experts, d_in], self.layout.shrink().offset(), buffers);
    }

    /// `buffers` are X (tokens x inner), the parameters, with M (columns x inner) at `offset`, and P.
    fn shrink(
        &self,
        recorder: &mut Recorder<'_>,
        quads: u32,
        [inner, columns]: [u32; 2],
        offset: usize,
        buffers: [&wgpu::Buffer; 3],
    ) {
        let group = columns.div_ceil(columns.div_ceil(16));
        let lanes = WORKGROUP / quads;
        let shuffled = lanes.min(self.profile.subgroup_lanes);
        let parts = lanes / shuffled;
        let consts = [
            ("QUADS", quads),
            ("LANES", lanes),
            ("GROUP", group),
            ("REDUCE", group),
            ("SHUFFLED", shuffled),
            ("PARTS", parts),
            ("SCRATCH", group * quads * parts),
        ];
        let [threads, lanes] =
            if shuffled > 1 { [THREADS_SUBGROUP, LANES_SUBGROUP] } else { [THREADS_LOCAL, LANES_WORKGROUP] };
        let wgsl = text(&consts, &[include_str!("shrink.wgsl"), SHRINK, threads, lanes]);
        let dims = [self.tokens, inner / 4, offset as u32 / 4, columns];
        let tiles = self.tokens.div_ceil(4 * quads);
        record(recorder, &wgsl, &dims, buffers, [columns.div_ceil(group), tiles, 1]);
    }

    /// `buffers` are Z (tokens x rows), the parameters, with M (rows x outputs) at `offset`, and Y.
    fn expand(
        &self,
        recorder: &mut Recorder<'_>,
        quads: u32,
        [rows, outputs]: [u32; 2],
        offset: usize,
        buffers: [&wgpu::Buffer; 3],
    ) {
        let expand_quads = quads.min(4).min(self.holders().unwrap_or(4));
        let most_step = self.holders().map_or(16, |holders| holders / expand_quads);
        let step = (1..=most_step).rev().find(|&step| rows.is_multiple_of(step)).unwrap_or(1);
        let consts = [
            ("ROWS", rows),
            ("STEP", step),
            ("CHUNK", rows),
            ("QUADS", quads),
            ("EXPAND_QUADS", expand_quads),
        ];
        let flags = "const ACCUMULATE = false; const ONE_CHUNK = true;";
        let coefficients = self.coefficients();
        let wgsl = text(&consts, &[flags, include_str!("expand.wgsl"), EXPAND, &coefficients]);
        let groups = outputs / 4;
        let tiles = self.tokens.div_ceil(4 * quads);
        // Slices repeat nothing here: enough of them to keep the device busy.
        let slices = (4 * self.profile.busy_workgroups).div_ceil(tiles).min(groups.div_ceil(WORKGROUP));
        let slice_groups = groups.div_ceil(slices).next_multiple_of(WORKGROUP);
        let dims = [self.tokens, groups, offset as u32 / 4, slice_groups, rows];
        record(recorder, &wgsl, &dims, buffers, [groups.div_ceil(slice_groups), tiles, 1]);
    }

    /// Lanes that hold coefficients, if the library's own outer products have them held.
    fn holders(&self) -> Option<u32> {
        self.outer.held.then(|| 8.min(1 << self.profile.subgroup_lanes.ilog2()))
    }

    /// How lanes get coefficients.
    fn coefficients(&self) -> String {
        match self.holders() {
            Some(holders) => text(&[("HOLDERS", holders)], &[THREADS_SUBGROUP, COEFFICIENTS_HELD]),
            None => text(&[], &[THREADS_LOCAL, COEFFICIENTS_READ]),
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
        let consts = [("RANK", rank), ("EXPERTS", experts), ("ROWS_PER_TOKEN", rows)];
        let body = include_str!("tokens.wgsl").replace("OPERATION", operation);
        let dims = [self.tokens, scaling.to_bits()];
        let workgroups = (self.tokens * rows).div_ceil(WORKGROUP);
        let second = workgroups.div_ceil(32768);
        record(recorder, &text(&consts, &[&body]), &dims, buffers, [workgroups.div_ceil(second), second, 1]);
    }

    fn parameter_gradients(&self, recorder: &mut Recorder<'_>, inputs: Inputs<'_>) {
        let Config { d_in, d_out, rank, experts, .. } = self.config;
        let Outputs { gradients, dstate, z, copies, .. } = &self.outputs;
        let OuterChoice { rows: most_rows, splits, .. } = self.outer;
        let coefficients = self.coefficients();
        let part = include_str!("../../shaders/part/outer.wgsl").replace("TENSOR", "x");
        let target = if splits == 1 { gradients } else { copies };
        let copy_groups = self.layout.len() as u32 / 4;
        for (x, z, width, z_rows, offset) in [
            (inputs.x, dstate, d_in, rank + experts, self.layout.shrink().offset()),
            (inputs.g, z, d_out, rank * experts, self.layout.expand().offset()),
        ] {
            let rows = z_rows.div_ceil(z_rows.div_ceil(most_rows)).next_multiple_of(4);
            let wgsl = text(
                &[("ROWS_x", rows)],
                &["const ACCUMULATE = false;", include_str!("outer.wgsl"), &part, &coefficients],
            );
            let dims = [
                self.tokens,
                width / 4,
                offset as u32 / 4,
                self.tokens.div_ceil(splits),
                z_rows,
                copy_groups,
            ];
            let blocks = (width / 4).div_ceil(WORKGROUP) * z_rows.div_ceil(rows);
            record(recorder, &wgsl, &dims, [x, z, target], [blocks, splits, 1]);
        }
        if splits > 1 {
            let reduce = include_str!("../../shaders/backward_params_reduce.wgsl");
            let wgsl = text(&[("WORKGROUP", WORKGROUP)], &["const ACCUMULATE = false;", reduce]);
            recorder.dispatch(
                wgsl,
                bytemuck::bytes_of(&[copy_groups, splits]),
                &[(Read, copies), (Write, gradients)],
                [copy_groups.div_ceil(WORKGROUP), 1, 1],
            );
        }
    }
}

fn text(consts: &[(&str, u32)], parts: &[&str]) -> String {
    let mut lines: Vec<_> = consts.iter().map(|(name, value)| format!("const {name} = {value}u;")).collect();
    lines.extend(parts.iter().map(|part| (*part).to_owned()));
    lines.join("\n")
}

/// `buffers` are two that are read and one that is written.
fn record(
    recorder: &mut Recorder<'_>,
    wgsl: &str,
    dims: &impl Pod,
    [left, right, result]: [&wgpu::Buffer; 3],
    grid: [u32; 3],
) {
    let bindings = [(Read, left), (Read, right), (Write, result)];
    let wgsl = text(&[("WORKGROUP", WORKGROUP)], &[wgsl]);
    recorder.dispatch(wgsl, bytemuck::bytes_of(dims), &bindings, grid);
}
