//! What hydralora's pages run in a browser, compiled to WebAssembly: a module a page. `pages/worker.js` calls the
//! exported functions in a worker, so that no page ever stands still.
//!
//! An exported function takes and gives plain values, reports what happens to a function that it is given, and fails
//! with a `Failure`, for which `pages/trouble.js` has a sentence and a way on.

mod benchmark;
mod conformance;
mod device;
mod failure;
mod training;
mod value;

use js_sys::Reflect;
use wasm_bindgen::prelude::wasm_bindgen;

/// Runs when the module is loaded.
#[wasm_bindgen(start)]
fn start() {
    // A panic is a defect. Without this, the worker would only hear of an unreachable instruction.
    std::panic::set_hook(Box::new(|panic| {
        let _ = Reflect::set(&js_sys::global(), &"panicked".into(), &panic.to_string().into());
    }));
}
