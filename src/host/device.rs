//! Helpers for stand-alone programs, such as tests, examples and benches. They create devices, submit and
//! wait. Of the library, only [`stopwatch`](crate::stopwatch) and `tuner` depend on them.

use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::element::Element;
use crate::error::{Error, Limit};
use crate::gpu::{Scopes, ready_now, scoped};

/// A device with its queue. [`Gpu::from_env`] makes one, and an application can put in its own.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// The device.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
}

/// Advice on getting an adapter on a machine without one.
pub const NO_ADAPTER_HELP: &str = "install a GPU driver, or a software one: \
    `apt-get install mesa-vulkan-drivers` (Debian, Ubuntu), `dnf install mesa-vulkan-drivers` (Fedora), \
    `pacman -S vulkan-swrast` (Arch), `zypper install libvulkan_lvp` (openSUSE); \
    WGPU_BACKEND and WGPU_ADAPTER_NAME narrow the choice";

/// A wgpu instance as the environment requests it, through `WGPU_BACKEND` and similar variables.
#[must_use]
pub fn instance_from_env() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env())
}

/// The adapters that match `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` (a part of the name, in upper or lower
/// case), the best first. Hardware comes before software drivers; within each, GL comes after all other
/// backends, and discrete GPUs come before integrated ones.
pub async fn adapters_from_env() -> Vec<wgpu::Adapter> {
    let wanted = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default().to_lowercase();
    let mut adapters = instance_from_env().enumerate_adapters(wgpu::Backends::all()).await;
    adapters.retain(|adapter| adapter.get_info().name.to_lowercase().contains(&wanted));
    adapters.sort_by_key(|adapter| {
        let info = adapter.get_info();
        preference(info.device_type, info.backend)
    });
    adapters
}

/// The smaller, the better. GL is compared before the kind of device, because on GL wgpu guesses the kind
/// from a name.
fn preference(kind: wgpu::DeviceType, backend: wgpu::Backend) -> impl Ord + Copy {
    let kind = match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    (kind == 4, backend == wgpu::Backend::Gl, kind)
}

/// What the library makes use of, where it is.
const USED_FEATURES: wgpu::Features =
    wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::SUBGROUP).union(wgpu::Features::SHADER_INT64);

impl Gpu {
    /// A device on the best adapter that matches the environment ([`adapters_from_env`]), with the adapter's
    /// own limits, and with timestamp queries, subgroup operations and 64-bit integers if the adapter has them.
    ///
    /// # Errors
    /// No adapter, with advice on getting one, or a refused device.
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

    /// A device on this adapter, with the adapter's own limits, and with timestamp queries, subgroup
    /// operations and 64-bit integers if the adapter has them.
    ///
    /// # Errors
    /// The adapter refuses the device.
    pub async fn from_adapter(adapter: &wgpu::Adapter) -> Result<Self, Error> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("hydralora"),
            required_features: adapter.features() & USED_FEATURES,
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

    /// A storage buffer that holds `data` and can also be copied from and to.
    ///
    /// # Errors
    /// More bytes than the device allows a buffer, too little memory, or a lost device.
    pub fn upload(&self, label: &str, data: &[f32]) -> Result<wgpu::Buffer, Error> {
        self.upload_as(label, data, Element::F32)
    }

    /// Like [`Gpu::upload`], with elements of another type, padded to whole 32-bit words.
    /// [`Gpu::read_as_blocking`] reads them back.
    ///
    /// # Errors
    /// More bytes than the device allows a buffer, too little memory, or a lost device.
    pub fn upload_as(&self, label: &str, data: &[f32], element: Element) -> Result<wgpu::Buffer, Error> {
        let buffer = self.zeroed_as(label, data.len(), element)?;
        let mut bytes = element.encode(data);
        bytes.resize(buffer.size() as usize, 0);
        scoped(&self.device, &format!("filling the buffer {label}"), || {
            self.queue.write_buffer(&buffer, 0, &bytes);
        })?;
        Ok(buffer)
    }

    /// A storage buffer of `elements` zeros that can also be copied from and to.
    ///
    /// # Errors
    /// More bytes than the device allows a buffer, too little memory, or a lost device.
    pub fn zeroed(&self, label: &str, elements: usize) -> Result<wgpu::Buffer, Error> {
        self.zeroed_as(label, elements, Element::F32)
    }

    /// Like [`Gpu::zeroed`], with elements of another type, padded to whole 32-bit words.
    ///
    /// # Errors
    /// More bytes than the device allows a buffer, too little memory, or a lost device.
    pub fn zeroed_as(&self, label: &str, elements: usize, element: Element) -> Result<wgpu::Buffer, Error> {
        let size = self.buffer_size(label, elements as u64, element)?;
        scoped(&self.device, &format!("creating the buffer {label}"), || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })
    }

    /// Bytes of a buffer for `elements` elements, in whole 32-bit words.
    pub(crate) fn buffer_size(&self, label: &str, elements: u64, element: Element) -> Result<u64, Error> {
        let size = whole_words(elements, element);
        Error::check_limit(
            format_args!("the buffer {label}"),
            Limit::BufferSize,
            size,
            self.device.limits().max_buffer_size,
            "request a device with the adapter's limit, or split what the buffer holds",
        )?;
        Ok(size)
    }

    /// Encodes into a new compute pass and submits it. Does not wait.
    ///
    /// # Errors
    /// The error of `encode`, in which case nothing is submitted; wgpu refuses the commands; the device was
    /// lost.
    pub fn submit(
        &self,
        encode: impl FnOnce(&mut wgpu::ComputePass<'_>) -> Result<(), Error>,
    ) -> Result<wgpu::SubmissionIndex, Error> {
        self.submit_commands("submitting a compute pass", |encoder| {
            encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()))
        })
    }

    /// Encodes into a new encoder and submits it.
    pub(crate) fn submit_commands(
        &self,
        action: &str,
        encode: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<(), Error>,
    ) -> Result<wgpu::SubmissionIndex, Error> {
        scoped(&self.device, action, || {
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encode(&mut encoder)?;
            Ok(self.queue.submit([encoder.finish()]))
        })?
    }

    /// Submits a copy of a buffer of f32 out of the device, and resolves when the copy has arrived. On native
    /// platforms, the caller has to poll the device meanwhile; [`Gpu::read_blocking`] does so.
    ///
    /// # Errors
    /// Those of [`Gpu::read_as`]; also a size that is not a multiple of four bytes.
    pub fn read(&self, buffer: &wgpu::Buffer) -> impl Future<Output = Result<Vec<f32>, Error>> + use<> {
        let elements = buffer.size().div_ceil(Element::F32.bytes());
        self.read_as(buffer, Element::F32, usize::try_from(elements).unwrap_or(usize::MAX))
    }

    /// Like [`Gpu::read`], for the first `elements` elements of another type.
    ///
    /// # Errors
    /// The buffer lacks `COPY_SRC`, is shorter than these elements in whole 32-bit words, was destroyed, is
    /// mapped or belongs to another device; too little memory, or a lost device.
    pub fn read_as(
        &self,
        buffer: &wgpu::Buffer,
        element: Element,
        elements: usize,
    ) -> impl Future<Output = Result<Vec<f32>, Error>> + use<> {
        self.read_from(buffer, element, 0, elements)
    }

    /// Like [`Gpu::read`], for some of the buffer's elements.
    ///
    /// # Errors
    /// Those of [`Gpu::read_as`].
    pub fn read_part(
        &self,
        buffer: &wgpu::Buffer,
        elements: Range<usize>,
    ) -> impl Future<Output = Result<Vec<f32>, Error>> + use<> {
        self.read_from(buffer, Element::F32, elements.start, elements.len())
    }

    fn read_from(
        &self,
        buffer: &wgpu::Buffer,
        element: Element,
        first: usize,
        elements: usize,
    ) -> impl Future<Output = Result<Vec<f32>, Error>> + use<> {
        let copied = self.copy_out(buffer, element, first, elements);
        async move {
            let (staging, reported, mapped) = copied?;
            // After a refused copy, the staging buffer would map as zeros.
            reported.await?;
            let failed = |message| Error::Device { action: READING.to_owned(), message };
            mapped.await.map_err(|error| failed(error.to_string()))?;
            let view = staging.get_mapped_range(..).map_err(|error| failed(error.to_string()))?;
            let mut values = element.decode(&view);
            values.truncate(elements);
            Ok(values)
        }
    }

    /// Submits a copy of a buffer and asks for it to be mapped. Gives the copy, wgpu's report, and whether it
    /// was mapped.
    #[expect(clippy::type_complexity, reason = "two futures that have no names")]
    fn copy_out(
        &self,
        buffer: &wgpu::Buffer,
        element: Element,
        first: usize,
        elements: usize,
    ) -> Result<
        (
            wgpu::Buffer,
            impl Future<Output = Result<(), Error>> + use<>,
            impl Future<Output = Result<(), wgpu::BufferAsyncError>> + use<>,
        ),
        Error,
    > {
        let tensor = "the buffer to read";
        if !buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
            return Err(Error::MissingUsage { tensor, missing: "COPY_SRC" });
        }
        let offset = (first as u64).saturating_mul(element.bytes());
        let (needed, given) = (whole_words(elements as u64, element), buffer.size());
        if given < needed.saturating_add(offset) {
            let shape = format!("{elements} {element} in whole 32-bit words, from {first} on");
            let needed = needed.saturating_add(offset);
            return Err(Error::TooSmall { tensor, shape, needed, given });
        }
        Error::check_host(tensor, elements as u64, Element::F32.bytes())?;
        let scopes = Scopes::push(&self.device, READING);
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("hydralora read"),
            size: needed,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, needed);
        self.queue.submit([encoder.finish()]);
        let (call, mapped) = callback();
        staging.map_async(wgpu::MapMode::Read, .., call);
        Ok((staging, scopes.pop(), mapped))
    }

    /// Submits a copy of a buffer of f32 out of the device, waits for it, and returns it. Not for the web,
    /// where nothing may block.
    ///
    /// # Errors
    /// Those of [`Gpu::read`].
    pub fn read_blocking(&self, buffer: &wgpu::Buffer) -> Result<Vec<f32>, Error> {
        self.finish(READING, self.read(buffer))?
    }

    /// Like [`Gpu::read_blocking`], for the first `elements` elements of another type.
    ///
    /// # Errors
    /// Those of [`Gpu::read_as`].
    pub fn read_as_blocking(
        &self,
        buffer: &wgpu::Buffer,
        element: Element,
        elements: usize,
    ) -> Result<Vec<f32>, Error> {
        self.finish(READING, self.read_as(buffer, element, elements))?
    }

    /// Like [`Gpu::read_blocking`], for some of the buffer's elements.
    ///
    /// # Errors
    /// Those of [`Gpu::read_as`].
    pub fn read_part_blocking(
        &self,
        buffer: &wgpu::Buffer,
        elements: Range<usize>,
    ) -> Result<Vec<f32>, Error> {
        self.finish(READING, self.read_part(buffer, elements))?
    }

    /// Waits until all submitted work has finished. Not for the web.
    ///
    /// # Errors
    /// The device was lost.
    pub fn wait(&self) -> Result<(), Error> {
        self.block_on(self.submitted_work_done())
    }

    /// Waits for a future that waits for this device, such as [`Gpu::read`] or [`Kernels::prepare_async`], and polls the
    /// device meanwhile. Not for the web.
    ///
    /// # Errors
    /// The device was lost.
    ///
    /// [`Kernels::prepare_async`]: crate::Kernels::prepare_async
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> Result<T, Error> {
        self.finish("waiting for the device", future)
    }

    /// Resolves when all work that was submitted by now has finished.
    pub(super) fn submitted_work_done(&self) -> impl Future<Output = ()> + use<> {
        let (call, finished) = callback();
        self.queue.on_submitted_work_done(move || call(()));
        finished
    }

    /// Drives the device until the future is ready, with pauses between two looks.
    ///
    /// It submits nothing now and then, which makes wgpu look for finished work. Polling would do that too,
    /// but it panics if the driver reports a lost device, while a submission only fails.
    pub(super) fn finish<T>(
        &self,
        action: &'static str,
        future: impl Future<Output = T>,
    ) -> Result<T, Error> {
        if cfg!(target_arch = "wasm32") {
            return ready_now(future).ok_or(Error::NotYetKnown { action });
        }
        let mut future = pin!(future);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut begin = Instant::now();
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return Ok(value);
            }
            scoped(&self.device, action, || self.queue.submit([]))?;
            if woken.0.swap(false, Ordering::Relaxed) {
                // What it waited for has come, and it waits for something else from now on.
                begin = Instant::now();
                continue;
            }
            // A small part of the time waited so far, so that the wait is not much longer than the device
            // takes.
            std::thread::sleep((begin.elapsed() / 64).clamp(SHORTEST_SLEEP, LONGEST_SLEEP));
        }
    }
}

/// Whether a future was told to look again.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The name of the action in errors.
const READING: &str = "reading a buffer back";

/// The pause between two looks for finished work.
const SHORTEST_SLEEP: Duration = Duration::from_micros(20);
const LONGEST_SLEEP: Duration = Duration::from_millis(5);

/// Bytes of `elements` elements in whole 32-bit words, because wgpu copies whole words.
fn whole_words(elements: u64, element: Element) -> u64 {
    elements.saturating_mul(element.bytes()).checked_next_multiple_of(4).unwrap_or(u64::MAX)
}

/// A callback for wgpu, and a future of the value that it is called with.
fn callback<T: Send + 'static>() -> (impl FnOnce(T) + Send + 'static, impl Future<Output = T> + use<T>) {
    let shared = Arc::new(Mutex::new((None, None::<Waker>)));
    let caller = Arc::clone(&shared);
    let call = move |value| {
        let mut shared = caller.lock().unwrap_or_else(PoisonError::into_inner);
        shared.0 = Some(value);
        let waker = shared.1.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
    };
    let called = std::future::poll_fn(move |context| {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.1 = Some(context.waker().clone());
        shared.0.take().map_or(Poll::Pending, Poll::Ready)
    });
    (call, called)
}

/// An adapter's name, kind, backend and driver in one line.
#[must_use]
pub fn describe(info: &wgpu::AdapterInfo) -> String {
    let wgpu::AdapterInfo { name, device_type, backend, driver, driver_info, .. } = info;
    format!("{name} ({device_type:?}, {backend:?}, {driver} {driver_info})")
}

#[cfg(test)]
mod tests {
    use wgpu::Backend::{Dx12, Gl, Metal, Vulkan};
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, Other, VirtualGpu};

    use super::preference;

    #[test]
    fn hardware_comes_first_and_gl_last_of_either() {
        let best_first = [
            &[(DiscreteGpu, Vulkan), (DiscreteGpu, Dx12), (DiscreteGpu, Metal)][..],
            &[(IntegratedGpu, Vulkan), (IntegratedGpu, Dx12), (IntegratedGpu, Metal)],
            &[(VirtualGpu, Vulkan)],
            &[(DiscreteGpu, Gl)],
            &[(IntegratedGpu, Gl)],
            // wgpu's guess for GPUs of AMD and NVIDIA.
            &[(Other, Gl)],
            &[(Cpu, Vulkan), (Cpu, Dx12)],
            &[(Cpu, Gl)],
        ];
        for (place, better) in best_first.iter().enumerate() {
            for &(kind, backend) in *better {
                let key = preference(kind, backend);
                for &(other_kind, other_backend) in *better {
                    assert!(key == preference(other_kind, other_backend), "{kind:?} {backend:?}");
                }
                for &(other_kind, other_backend) in best_first[place + 1..].iter().copied().flatten() {
                    assert!(
                        key < preference(other_kind, other_backend),
                        "{kind:?} {backend:?} after {other_kind:?} {other_backend:?}"
                    );
                }
            }
        }
    }
}
