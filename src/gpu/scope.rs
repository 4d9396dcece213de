//! Turns wgpu's reports during an action into one typed error: the cause, not its consequences.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::error::Error;

/// Error scopes for every kind of error that wgpu has.
#[must_use = "what is reported would be lost"]
pub(crate) struct Scopes {
    device: wgpu::Device,
    action: String,
    internal: wgpu::ErrorScopeGuard,
    memory: wgpu::ErrorScopeGuard,
    validation: wgpu::ErrorScopeGuard,
}

impl Scopes {
    /// Opens scopes for the errors that this thread causes on the device during `action`.
    pub(crate) fn push(device: &wgpu::Device, action: &str) -> Self {
        Self {
            device: device.clone(),
            action: action.to_owned(),
            internal: device.push_error_scope(wgpu::ErrorFilter::Internal),
            memory: device.push_error_scope(wgpu::ErrorFilter::OutOfMemory),
            validation: device.push_error_scope(wgpu::ErrorFilter::Validation),
        }
    }

    /// Ends the scopes now. The errors that they caught are known at once, except in a browser, where they
    /// are known later.
    pub(crate) fn pop(self) -> impl Future<Output = Result<(), Error>> + use<> {
        let Self { device, action, internal, memory, validation } = self;
        let validation = validation.pop();
        let memory = memory.pop();
        let internal = internal.pop();
        let lost = lost(&device);
        async move {
            // A refusal by the driver or a lost device is the cause; invalid objects are a consequence.
            let refused = internal.await.or(memory.await).map(|error| error.to_string());
            let lost = lost.await.then(|| "the device was lost or destroyed".to_owned());
            let invalid = validation.await.map(|error| error.to_string());
            match refused.or(lost).or(invalid) {
                None => Ok(()),
                Some(message) => Err(Error::Device { action, message }),
            }
        }
    }

    /// Ends the scopes now, and returns what was created in them, if they caught nothing.
    pub(crate) fn report<T>(self, created: T) -> impl Future<Output = Result<T, Error>> + use<T> {
        let reported = self.pop();
        async move { reported.await.map(|()| created) }
    }
}

/// Whether the device is lost. This makes a deliberate mistake: only a lost device does not report it.
fn lost(device: &wgpu::Device) -> impl Future<Output = bool> + use<> {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let _ = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("hydralora: is the device lost?"),
        size: 0,
        usage: wgpu::BufferUsages::empty(),
        mapped_at_creation: false,
    });
    let reported = scope.pop();
    async move { reported.await.is_none() }
}

/// The value of a future that waits only for wgpu's reports.
///
/// # Errors
/// In a browser, wgpu reports later. This does not wait, so the outcome is not yet known.
pub(crate) fn at_once<T>(
    action: &'static str,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    ready_now(future).unwrap_or(Err(Error::NotYetKnown { action }))
}

/// Runs `create` and turns wgpu's reports into a typed error. A browser reports later, and this does not
/// wait: there, errors go to the device's own handler instead.
pub(crate) fn scoped<T>(device: &wgpu::Device, action: &str, create: impl FnOnce() -> T) -> Result<T, Error> {
    if cfg!(target_arch = "wasm32") && device.adapter_info().backend == wgpu::Backend::BrowserWebGpu {
        return Ok(create());
    }
    let scopes = Scopes::push(device, action);
    let created = create();
    ready_now(scopes.pop()).unwrap_or(Ok(()))?;
    Ok(created)
}

/// The future's value, if it is ready without waiting.
pub(crate) fn ready_now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
