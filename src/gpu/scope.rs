//! What wgpu reports while something is created or submitted, as one typed error: the cause, not what
//! came of it.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::error::Error;

/// Scopes for every kind of wgpu's errors.
#[must_use = "what is reported would be lost"]
pub(crate) struct Scopes {
    device: wgpu::Device,
    action: String,
    internal: wgpu::ErrorScopeGuard,
    memory: wgpu::ErrorScopeGuard,
    validation: wgpu::ErrorScopeGuard,
}

impl Scopes {
    /// Catches what this thread has the device do for `action`.
    pub(crate) fn push(device: &wgpu::Device, action: &str) -> Self {
        Self {
            device: device.clone(),
            action: action.to_owned(),
            internal: device.push_error_scope(wgpu::ErrorFilter::Internal),
            memory: device.push_error_scope(wgpu::ErrorFilter::OutOfMemory),
            validation: device.push_error_scope(wgpu::ErrorFilter::Validation),
        }
    }

    /// Ends the scopes now. What they caught is known at once, but in a browser later.
    pub(crate) fn pop(self) -> impl Future<Output = Result<(), Error>> + use<> {
        let Self { device, action, internal, memory, validation } = self;
        let validation = validation.pop();
        let memory = memory.pop();
        let internal = internal.pop();
        let lost = lost(&device);
        async move {
            // What a driver refuses is the cause, and so is a loss; that something is invalid follows.
            let refused = internal.await.or(memory.await).map(|error| error.to_string());
            let lost = lost.await.then(|| "the device was lost or destroyed".to_owned());
            let invalid = validation.await.map(|error| error.to_string());
            match refused.or(lost).or(invalid) {
                None => Ok(()),
                Some(message) => Err(Error::Device { action, message }),
            }
        }
    }

    /// Ends the scopes now, and gives what was created in them, if they caught nothing.
    pub(crate) fn report<T>(self, created: T) -> impl Future<Output = Result<T, Error>> + use<T> {
        let reported = self.pop();
        async move { reported.await.map(|()| created) }
    }
}

/// Whether the device is lost. wgpu reports nothing about a lost device, not even this mistake.
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

/// The value of a future that waits for nothing but what wgpu reports.
///
/// # Errors
/// In a browser wgpu reports later, and nothing here waits.
pub(crate) fn at_once<T>(
    action: &'static str,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    ready_now(future).unwrap_or(Err(Error::NotYetKnown { action }))
}

/// Runs `create` and turns what wgpu reports into a typed error. A browser reports later, and nothing
/// here waits: there errors go to the device's own handler instead.
pub(crate) fn scoped<T>(device: &wgpu::Device, action: &str, create: impl FnOnce() -> T) -> Result<T, Error> {
    if cfg!(target_arch = "wasm32") && device.adapter_info().backend == wgpu::Backend::BrowserWebGpu {
        return Ok(create());
    }
    let scopes = Scopes::push(device, action);
    let created = create();
    ready_now(scopes.pop()).unwrap_or(Ok(()))?;
    Ok(created)
}

/// The future's value, if it is there without waiting.
pub(crate) fn ready_now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
