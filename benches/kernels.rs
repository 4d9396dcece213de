//! Measures forward, forward and backward, and a whole step, each beside two alternatives on the same inputs:
//! a chain of simple dispatches, and the concatenated form; and the frozen layer by itself. Run it with
//! `cargo bench --bench kernels`. `HYDRALORA_GRID=full` measures every shape; `-- --test` runs everything once,
//! at small shapes.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode};
use hydralora::device::Gpu;
use hydralora::stopwatch::Stopwatch;
use hydralora::{Element, Kernels, LinearDirection};
use hydralora_benches::contest::{Contest, Ours, Setting, Task};
use hydralora_benches::frozen::{self, Frozen};
use hydralora_benches::grid::{self, Shape};

/// A small shape of each kind, for tests.
const TESTS: [Shape; 3] = [
    Shape { tokens: 64, d_in: 256, d_out: 256, ..grid::REFERENCE },
    Shape { tokens: 33, d_in: 257, d_out: 259, rank: 7, experts: 5 },
    Shape { tokens: 1, d_in: 130, d_out: 67, rank: 16, experts: 1 },
];

fn main() -> ExitCode {
    let gpu = match pollster::block_on(Gpu::from_env()) {
        Ok(gpu) => gpu,
        Err(error) => {
            eprintln!("the benches need a device.\n{error}");
            return ExitCode::FAILURE;
        }
    };
    let kernels = Kernels::new(&gpu.device, &gpu.queue);
    let stopwatch = Stopwatch::new(&gpu).expect("the device runs");
    println!("{}, {}", gpu.describe(), stopwatch.clock());
    let testing = std::env::args().any(|argument| argument == "--test");
    let shapes = match std::env::var("HYDRALORA_GRID").as_deref() {
        _ if testing => TESTS.to_vec(),
        Ok("full") => grid::full(),
        Ok("small") | Err(_) => grid::small(),
        Ok(other) => {
            eprintln!("HYDRALORA_GRID is {other:?}, but must be small or full if it is set");
            return ExitCode::FAILURE;
        }
    };
    let mut wrong = false;
    let mut criterion = Criterion::default().configure_from_args();
    for shape in &shapes {
        let contest = Ours::new(&gpu, &kernels, shape, Setting::CONTEST)
            .and_then(|ours| Contest::new(&gpu, &stopwatch, ours))
            .map(Rc::new);
        match contest {
            Ok(contest) => bench(&mut criterion, &stopwatch, shape, &contest),
            Err(failure) => {
                eprintln!("{shape}: {failure}");
                // A device may be too small for parts of the grid, but not for the test shapes.
                wrong |= testing || !failure.is_refusal();
            }
        }
    }
    let frozen_shapes = if testing {
        [LinearDirection::Forward, LinearDirection::Backward]
            .map(|direction| frozen::Shape {
                tokens: 3,
                d_in: 260,
                d_out: 68,
                direction,
                element: Element::F16,
            })
            .to_vec()
    } else {
        frozen::shapes(kernels.profile().software)
    };
    for shape in &frozen_shapes {
        match Frozen::new(&gpu, &kernels, shape) {
            Ok(frozen) => bench_frozen(&mut criterion, &stopwatch, shape, &frozen),
            Err(failure) => {
                eprintln!("{shape}: {failure}");
                wrong |= testing || !failure.is_refusal();
            }
        }
    }
    criterion.final_summary();
    if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn bench_frozen(criterion: &mut Criterion, stopwatch: &Stopwatch, shape: &frozen::Shape, frozen: &Frozen) {
    let mut group = criterion.benchmark_group(format!("linear ({})", stopwatch.clock()));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(1));
    let name = format!("{}, {}", shape.kernel(), shape.element);
    group.bench_function(BenchmarkId::new(name, shape), |bencher| {
        bencher.iter_custom(|rounds| {
            let seconds = (0..rounds).map(|_| frozen.time(stopwatch).expect("the device runs"));
            Duration::from_secs_f64(seconds.sum())
        });
    });
}

fn bench(criterion: &mut Criterion, stopwatch: &Stopwatch, shape: &Shape, contest: &Rc<Contest>) {
    for task in Task::ALL {
        let mut group = criterion.benchmark_group(format!("{} ({})", task.name(), stopwatch.clock()));
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(1));
        for entrant in contest.entrants(task) {
            println!("{} {shape}, {}: {} dispatches", task.name(), entrant.name, entrant.dispatches);
            group.bench_function(BenchmarkId::new(entrant.name, shape), |bencher| {
                bencher.iter_custom(|rounds| {
                    let seconds = (0..rounds).map(|_| entrant.time(stopwatch).expect("the device runs"));
                    Duration::from_secs_f64(seconds.sum())
                });
            });
        }
    }
}
