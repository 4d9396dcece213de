//! Helpers for programs without a wgpu application of their own: tests, examples, benches. Nothing
//! else in the library depends on them. These, and only these, create devices, submit and wait.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use crate::element::Element;
use crate::error::Error;

/// A device with its queue: [`Gpu::from_env`] makes one, and an application can put its own in.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// The device.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
}

/// How to get an adapter on a machine without one.
pub const NO_ADAPTER_HELP: &str = "install a GPU driver, or a software one: \
    `apt-get install mesa-vulkan-drivers` (Debian, Ubuntu), `dnf install mesa-vulkan-drivers` (Fedora), \
    `pacman -S vulkan-swrast` (Arch), `zypper install libvulkan_lvp` (openSUSE); \
    WGPU_BACKEND and WGPU_ADAPTER_NAME narrow the choice";

/// A wgpu instance as the environment asks for: `WGPU_BACKEND` and the like.
#[must_use]
pub fn instance_from_env() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env())
}

/// The adapters that `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` (a part of the name, in any case) leave,
/// discrete GPUs first, software drivers last.
pub async fn adapters_from_env() -> Vec<wgpu::Adapter> {
    let wanted = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default().to_lowercase();
    let mut adapters = instance_from_env().enumerate_adapters(wgpu::Backends::all()).await;
    adapters.retain(|adapter| adapter.get_info().name.to_lowercase().contains(&wanted));
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}

impl Gpu {
    /// A device on the best adapter the environment leaves, with the adapter's own limits, and with
    /// timestamp queries and subgroup operations where it has them.
    ///
    /// # Errors
    /// No adapter, with how to get one, or a refused device.
    pub async fn from_env() -> Result<Self, Error> {
        let Some(adapter) = adapters_from_env().await.into_iter().next() else {
            let variable = |name| format!("{name}={}", std::env::var(name).unwrap_or_default());
            return Err(Error::NoAdapter {
                request: [variable("WGPU_BACKEND"), variable("WGPU_ADAPTER_NAME")].join(", "),
                fix: NO_ADAPTER_HELP.to_owned(),
            });
        };
        Self::from_adapter(&adapter).await
    }

    /// A device on this adapter, with the adapter's own limits, and with timestamp queries and subgroup
    /// operations where it has them.
    ///
    /// # Errors
    /// The adapter refuses.
    pub async fn from_adapter(adapter: &wgpu::Adapter) -> Result<Self, Error> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("hydralora"),
            required_features: adapter.features()
                & (wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SUBGROUP),
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(|error| Error::Device {
            action: format!("requesting a device from {}", adapter.get_info().name),
            message: error.to_string(),
        })?;
        Ok(Self { device, queue })
    }

    /// The device's name, kind, backend and driver in one line.
    #[must_use]
    pub fn describe(&self) -> String {
        describe(&self.device.adapter_info())
    }

    /// A storage buffer with `data` in it, which can also be copied from and to.
    #[must_use]
    pub fn upload(&self, label: &str, data: &[f32]) -> wgpu::Buffer {
        let buffer = self.zeroed(label, data.len());
        self.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(data));
        buffer
    }

    /// A storage buffer with `data` in it as elements of another type, padded to whole 32-bit words.
    /// [`Gpu::read_as_blocking`] reads it back.
    #[must_use]
    pub fn upload_as(&self, label: &str, data: &[f32], element: Element) -> wgpu::Buffer {
        let mut bytes = element.encode(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let buffer = self.zeroed(label, bytes.len() / 4);
        self.queue.write_buffer(&buffer, 0, &bytes);
        buffer
    }

    /// A storage buffer of `elements` zeros, which can also be copied from and to.
    #[must_use]
    pub fn zeroed(&self, label: &str, elements: usize) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: 4 * elements as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Records into a new compute pass and submits it. Does not wait.
    pub fn submit(&self, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> wgpu::SubmissionIndex {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        record(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
        self.queue.submit([encoder.finish()])
    }

    /// Copies a buffer out, submits, and resolves when the copy has arrived. On native platforms
    /// somebody has to poll the device meanwhile; [`Gpu::read_blocking`] does.
    ///
    /// # Errors
    /// The buffer lacks `COPY_SRC`, or the device fails while the copy is mapped.
    pub fn read(&self, buffer: &wgpu::Buffer) -> impl Future<Output = Result<Vec<f32>, Error>> + use<> {
        let copied = self.copy_out(buffer);
        async move {
            let (staging, mapping) = copied?;
            let failed = |message| Error::Device { action: "reading a buffer back".to_owned(), message };
            std::future::poll_fn(|context| {
                let mut mapping = mapping.lock().unwrap_or_else(PoisonError::into_inner);
                mapping.waker = Some(context.waker().clone());
                mapping.result.take().map_or(Poll::Pending, Poll::Ready)
            })
            .await
            .map_err(failed)?;
            let view = staging.get_mapped_range(..).map_err(|error| failed(error.to_string()))?;
            Ok(view
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
                .collect())
        }
    }

    /// Submits a copy of a buffer and asks for it to be mapped.
    fn copy_out(&self, buffer: &wgpu::Buffer) -> Result<(wgpu::Buffer, Arc<Mutex<Mapping>>), Error> {
        if !buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
            return Err(Error::MissingUsage { tensor: "the buffer to read", missing: "COPY_SRC" });
        }
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("hydralora read"),
            size: buffer.size(),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        self.queue.submit([encoder.finish()]);
        let mapping = Arc::new(Mutex::new(Mapping::default()));
        let finished = Arc::clone(&mapping);
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            let mut mapping = finished.lock().unwrap_or_else(PoisonError::into_inner);
            mapping.result = Some(result.map_err(|error| error.to_string()));
            if let Some(waker) = mapping.waker.take() {
                waker.wake();
            }
        });
        Ok((staging, mapping))
    }

    /// Copies a buffer out, submits, waits for the device and returns the copy. Not for the web,
    /// where nothing may block.
    ///
    /// # Errors
    /// The device was lost or fails while the copy is mapped.
    pub fn read_blocking(&self, buffer: &wgpu::Buffer) -> Result<Vec<f32>, Error> {
        let mut read = std::pin::pin!(self.read(buffer));
        loop {
            self.wait()?;
            let mut context = std::task::Context::from_waker(Waker::noop());
            if let Poll::Ready(result) = read.as_mut().poll(&mut context) {
                return result;
            }
            // Another thread polled the device and is about to run this mapping's callback.
            std::thread::yield_now();
        }
    }

    /// Like [`Gpu::read_blocking`], of elements of another type.
    ///
    /// # Errors
    /// The device was lost or fails while the copy is mapped.
    pub fn read_as_blocking(&self, buffer: &wgpu::Buffer, element: Element) -> Result<Vec<f32>, Error> {
        Ok(element.decode(bytemuck::cast_slice(&self.read_blocking(buffer)?)))
    }

    /// Waits until everything submitted has finished. Not for the web.
    ///
    /// # Errors
    /// The device was lost.
    pub fn wait(&self) -> Result<(), Error> {
        self.device.poll(wgpu::PollType::wait_indefinitely()).map(drop).map_err(|error| Error::Device {
            action: "waiting for the device".to_owned(),
            message: error.to_string(),
        })
    }
}

/// An adapter's name, kind, backend and driver in one line.
#[must_use]
pub fn describe(info: &wgpu::AdapterInfo) -> String {
    let wgpu::AdapterInfo { name, device_type, backend, driver, driver_info, .. } = info;
    format!("{name} ({device_type:?}, {backend:?}, {driver} {driver_info})")
}

/// Where a mapping's result is handed over.
#[derive(Default)]
struct Mapping {
    result: Option<Result<(), String>>,
    waker: Option<Waker>,
}
