//! Plain values as JavaScript's, and back.

use js_sys::{Function, JSON};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::JsValue;

use crate::failure::{Failure, Kind};

/// A value as JavaScript's own, or undefined if it is none.
pub(crate) fn of(value: &impl Serialize) -> JsValue {
    let text = serde_json::to_string(value).unwrap_or_default();
    JSON::parse(&text).unwrap_or(JsValue::UNDEFINED)
}

/// JavaScript's value as one of Rust's.
pub(crate) fn from<T: DeserializeOwned>(value: &JsValue) -> Result<T, Failure> {
    let text = JSON::stringify(value).map(String::from).unwrap_or_default();
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(Kind::Other, format!("the page asked for {text}: {error}")))
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
