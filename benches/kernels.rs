//! Forward, backward and AdamW, each beside the obvious alternative (`chain`), and the ratio of the
//! two measured in turn. `cargo bench`; `-- --test` runs everything once, at a small shape.

mod chain;
mod layer;

use std::time::{Duration, Instant};

use chain::{Chain, LayerChain};
use criterion::{BenchmarkId, Criterion, SamplingMode};
use hydralora::device::Gpu;
use hydralora::{AdamW, AdamWDescriptor, AdamWHyper, Adapter, Config, Kernels, Router, WriteMode, wgpu};
use layer::{Layer, Tensors, Writes};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Measures what is recorded into a compute pass: device time where the device has timestamps,
/// otherwise wall-clock time from submission to completion.
struct Stopwatch {
    gpu: Gpu,
    timestamps: Option<Timestamps>,
}

struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

impl Stopwatch {
    fn new(gpu: Gpu) -> Self {
        let timestamps =
            gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY).then(|| Timestamps {
                queries: gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("stopwatch"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2,
                }),
                resolved: gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("stopwatch"),
                    size: 16,
                    usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: false,
                }),
            });
        Self { gpu, timestamps }
    }

    /// What the numbers are.
    fn label(&self) -> &'static str {
        if self.timestamps.is_some() { "device time" } else { "wall-clock time" }
    }

    fn time(&self, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> Duration {
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let timestamp_writes = self.timestamps.as_ref().map(|timestamps| wgpu::ComputePassTimestampWrites {
            query_set: &timestamps.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        record(
            &mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes }),
        );
        if let Some(timestamps) = &self.timestamps {
            encoder.resolve_query_set(&timestamps.queries, 0..2, &timestamps.resolved, 0);
        }
        let begin = Instant::now();
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.wait().expect("the device runs");
        let wall = begin.elapsed();
        let Some(timestamps) = &self.timestamps else { return wall };
        let words = self.gpu.read_blocking(&timestamps.resolved).expect("reading timestamps");
        let word = |at: usize| u64::from(words[at].to_bits());
        let ticks = (word(2) | word(3) << 32).saturating_sub(word(0) | word(1) << 32);
        Duration::from_nanos((ticks as f64 * f64::from(self.gpu.queue.get_timestamp_period())) as u64)
    }
}

/// One thing to measure: its name, the library's kernels and the alternative.
struct Contest {
    name: &'static str,
    fused: Box<dyn Fn(&mut wgpu::ComputePass<'_>)>,
    chain: Vec<Chain>,
}

impl Contest {
    fn fused(&self, pass: &mut wgpu::ComputePass<'_>) {
        (self.fused)(pass);
    }

    fn chain(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.chain.iter().for_each(|chain| chain.encode(pass));
    }

    /// Times the two in turn and prints the median ratio.
    fn ratio(&self, stopwatch: &Stopwatch, pairs: usize) {
        // Some drivers compile a pipeline when it first runs.
        stopwatch.time(|pass| self.chain(pass));
        stopwatch.time(|pass| self.fused(pass));
        let mut pairs: Vec<(f64, f64)> = (0..pairs)
            .map(|_| {
                let chain = stopwatch.time(|pass| self.chain(pass)).as_secs_f64();
                (chain, stopwatch.time(|pass| self.fused(pass)).as_secs_f64())
            })
            .collect();
        pairs.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        let (chain, fused) = pairs[pairs.len() / 2];
        println!(
            "{}: chain {:.1} ms ({} dispatches), hydralora {:.1} ms, ratio {:.1} (median of {} pairs, {})",
            self.name,
            1e3 * chain,
            self.chain.iter().map(Chain::dispatches).sum::<usize>(),
            1e3 * fused,
            chain / fused,
            pairs.len(),
            stopwatch.label()
        );
    }
}

fn random(len: usize, rng: &mut StdRng) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// The contests at one shape.
fn contests(gpu: &Gpu, kernels: &Kernels, config: Config, tokens: u32) -> [Contest; 3] {
    let rng = &mut StdRng::seed_from_u64(0);
    let (d_in, d_out) = (config.d_in as usize, config.d_out as usize);
    let adapter = Adapter {
        b: (0..config.experts).map(|_| random(d_out * config.rank as usize, rng)).collect(),
        ..Adapter::initialise(&config, 0).expect("a valid configuration")
    };
    let layout = config.layout().expect("a valid configuration");
    let x = gpu.upload("x", &random(tokens as usize * d_in, rng));
    let g = gpu.upload("g", &random(tokens as usize * d_out, rng));
    let y = gpu.zeroed("y", tokens as usize * d_out);
    let dx = gpu.zeroed("dx", tokens as usize * d_in);
    let parameters = gpu.upload("parameters", &layout.pack(&adapter).expect("matching shapes"));
    let gradients = gpu.zeroed("gradients", layout.len());
    let moments = gpu.zeroed("moments", 2 * layout.len());
    let state = |label| gpu.zeroed(label, (tokens * config.state_len()) as usize);
    let (saved, dstate) = (state("saved"), state("dstate"));

    let tensors = Tensors {
        x: (&x).into(),
        g: (&g).into(),
        parameters: (&parameters).into(),
        y: (&y).into(),
        dx: (&dx).into(),
        saved: (&saved).into(),
        dstate: (&dstate).into(),
        gradients: (&gradients).into(),
    };
    let prepare = || {
        Layer::prepare(kernels, config, tokens, &tensors, Writes::all(WriteMode::Overwrite))
            .expect("a valid layer")
    };
    let hyper = AdamWHyper::default();
    let adamw = AdamW::prepare(
        kernels,
        &AdamWDescriptor {
            elements: layout.len(),
            parameters: (&parameters).into(),
            gradients: (&gradients).into(),
            moments: (&moments).into(),
            hyper,
        },
    )
    .expect("preparing adamw");
    adamw.set_step(&gpu.queue, 1, 0.0);

    let (forward, step) = (prepare().forward, prepare());
    let chain = || LayerChain::new(gpu, &config, tokens, &adapter, &x, &g);
    let (forward_chain, step_chain) = (chain().forward, chain());
    // A comparison of two things that compute something else is worth nothing.
    gpu.submit(|pass| {
        step_chain.forward.encode(pass);
        step_chain.backward.encode(pass);
        step.encode(pass);
    });
    let read = |buffer| gpu.read_blocking(buffer).expect("reading results");
    let packed = layout.unpack(&read(&gradients)).expect("the layout's length");
    assert_agree("y", &read(&step_chain.y), &read(&y));
    assert_agree("dx", &read(&step_chain.dx), &read(&dx));
    for (chain, fused) in step_chain.db.iter().zip(&packed.b) {
        assert_agree("dB", &read(chain), fused);
    }

    let elements = (layout.len() as u32).next_multiple_of(4096);
    [
        Contest {
            name: "forward",
            fused: Box::new(move |pass| forward.encode(pass)),
            chain: vec![forward_chain],
        },
        Contest {
            name: "forward and backward",
            fused: Box::new(move |pass| step.encode(pass)),
            chain: vec![step_chain.forward, step_chain.backward],
        },
        Contest {
            name: "adamw",
            fused: Box::new(move |pass| adamw.encode(pass)),
            chain: vec![chain::adamw(gpu, elements, &hyper, 1e-3)],
        },
    ]
}

fn assert_agree(name: &str, chain: &[f32], fused: &[f32]) {
    let largest = chain.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let apart = chain.iter().zip(fused).fold(0.0f32, |apart, (a, b)| apart.max((a - b).abs()));
    assert!(largest > 0.0 && apart < 1e-4 * largest, "{name}: the two differ by {apart} of {largest}");
}

fn main() {
    let once = std::env::args().any(|argument| argument == "--test");
    let gpu = match pollster::block_on(Gpu::from_env()) {
        Ok(gpu) => gpu,
        Err(error) => {
            eprintln!("the benches need a device.\n{error}");
            std::process::exit(1);
        }
    };
    let kernels = Kernels::new(&gpu.device);
    let stopwatch = Stopwatch::new(gpu.clone());
    let (tokens, width) = if once { (64, 256) } else { (2048, 4096) };
    let config =
        Config { d_in: width, d_out: width, rank: 8, experts: 4, scaling: 2.0, router: Router::Input };
    let shape = format!("T={tokens} d={width}x{width} r=8 N=4 f32");
    println!("{}\n{shape}, {}", gpu.describe(), stopwatch.label());

    let contests = contests(&gpu, &kernels, config, tokens);
    for contest in &contests {
        contest.ratio(&stopwatch, if once { 1 } else { 5 });
    }
    let mut criterion = Criterion::default().configure_from_args();
    for contest in &contests {
        let mut group = criterion.benchmark_group(format!("{} ({})", contest.name, stopwatch.label()));
        group.sample_size(10).sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_millis(100));
        group.bench_function(BenchmarkId::new("hydralora", &shape), |bencher| {
            bencher
                .iter_custom(|rounds| (0..rounds).map(|_| stopwatch.time(|pass| contest.fused(pass))).sum());
        });
        group.bench_function(BenchmarkId::new("chain", &shape), |bencher| {
            bencher
                .iter_custom(|rounds| (0..rounds).map(|_| stopwatch.time(|pass| contest.chain(pass))).sum());
        });
    }
    criterion.final_summary();
}
