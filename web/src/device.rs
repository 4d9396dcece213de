//! The browser's device, and the front page's account of it.

use std::cell::RefCell;
use std::sync::Arc;

use hydralora::device::Gpu;
use hydralora::{DeviceProfile, wgpu};
use hydralora_conformance::limits_that_count;
use js_sys::Function;
use serde::Serialize;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::failure::{Failure, Kind};
use crate::value::{self, Report};

thread_local! {
    /// Who hears of the device between calls: a callback of wgpu can carry no function of JavaScript.
    static LISTENER: RefCell<Option<Report>> = const { RefCell::new(None) };
}

/// Reported at any time.
#[derive(Serialize)]
struct Trouble {
    trouble: Failure,
}

/// The best adapter that the browser offers.
pub(crate) async fn adapter() -> Result<wgpu::Adapter, Failure> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = instance.request_adapter(&options).await;
    adapter.map_err(|error| Failure::new(Kind::NoAdapter, error.to_string()))
}

/// Opens a device of [`adapter`], with the adapter's own limits. `report` hears if the device is lost,
/// and of errors that no call waits for.
pub(crate) async fn open(report: &Report) -> Result<Gpu, Failure> {
    let gpu = Gpu::from_adapter(&adapter().await?).await;
    let gpu = gpu.map_err(|error| Failure::new(Kind::Refused, error.to_string()))?;
    LISTENER.set(Some(report.clone()));
    gpu.device.set_device_lost_callback(|reason, message| {
        // One that is dropped is no longer of interest.
        if reason != wgpu::DeviceLostReason::Destroyed {
            tell(Failure::new(Kind::Lost, message));
        }
    });
    gpu.device.on_uncaptured_error(Arc::new(|error: wgpu::Error| {
        let kind = if matches!(error, wgpu::Error::OutOfMemory { .. }) { Kind::Memory } else { Kind::Other };
        tell(Failure::new(kind, error.to_string()));
    }));
    Ok(gpu)
}

/// The device in words. Browsers tell little of it, and pages add what they are told.
pub(crate) fn describe(gpu: &Gpu) -> String {
    let wgpu::AdapterInfo { name, .. } = gpu.device.adapter_info();
    let kind = if DeviceProfile::of(&gpu.device).software { "software" } else { "hardware" };
    if name.is_empty() { format!("WebGPU in {kind}") } else { format!("{name}, WebGPU in {kind}") }
}

fn tell(trouble: Failure) {
    LISTENER.with_borrow(|listener| {
        if let Some(report) = listener {
            report.tell(&Trouble { trouble });
        }
    });
}

#[derive(Serialize)]
struct Device {
    description: String,
    timestamps: bool,
    limits: Vec<(&'static str, u64)>,
}

/// The device's name, and the limits that decide what fits it.
#[wasm_bindgen]
pub async fn device(report: Function) -> Result<JsValue, JsValue> {
    let gpu = open(&Report(report)).await?;
    let device = Device {
        description: describe(&gpu),
        timestamps: gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY),
        limits: limits_that_count(&gpu.device.limits()),
    };
    Ok(value::of(&device))
}
