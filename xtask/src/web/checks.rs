//! What is demanded of each page. A page that is opened with `?check` sets `window.hydralora` to
//! `{ done, ok, message, data }` when it has checked itself (`web/pages/check.js`). Where something is made to go wrong, the
//! page has to explain it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::browser::Until::{Checked, Done, Explained};
use super::browser::{Browser, Until, Visit};
use super::build;
use super::hands::Hand::{self, Choose, Press, Scroll, See, Type};
use super::troubles::{
    NO_ADAPTER, NO_CLIPBOARD, NO_MEMORY, NO_TIMESTAMPS, NO_WEBGPU, OLDER, REFUSED, SMALL, Spoilt, Trouble,
    asleep, crash, lost,
};
use crate::{Profile, cargo_command, driver, implementation};

/// A page's check: a visit, and what is demanded of its data.
struct Check {
    visit: Visit,
    /// Gives what there is to say about the data.
    verify: Option<Verify>,
}

type Verify = fn(&Context<'_>, &Value) -> Result<String, String>;

/// What a demand may need.
struct Context<'a> {
    root: &'a Path,
}

/// The training page's check; it has 8 steps.
const TRAINING: &str = "training.html?check=8";
const BENCHMARK: &str = "benchmark.html?check&shape=20,256,192,8,4&shape=33,256,256,7,5";

/// A few trials, the first of the conformance suite.
const FEW: &str = "conformance.html?check&filter=forward/given";

const CHECKS: &[Check] = &[
    check("index", "index.html?check", 30),
    check("conformance", "conformance.html?check", 900),
    check("app", "app.html?check", 300),
    verified(check("training", TRAINING, 300), trains_like_the_demo),
    check("benchmark", BENCHMARK, 240),
    verified(spoilt("benchmark-no-timestamps", BENCHMARK, NO_TIMESTAMPS), has_another_clock),
    // It goes on with another device.
    verified(spoilt("conformance-lost", FEW, crash("1 of")), has_another_device),
    spoilt("index-older", "index.html?check", OLDER),
    spoilt("conformance-older", FEW, OLDER),
    by_hand("benchmark-keyboard", "benchmark.html", MEASURES, Done),
    by_hand("training-short-text", "training.html", TOO_SHORT, Explained("This text is of no use as it is.")),
    by_hand("training-other-model", "training.html", OTHER_MODEL, Explained(NO_MODULE)),
    explains("index-no-webgpu", "index.html?check", NO_WEBGPU),
    explains("index-no-adapter", "index.html?check", NO_ADAPTER),
    explains("index-refused", "index.html?check", REFUSED),
    explains("conformance-no-webgpu", "conformance.html?check", NO_WEBGPU),
    explains("conformance-no-adapter", "conformance.html?check", NO_ADAPTER),
    explains("conformance-refused", "conformance.html?check", REFUSED),
    spoilt_by_hand("conformance-no-clipboard", "conformance.html?filter=forward/", NO_CLIPBOARD, COPIES),
    explains("app-no-webgpu", "app.html?check", NO_WEBGPU),
    explains("app-no-adapter", "app.html?check", NO_ADAPTER),
    explains("app-refused", "app.html?check", REFUSED),
    explains("app-small", "app.html?check", SMALL),
    explains("app-no-memory", "app.html?check", NO_MEMORY),
    explains("app-lost", "app.html?check", lost("Step")),
    explains("training-no-webgpu", TRAINING, NO_WEBGPU),
    explains("training-no-adapter", TRAINING, NO_ADAPTER),
    explains("training-small", TRAINING, SMALL),
    explains("training-no-memory", TRAINING, NO_MEMORY),
    explains("training-lost", TRAINING, lost("Step")),
    explains("training-asleep", TRAINING, asleep("Step")),
    explains("benchmark-no-webgpu", BENCHMARK, NO_WEBGPU),
    explains("benchmark-no-adapter", BENCHMARK, NO_ADAPTER),
    explains("benchmark-no-memory", BENCHMARK, NO_MEMORY),
    explains("benchmark-lost", BENCHMARK, lost("shape 1")),
];

/// Chooses a shape, measures it, and goes on to what can be scrolled and had.
const MEASURES: &[Hand] = &[
    Press("summary"),
    Type("#shapes", "20,256,192,8,4"),
    Press("#start"),
    See("#status", "5 rows"),
    Press("#image"),
    Scroll("#table"),
];

const TOO_SHORT: &[Hand] = &[Press("summary"), Type("#own", "too short"), Press("#start")];

const NO_MODULE: &str = "This file is no adapter that the page can use. Choose one that was saved by this page or by \
                         the demo. there is no module `q_proj";
const OTHER_MODEL: &[Hand] = &[Choose("#load", "target/web-check/other_model.safetensors")];

/// Copies while trials run, which can be stopped all the same.
const COPIES: &[Hand] = &[
    Press("#start"),
    Press("#copy"),
    See("#trouble", "The browser lets this page copy nothing."),
    Press("#stop"),
    Press("#over"),
    See("#status", "0 of"),
];

const fn check(name: &'static str, page: &'static str, seconds: u64) -> Check {
    let visit = Visit { name, page, seconds, spoilt: None, hands: &[], until: Checked };
    Check { visit, verify: None }
}

const fn verified(check: Check, verify: Verify) -> Check {
    Check { verify: Some(verify), ..check }
}

const fn spoilt(name: &'static str, page: &'static str, spoilt: Spoilt) -> Check {
    let visit = Visit { name, page, seconds: 240, spoilt: Some(spoilt), hands: &[], until: Checked };
    Check { visit, verify: None }
}

const fn by_hand(name: &'static str, page: &'static str, hands: &'static [Hand], until: Until) -> Check {
    let visit = Visit { name, page, seconds: 240, spoilt: None, hands, until };
    Check { visit, verify: None }
}

const fn spoilt_by_hand(
    name: &'static str,
    page: &'static str,
    spoilt: Spoilt,
    hands: &'static [Hand],
) -> Check {
    let visit = Visit { name, page, seconds: 240, spoilt: Some(spoilt), hands, until: Done };
    Check { visit, verify: None }
}

const fn explains(name: &'static str, page: &'static str, (spoilt, sentence): Trouble) -> Check {
    let until = Explained(sentence);
    Check { visit: Visit { name, page, seconds: 90, spoilt: Some(spoilt), hands: &[], until }, verify: None }
}

/// Runs all checks whose name contains `only`.
pub(super) fn run(root: &Path, site: &Path, address: SocketAddr, only: &str) -> Result<(), String> {
    let checks: Vec<&Check> = CHECKS.iter().filter(|check| check.visit.name.contains(only)).collect();
    if checks.is_empty() {
        let names: Vec<_> = CHECKS.iter().map(|check| check.visit.name).collect();
        return Err(format!("no check's name contains `{only}`; there are: {}", names.join(", ")));
    }
    let mut browser = Browser::open(root, address)?;
    println!("{}", browser.version());
    other_model(root, &browser.pictures().join("other_model.safetensors"))?;
    let context = Context { root };
    let mut failed = 0;
    for Check { visit, verify } in checks {
        let begin = Instant::now();
        let outcome = browser.visit(visit).and_then(|page| {
            let more = verify.map_or_else(|| Ok(String::new()), |verify| verify(&context, &page.data))?;
            let explained = matches!(visit.until, Explained(_));
            let size = if explained { String::new() } else { size(site, &page.loaded)? };
            Ok(format!("{}{more}{size}", page.message))
        });
        let seconds = begin.elapsed().as_secs_f64();
        let (word, message) = match outcome {
            Ok(message) => ("ok", message),
            Err(message) => {
                failed += 1;
                ("FAILED", message)
            }
        };
        println!("{word:7} {:24} {seconds:6.1} s  {message}", visit.name);
    }
    println!("screenshots: {}", browser.pictures().display());
    if failed > 0 { Err(format!("{failed} pages failed their checks")) } else { Ok(()) }
}

/// The most bytes of a page with everything that it loads, compressed as servers send it, but what it works on.
const MOST_BYTES: u64 = 1_500_000;
/// What pages work on: models, texts and numbers.
const DATA: [&str; 2] = ["data/", "goldens/"];
/// What only the check loads.
const OF_CHECK: [&str; 2] = ["npm/reference.json", "npm/compare.js"];

/// What a visitor of a page loads.
fn size(site: &Path, loaded: &BTreeSet<String>) -> Result<String, String> {
    let (mut code, mut data) = (0, 0);
    for path in loaded.iter().filter(|path| !OF_CHECK.contains(&path.as_str())) {
        let bytes = build::compressed(&site.join(path)).ok_or_else(|| format!("gzip failed on {path}"))?;
        let kind = if DATA.iter().any(|folder| path.starts_with(folder)) { &mut data } else { &mut code };
        *kind += bytes;
    }
    if code == 0 || code > MOST_BYTES {
        return Err(format!("it loads {code} bytes compressed, and at most {MOST_BYTES} are allowed"));
    }
    let kilobytes = |bytes: u64| bytes.div_ceil(1000);
    let data = if data > 0 { format!(" and {} kB of data", kilobytes(data)) } else { String::new() };
    Ok(format!("; {} kB compressed{data}", kilobytes(code)))
}

/// Writes the adapter of [`OTHER_MODEL`]: one of PEFT's, with its settings inside as the page's own adapters have them.
fn other_model(root: &Path, to: &Path) -> Result<(), String> {
    let from = root.join("tests/conformance/checkpoints/peft_lora");
    let read = |name: &str| {
        let path = from.join(name);
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (adapter, settings) = (read("adapter_model.safetensors")?, read("adapter_config.json")?);
    // Eight bytes with the length of the header, JSON, and then the numbers.
    let (length, rest) = adapter.split_first_chunk().ok_or("an adapter without a header")?;
    let header = usize::try_from(u64::from_le_bytes(*length)).ok();
    let (header, numbers) =
        header.and_then(|header| rest.split_at_checked(header)).ok_or("an adapter that is cut off")?;
    let mut header: Value = serde_json::from_slice(header).map_err(|error| error.to_string())?;
    header["__metadata__"] = json!({ "adapter_config.json": String::from_utf8_lossy(&settings) });
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    implementation::write(to, [&length[..], header.as_bytes(), numbers].concat())
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

/// A device was lost, and another one opened.
fn has_another_device(_: &Context<'_>, data: &Value) -> Result<String, String> {
    match data["replaced"].as_u64() {
        Some(1..) => Ok("; on another device".to_owned()),
        replaced => Err(format!("no device was lost, and {replaced:?} replaced")),
    }
}

/// Losses, all finite.
fn losses(value: &Value) -> Result<Vec<f64>, String> {
    serde_json::from_value(value.clone()).map_err(|error| format!("{value} are no losses: {error}"))
}
