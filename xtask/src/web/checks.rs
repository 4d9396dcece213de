//! What is demanded of each page. A page that is opened with `?check` sets `window.hydralora` to
//! `{ done, ok, message, data }` when it has checked itself (`web/pages/check.js`). Where something is made to go wrong, the
//! page has to explain it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use self::Demand::{Data, Explains, Right};
use super::browser::Browser;
use super::troubles::{NO_ADAPTER, NO_MEMORY, NO_TIMESTAMPS, NO_WEBGPU, Spoilt, Trouble, asleep, lost};
use crate::{Profile, cargo_command, driver, implementation};

/// A page's check.
struct Check {
    name: &'static str,
    /// The page, with its query.
    page: &'static str,
    /// The most seconds that it may take.
    seconds: u64,
    /// What is wrong with its surroundings.
    spoilt: Option<Spoilt>,
    /// What is demanded of it.
    demand: Demand,
}

enum Demand {
    /// That it says of itself that it is right.
    Right,
    /// And something of its data; gives what there is to say about that.
    Data(Verify),
    /// That it explains what is wrong, in a sentence that begins so.
    Explains(&'static str),
}

type Verify = fn(&Context<'_>, &Value) -> Result<String, String>;

/// What a demand may need.
struct Context<'a> {
    root: &'a Path,
}

/// The training page's check; it has 20 steps.
const TRAINING: &str = "training.html?check=20";
const BENCHMARK: &str = "benchmark.html?check&shape=20,256,192,8,4&shape=33,256,256,7,5";

const CHECKS: &[Check] = &[
    Check { name: "index", page: "index.html?check", seconds: 30, spoilt: None, demand: Right },
    Check { name: "conformance", page: "conformance.html?check", seconds: 900, spoilt: None, demand: Right },
    Check { name: "app", page: "app.html?check", seconds: 300, spoilt: None, demand: Right },
    Check {
        name: "training",
        page: TRAINING,
        seconds: 300,
        spoilt: None,
        demand: Data(trains_like_the_demo),
    },
    Check { name: "benchmark", page: BENCHMARK, seconds: 240, spoilt: None, demand: Right },
    Check {
        name: "benchmark-no-timestamps",
        page: BENCHMARK,
        seconds: 240,
        spoilt: Some(NO_TIMESTAMPS),
        demand: Data(has_another_clock),
    },
    explains("index-no-webgpu", "index.html?check", NO_WEBGPU),
    explains("index-no-adapter", "index.html?check", NO_ADAPTER),
    explains("conformance-no-webgpu", "conformance.html?check", NO_WEBGPU),
    explains("conformance-no-adapter", "conformance.html?check", NO_ADAPTER),
    explains("app-no-webgpu", "app.html?check", NO_WEBGPU),
    explains("app-no-adapter", "app.html?check", NO_ADAPTER),
    explains("app-lost", "app.html?check", lost("Step")),
    explains("training-no-webgpu", TRAINING, NO_WEBGPU),
    explains("training-no-adapter", TRAINING, NO_ADAPTER),
    explains("training-no-memory", TRAINING, NO_MEMORY),
    explains("training-lost", TRAINING, lost("Step")),
    explains("training-asleep", TRAINING, asleep("Step")),
    explains("benchmark-no-webgpu", BENCHMARK, NO_WEBGPU),
    explains("benchmark-no-adapter", BENCHMARK, NO_ADAPTER),
    explains("benchmark-no-memory", BENCHMARK, NO_MEMORY),
    explains("benchmark-lost", BENCHMARK, lost("shape 1")),
];

const fn explains(name: &'static str, page: &'static str, (spoilt, sentence): Trouble) -> Check {
    Check { name, page, seconds: 90, spoilt: Some(spoilt), demand: Explains(sentence) }
}

/// Runs all checks whose name contains `only`.
pub(super) fn run(root: &Path, address: SocketAddr, only: &str) -> Result<(), String> {
    let checks: Vec<&Check> = CHECKS.iter().filter(|check| check.name.contains(only)).collect();
    if checks.is_empty() {
        let names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
        return Err(format!("no check's name contains `{only}`; there are: {}", names.join(", ")));
    }
    let mut browser = Browser::open(root, address)?;
    println!("{}", browser.version());
    let context = Context { root };
    let mut failed = 0;
    for check in checks {
        let begin = Instant::now();
        let sentence = if let Explains(sentence) = check.demand { Some(sentence) } else { None };
        let visited = browser.visit(check.name, check.page, check.seconds, check.spoilt, sentence);
        let outcome = visited.and_then(|page| {
            let more =
                if let Data(verify) = check.demand { verify(&context, &page.data)? } else { String::new() };
            Ok((page.message, more))
        });
        let seconds = begin.elapsed().as_secs_f64();
        match outcome {
            Ok((message, more)) => {
                println!("ok      {:23} {seconds:6.1} s  {message}{more}", check.name);
            }
            Err(message) => {
                failed += 1;
                println!("FAILED  {:23} {seconds:6.1} s  {message}", check.name);
            }
        }
    }
    println!("screenshots: {}", browser.pictures().display());
    if failed > 0 { Err(format!("{failed} pages failed their checks")) } else { Ok(()) }
}

/// The most that a step's loss may differ from the native demo's, in bits per byte. The page runs on `SwiftShader` without
/// subgroups, the demo on the machine's own device, so that sums have another order; training makes more of that with
/// each step. Measured with Mesa's llvmpipe: 2.1e-7 at most over 20 steps.
const MOST_DIFFERENCE: f64 = 1e-4;

/// The page's losses are those of the native demo with the same options.
fn trains_like_the_demo(context: &Context<'_>, data: &Value) -> Result<String, String> {
    let steps = data["steps"].to_string();
    let out = context.root.join("target/web-check/native");
    driver::ensure(Profile::Release)?;
    let mut demo = cargo_command(&["run", "--quiet", "--release", "--bin", "hydralora-finetune", "--"]);
    demo.args(["--only-train", "--steps", &steps, "--out"]).arg(&out);
    implementation::output(&mut demo)?;
    let file = out.join("loss.json");
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let native: Value =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut worst: f64 = 0.0;
    for (which, name) in ["lora", "hydralora"].into_iter().enumerate() {
        let (own, demo) = (losses(&data["curves"][which])?, losses(&native[name])?);
        if own.len() != demo.len() || own.is_empty() {
            return Err(format!("{name}: {} losses, and {} of the native demo", own.len(), demo.len()));
        }
        worst = own.iter().zip(&demo).map(|(own, demo)| (own - demo).abs()).fold(worst, f64::max);
    }
    if worst <= MOST_DIFFERENCE {
        return Ok(format!(
            "; losses within {worst:.1e} of the native demo's ({MOST_DIFFERENCE:.0e} allowed)"
        ));
    }
    Err(format!(
        "its losses differ from the native demo's by {worst:.1e} bits per byte, more than {MOST_DIFFERENCE:.0e}"
    ))
}

/// Without timestamps the page says that its times are the host's.
fn has_another_clock(_: &Context<'_>, data: &Value) -> Result<String, String> {
    match data["device"]["clock"].as_str() {
        Some(clock) if clock.contains("wall") => Ok(String::new()),
        clock => Err(format!("it calls its clock {clock:?}")),
    }
}

/// Losses, all finite.
fn losses(value: &Value) -> Result<Vec<f64>, String> {
    serde_json::from_value(value.clone()).map_err(|error| format!("{value} are no losses: {error}"))
}
