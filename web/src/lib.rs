//! What hydralora's pages run in a browser, compiled to WebAssembly: a module a page. `pages/worker.js` calls the
//! exported functions in a worker, so that no page ever stands still.
//!
//! An exported function takes and gives plain values, reports what happens to a function that it is given, and fails
//! with a [`Failure`](failure::Failure), for which `pages/trouble.js` has a sentence and a way on.

mod benchmark;
mod device;
mod failure;
mod training;
mod value;

use wasm_bindgen::prelude::wasm_bindgen;


/// Runs when the module is loaded.
#[wasm_bindgen(start)]
fn start() {
    // A panic is a defect. Without this, a page would only hear of an unreachable instruction.
    std::panic::set_hook(Box::new(|panic| {
        web_sys::console::error_1(&panic.to_string().into());
    }));
}
