//! The wgpu devices under burn's, which burn hands out only when they are started.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use burn::backend::DispatchDevice;
use burn::tensor::Device;
use burn::tensor::wgpu::{WgpuOptions, WgpuSetup, wgpu};
use burn_cubecl::CubeDevice;
use hydralora::{Batch, Bound, Capacity, Kernels, Operation, Plans, Prepared};

use crate::call::Call;
use crate::error::Error;

/// The library on one of burn's wgpu devices.
pub struct Context {
    device: wgpu::Device,
    queue: wgpu::Queue,
    kernels: Kernels,
    /// What the latest submission has in it; one is enough, because each is submitted before it changes.
    batch: Mutex<Option<(Batch, (u64, u32))>>,
}

static CONTEXTS: RwLock<Vec<(CubeDevice, Arc<Context>)>> = RwLock::new(Vec::new());

/// Starts burn's wgpu device with these options, for adapters on it. Before the first tensor: burn starts a device once.
///
/// ```no_run
/// use burn::tensor::Device;
///
/// let device = burn_hydralora::init(Device::wgpu_options())?;
/// # Ok::<(), burn_hydralora::Error>(())
/// ```
///
/// # Errors
/// Those of [`WgpuOptions::init`], among them that the device is in use already.
#[cfg(not(target_family = "wasm"))]
pub fn init(options: WgpuOptions) -> Result<Device, Error> {
    let (device, setup) = options.init_with_setup()?;
    register(&device, &setup)?;
    Ok(device)
}

/// Like [`init`], for browsers.
///
/// # Errors
/// Those of [`init`].
pub async fn init_async(options: WgpuOptions) -> Result<Device, Error> {
    let (device, setup) = options.init_with_setup_async().await?;
    register(&device, &setup)?;
    Ok(device)
}

/// Makes a wgpu device of burn's known that an application started itself, perhaps on its own wgpu device. `setup` has to be that
/// with which this device was started; with another's, wgpu refuses the buffers at the first call.
///
/// # Errors
/// A device that is none of wgpu's, or that was requested without features that its adapter has and burn's kernels use.
pub fn register(device: &Device, setup: &WgpuSetup) -> Result<(), Error> {
    let Some(cube) = wgpu_device(device) else {
        return Err(Error::NotWgpu { device: format!("{device:?}") });
    };
    // burn looks at the adapter's features where its kernels may use them.
    let used = wgpu::Features::SHADER_F16
        | wgpu::Features::SHADER_F64
        | wgpu::Features::SHADER_FLOAT32_ATOMIC
        | wgpu::Features::SHADER_INT64
        | wgpu::Features::SUBGROUP
        | wgpu::Features::TIMESTAMP_QUERY;
    let missing = (setup.adapter.features() & used) - setup.device.features();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter_names().map(|(name, _)| name).collect();
        return Err(Error::MissingFeatures { features: names.join(", ") });
    }
    let context = Context {
        device: setup.device.clone(),
        queue: setup.queue.clone(),
        // burn's memory pools put what is read and what is written into one buffer.
        kernels: Kernels::new(&setup.device, &setup.queue).pooled(),
        batch: Mutex::default(),
    };
    let mut contexts = CONTEXTS.write().unwrap_or_else(PoisonError::into_inner);
    contexts.retain(|(known, _)| *known != cube);
    contexts.push((cube, Arc::new(context)));
    Ok(())
}

/// Whether the library's kernels run on a device. Elsewhere than on wgpu, burn's own operations do.
#[must_use]
pub fn is_registered(device: &Device) -> bool {
    matches!(Context::of(device), Ok(Some(_)))
}

/// The cubecl device under one of burn's, with or without autodiff, if it is wgpu's.
fn wgpu_device(device: &Device) -> Option<CubeDevice> {
    match device.as_dispatch().clone().inner() {
        DispatchDevice::Cube(cube @ CubeDevice::Wgpu(_)) => Some(cube),
        // Other features of burn bring other devices.
        #[allow(unreachable_patterns)]
        _ => None,
    }
}

impl Context {
    /// That of a device; none if burn's own operations are to run there.
    pub fn of(device: &Device) -> Result<Option<Arc<Self>>, Error> {
        let Some(cube) = wgpu_device(device) else { return Ok(None) };
        let unknown = || Error::Unregistered { device: format!("{cube:?}") };
        Self::of_cube(&cube).ok_or_else(unknown).map(Some)
    }

    pub fn of_cube(device: &CubeDevice) -> Option<Arc<Self>> {
        let contexts = CONTEXTS.read().unwrap_or_else(PoisonError::into_inner);
        contexts.iter().find(|(known, _)| known == device).map(|(_, context)| Arc::clone(context))
    }

    /// An operation of a call; a look-up where there was the same before.
    pub fn prepare(
        &self,
        operation: &Operation,
        call: &Call,
        tokens: u32,
    ) -> Result<Prepared, hydralora::Error> {
        self.kernels.prepare(operation, &call.config, Capacity { tokens, plans: Plans::One })
    }

    /// Submits operations, one after the other, in one submission.
    pub fn submit(&self, call: &Call, tokens: u32, operations: &[Bound]) -> Result<(), hydralora::Error> {
        let mut latest = lock(&self.batch);
        let (batch, random) = match &mut *latest {
            Some(batch) => batch,
            none => none.insert((Batch::new(&self.kernels, tokens)?, (0, 0))),
        };
        if batch.tokens() != tokens {
            batch.set(&self.queue, tokens)?;
        }
        if call.config.dropout.is_some() && *random != call.random {
            let (seed, step) = call.random;
            batch.set_random(&self.queue, seed, step);
            *random = call.random;
        }
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for operation in operations {
            operation.encode(&mut pass, batch)?;
        }
        drop(pass);
        self.queue.submit([encoder.finish()]);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
