//! Plain values as JavaScript's.

use js_sys::{Function, JSON};
use serde::Serialize;
use wasm_bindgen::JsValue;

/// A value as JavaScript's own, or undefined if it is none.
pub(crate) fn of(value: &impl Serialize) -> JsValue {
    let text = serde_json::to_string(value).unwrap_or_default();
    JSON::parse(&text).unwrap_or(JsValue::UNDEFINED)
}

/// The function of a page that hears what happens.
#[derive(Clone)]
pub(crate) struct Report(pub Function);

impl Report {
    /// Tells the page. What it makes of it is its own affair.
    pub(crate) fn tell(&self, value: &impl Serialize) {
        let _ = self.0.call1(&JsValue::NULL, &of(value));
    }
}
