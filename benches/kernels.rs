//! Forward, forward and backward, and a whole step, each beside two alternatives on the same inputs: a
//! chain of simple dispatches, and the concatenated form. `cargo bench`; `HYDRALORA_GRID=full` measures
//! every shape, `-- --test` runs everything once, at a small shape.

mod chain;
mod concatenated;
mod contest;
mod grid;
mod layer;
mod recorder;

use std::rc::Rc;
use std::time::Duration;

use contest::{Contest, Ours, Task};
use criterion::{BenchmarkId, Criterion, SamplingMode};
use grid::Shape;
use hydralora::device::Gpu;
use hydralora::stopwatch::Stopwatch;
use hydralora::{Element, Kernels};

fn main() {
    let gpu = match pollster::block_on(Gpu::from_env()) {
        Ok(gpu) => gpu,
        Err(error) => {
            eprintln!("the benches need a device.\n{error}");
            std::process::exit(1);
        }
    };
    let kernels = Kernels::new(&gpu.device);
    let stopwatch = Stopwatch::new(&gpu).expect("the device runs");
    println!("{}, {}", gpu.describe(), stopwatch.clock());
    let shapes = if std::env::args().any(|argument| argument == "--test") {
        vec![Shape { tokens: 64, d_in: 256, d_out: 256, ..grid::REFERENCE }]
    } else if std::env::var("HYDRALORA_GRID").is_ok_and(|grid| grid == "full") {
        grid::full()
    } else {
        grid::small()
    };
    let mut criterion = Criterion::default().configure_from_args();
    for shape in &shapes {
        let contest = Ours::new(&gpu, &kernels, shape, Element::F32)
            .and_then(|ours| Contest::new(&gpu, &stopwatch, ours))
            .map(Rc::new);
        match contest {
            Ok(contest) => bench(&mut criterion, &stopwatch, shape, &contest),
            Err(error) => println!("{shape}: {error}"),
        }
    }
    criterion.final_summary();
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
