//! The conformance suite in a browser: the trials of `tests/conformance`, run one by one as the page asks for them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use hydralora::device::Gpu;

use hydralora_conformance::{
    Device, Identity, KNOWN, LIMITS, Plan, Record, Report as Results, Selection, Status, WgpuDevice, kind,
    plans, run_trial, seed,
};
use js_sys::{Array, Function, Uint8Array};
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::device::adapter;
use crate::failure::{Failure, Kind};
use crate::value::{self, Report};

thread_local! {
    static SUITE: RefCell<Option<Rc<Suite>>> = const { RefCell::new(None) };
    static LOST: Cell<bool> = const { Cell::new(false) };
    /// Who hears of a panic, which ends this instance of the module.
    static LISTENER: RefCell<Option<Report>> = const { RefCell::new(None) };
}

type Trial = (Arc<WgpuDevice>, Plan);

/// The devices of the browser's adapter, and their trials. A trial that has run is gone.
struct Suite {
    identities: Vec<Identity>,
    /// Of all fixed cases there are, not only of the selected ones: operations, routers and element types.
    kinds: BTreeSet<String>,
    trials: RefCell<Vec<Option<Trial>>>,
}

/// What the page asks for, as in its address.
#[derive(Deserialize)]
struct Wanted {
    /// The adapter and the browser, as the page knows them.
    adapter: String,
    browser: String,
    replay: Option<String>,
    part: Option<String>,
    filter: Option<String>,
    /// Whether one small trial of each kind is enough.
    quick: bool,
}

/// What the page gets.
#[derive(Serialize)]
struct Opened<'a> {
    identities: &'a [Identity],
    /// The names of all trials, in their order.
    trials: Vec<String>,
}

#[derive(Serialize)]
struct Ran {
    record: Record,
    /// Whether the device is gone, so that the next trial needs another one.
    lost: bool,
}

/// Reported at a panic.
#[derive(Serialize)]
struct Panic {
    panic: String,
}

fn other(message: impl Into<String>) -> Failure {
    Failure::new(Kind::Other, message)
}

fn selection(wanted: &Wanted) -> Result<Selection, String> {
    let replay = wanted.replay.as_deref().map(seed).transpose()?;
    let partition = wanted.part.as_deref().map(str::parse).transpose()?;
    Ok(Selection { replay, partition, quick: wanted.quick, ..Selection::default() })
}

/// Opens a device with each set of limits, and lists their trials. `goldens` are pairs of a name and
/// the contents of a file.
#[wasm_bindgen]
pub async fn conformance_open(wanted: String, goldens: Array) -> Result<JsValue, JsValue> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        LISTENER.with_borrow(|listener| {
            if let Some(report) = listener {
                report.tell(&Panic { panic: panic.to_string() });
            }
        });
        hook(panic);
    }));
    let wanted: Wanted = serde_json::from_str(&wanted).map_err(|error| other(error.to_string()))?;
    let selection = selection(&wanted).map_err(|error| Failure::new(Kind::Text, error))?;
    let golden = |pair: JsValue| {
        let pair = Array::from(&pair);
        (pair.get(0).as_string().unwrap_or_default(), Uint8Array::new(&pair.get(1)).to_vec())
    };
    let goldens: Vec<_> = goldens.iter().map(golden).collect();
    let mut identities = Vec::new();
    let mut kinds = BTreeSet::new();
    let mut trials = Vec::new();
    let sets = if wanted.quick { &LIMITS[..1] } else { &LIMITS };
    for &limits_of in sets {
        // An adapter gives one device in a browser.
        let adapter = adapter().await?;
        let request = WgpuDevice::request(&adapter, &wanted.adapter, &wanted.browser, limits_of, None);
        let refused = |message: String| Failure::new(Kind::Refused, message);
        let Some(device) = request.await.map_err(refused)? else { continue };
        device.gpu.device.set_device_lost_callback(|_, _| LOST.set(true));
        identities.push(device.identity().clone());
        let device = Arc::new(device);
        let of_suite: Arc<dyn Device> = Arc::clone(&device) as _;
        let fixed = Selection { random: 0, ..Selection::default() };
        kinds.extend(plans(&of_suite, &fixed, &[], Vec::new()).iter().map(|plan| kind(&plan.name)));
        let plans = plans(&of_suite, &selection, &goldens, Vec::new());
        trials.extend(plans.into_iter().map(|plan| Some((Arc::clone(&device), plan))));
    }
    let full_name = |(device, plan): &Trial| format!("[{}] {}", device.identity().label(), plan.name);
    if let Some(filter) = &wanted.filter {
        trials.retain(|trial| trial.as_ref().is_some_and(|trial| full_name(trial).contains(filter)));
    }
    let names = trials.iter().flatten().map(full_name).collect();
    let opened = value::of(&Opened { identities: &identities, trials: names });
    SUITE.set(Some(Rc::new(Suite { identities, kinds, trials: RefCell::new(trials) })));
    Ok(opened)
}

fn suite() -> Result<Rc<Suite>, Failure> {
    SUITE.with_borrow(Clone::clone).ok_or_else(|| other("no device is open"))
}

fn take(index: usize) -> Result<Trial, Failure> {
    let trial = suite()?.trials.borrow_mut().get_mut(index).and_then(Option::take);
    trial.ok_or_else(|| other(format!("trial {index} has run, or there is none")))
}

/// Whether a device still computes.
async fn answers(gpu: &Gpu) -> bool {
    match gpu.upload("still there?", &[1.0]) {
        Ok(buffer) => gpu.read(&buffer).await.is_ok(),
        Err(_) => false,
    }
}

/// Runs a trial. `report` hears of a panic.
#[wasm_bindgen]
pub async fn conformance_run(index: usize, report: Function) -> Result<JsValue, JsValue> {
    LISTENER.set(Some(Report(report)));
    let (device, plan) = take(index)?;
    let record = run_trial(&*device, plan, KNOWN).await;
    // A loss may be told of later than its consequences.
    let lost = LOST.get() || (record.status == Status::Failed && !answers(&device.gpu).await);
    Ok(value::of(&Ran { record, lost }))
}

/// The record of a trial that ended an earlier instance of this module.
#[wasm_bindgen]
pub async fn conformance_fail(index: usize, message: String) -> Result<JsValue, JsValue> {
    let (device, plan) = take(index)?;
    Ok(value::of(&run_trial(&*device, plan.failing(message), KNOWN).await))
}

/// The kinds of trials, of all that the suite has, of which no record passed: what is left to show of the device.
#[wasm_bindgen]
pub fn conformance_lacking(records: &str) -> Result<JsValue, JsValue> {
    let suite = suite()?;
    Ok(value::of(&lacking(&suite.kinds, &parse(records)?)))
}

fn lacking<'a>(kinds: &'a BTreeSet<String>, records: &[Record]) -> Vec<&'a String> {
    let passed = records.iter().filter(|record| record.status == Status::Passed);
    let passed: BTreeSet<String> = passed.map(|record| kind(&record.case)).collect();
    kinds.iter().filter(|kind| !passed.contains(*kind)).collect()
}

fn parse(records: &str) -> Result<Vec<Record>, Failure> {
    serde_json::from_str(records).map_err(|error| other(error.to_string()))
}

/// The report on records, for people and for programs.
#[wasm_bindgen]
pub fn conformance_report(records: &str, seconds: f64) -> Result<JsValue, JsValue> {
    let records = parse(records)?;
    let report = Results { identities: suite()?.identities.clone(), records, seconds };
    let json = report.json().map_err(other)?;
    let markdown: String = report.adapters().iter().map(|adapter| report.markdown(adapter)).collect();
    Ok(value::of(&[markdown, json]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hydralora_conformance::{Record, Status};

    use super::lacking;

    #[test]
    fn a_kind_is_lacking_until_a_trial_of_it_passes() {
        let kinds: BTreeSet<String> = ["forward/input-router/f32", "new/f32"].map(str::to_owned).into();
        let record = |case: &str, status| Record {
            device: String::new(),
            case: case.to_owned(),
            kernel: String::new(),
            seed: None,
            status,
            message: None,
            distribution: None,
            milliseconds: 1.0,
        };
        let passed = record("forward/input-router/f32/T4_k8_d8_r2_N2/gradient", Status::Passed);
        assert_eq!(lacking(&kinds, std::slice::from_ref(&passed)), ["new/f32"]);
        let unsupported = record("new/f32/T4_k8_d8_r2_N2", Status::Unsupported);
        assert_eq!(lacking(&kinds, &[passed, unsupported]), ["new/f32"]);
    }
}
