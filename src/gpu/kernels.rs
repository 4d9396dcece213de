//! The library on one of the caller's devices. Pipelines, uniforms and plans are each made once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bind::{Bound, Prepared};
use super::pipeline::{Pipeline, compile, entry};
use super::scope::{at_once, scoped};
use super::tensor::{self, Tensor};
use crate::error::Error;
use crate::kernel::{BindingKind, Shader};
use crate::layer::{Config, Operation};
use crate::plan::{Capacity, DeviceProfile, Tuning};
use crate::planner::Planner;
use crate::recording::{Operand, Recording};

/// The library on one of the caller's devices. It prepares operations.
///
/// Pipelines compile on first use and are kept; so are plans and uniforms. Make one `Kernels` per device and
/// share it: it is `Sync`. Of the caller's objects it holds only reference-counted handles of the device and
/// the queue. Clones share everything.
#[derive(Debug, Clone)]
pub struct Kernels {
    planner: Planner,
    pooled: bool,
    shared: Arc<Shared>,
    prepared: Arc<Mutex<HashMap<PlanKey, Prepared>>>,
}

/// The parts that do not depend on how operations are planned.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) device: wgpu::Device,
    queue: wgpu::Queue,
    /// The layout of group 1, the same for all pipelines that have one.
    varying: wgpu::BindGroupLayout,
    pipelines: Cache<(Shader, bool), Pipeline>,
    uniforms: Cache<Vec<u8>, wgpu::Buffer>,
}

/// Values that are made on first use. Each place has its own lock, which is held while its value is made, so
/// that different values can be made at the same time.
type Cache<K, V> = Mutex<HashMap<K, Place<V>>>;
type Place<V> = Arc<Mutex<Option<Arc<V>>>>;

/// An operation on a layer, for up to a number of tokens.
type PlanKey = (Operation, Config, Capacity);

impl Kernels {
    /// The kernels on `device`, planned for the profile from [`DeviceProfile::of`]. While operations are
    /// prepared, `queue` writes their constants, which takes effect before its next submission.
    #[must_use]
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        Self::with_profile(device, queue, DeviceProfile::of(device))
    }

    /// The kernels on `device`, planned for `profile`: for devices whose width the caller knows. Limits,
    /// subgroup lanes and loop iterations are reduced to those that the device guarantees.
    #[must_use]
    pub fn with_profile(device: &wgpu::Device, queue: &wgpu::Queue, profile: DeviceProfile) -> Self {
        let profile = profile.within(&DeviceProfile::of(device));
        let varying = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some("hydralora varying"),
            entries: &[entry(0, BindingKind::Uniform)],
        });
        let shared = Shared {
            device: device.clone(),
            queue: queue.clone(),
            varying,
            pipelines: Cache::default(),
            uniforms: Cache::default(),
        };
        let planner = Planner::new(profile);
        Self { planner, pooled: false, shared: Arc::new(shared), prepared: Arc::default() }
    }

    /// The same kernels, planned with `tuning`. Both share all pipelines and uniforms, those made later too.
    #[must_use]
    pub fn with_tuning(&self, tuning: Tuning) -> Self {
        let planner = Planner { tuning, ..self.planner.clone() };
        Self { planner, prepared: Arc::default(), ..self.clone() }
    }

    /// The same kernels for tensors in pools. Their shaders declare read-only tensors as written too, so that
    /// the tensors that an operation reads and those that it writes may lie in one buffer, in ranges that do
    /// not overlap.
    #[must_use]
    pub fn pooled(&self) -> Self {
        Self { pooled: true, prepared: Arc::default(), ..self.clone() }
    }

    /// The planner: the profile and the tuning table that plans are made with.
    #[must_use]
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// The device profile that plans are made for.
    #[must_use]
    pub fn profile(&self) -> &DeviceProfile {
        &self.planner.profile
    }

    /// Plans and compiles an operation on a layer for batches of up to `capacity` tokens. The result is kept,
    /// so asking again, such as for the next layer with the same configuration, costs only a look-up.
    ///
    /// # Errors
    /// Those of [`Planner::plan`], and everything that wgpu reports. In a browser also
    /// [`Error::NotYetKnown`], unless [`Kernels::prepare_async`] or [`Kernels::warm_async`] came first.
    pub fn prepare(
        &self,
        operation: &Operation,
        config: &Config,
        capacity: impl Into<Capacity>,
    ) -> Result<Prepared, Error> {
        let capacity = capacity.into();
        let key = (*operation, *config, capacity);
        if let Some(prepared) = lock(&self.prepared).get(&key) {
            return Ok(prepared.clone());
        }
        let recordings = self.planner.plan_all(operation, config, capacity)?;
        let prepared = Prepared::new(self, recordings)?;
        Ok(lock(&self.prepared).entry(key).or_insert(prepared).clone())
    }

    /// Like [`Kernels::prepare`], for browsers, where wgpu reports later whether a pipeline compiled.
    /// Failures are not kept.
    ///
    /// # Errors
    /// Those of [`Planner::plan`], and everything that wgpu reports.
    pub async fn prepare_async(
        &self,
        operation: &Operation,
        config: &Config,
        capacity: impl Into<Capacity>,
    ) -> Result<Prepared, Error> {
        let capacity = capacity.into();
        let key = (*operation, *config, capacity);
        if let Some(prepared) = lock(&self.prepared).get(&key) {
            return Ok(prepared.clone());
        }
        let recordings = self.planner.plan_all(operation, config, capacity)?;
        self.warm_async(recordings.iter().flat_map(Recording::shaders)).await?;
        let prepared = Prepared::new(self, recordings)?;
        Ok(lock(&self.prepared).entry(key).or_insert(prepared).clone())
    }

    /// Compiles recordings of one operation on one layer, for different numbers of tokens, the smallest
    /// first. They come from the caller's own [`Planner`], such as from [`Planner::candidates`].
    ///
    /// # Errors
    /// Recordings that do not belong together, or that were planned for a device with more than this one
    /// guarantees; everything that wgpu reports.
    pub fn prepare_recordings(&self, recordings: Vec<Recording>) -> Result<Prepared, Error> {
        self.check_recordings(&recordings)?;
        Prepared::new(self, recordings)
    }

    /// Like [`Kernels::prepare_recordings`], for browsers, where wgpu reports later whether a pipeline compiled.
    ///
    /// # Errors
    /// Those of [`Kernels::prepare_recordings`].
    pub async fn prepare_recordings_async(&self, recordings: Vec<Recording>) -> Result<Prepared, Error> {
        self.check_recordings(&recordings)?;
        self.warm_async(recordings.iter().flat_map(Recording::shaders)).await?;
        Prepared::new(self, recordings)
    }

    /// Whether recordings belong together, and fit the device.
    fn check_recordings(&self, recordings: &[Recording]) -> Result<(), Error> {
        let Some(largest) = recordings.last() else {
            return Err(Error::Recordings { reason: "there are none" });
        };
        if !recordings.is_sorted_by(|fewer, more| fewer.capacity < more.capacity) {
            return Err(Error::Recordings { reason: "their capacities do not rise from one to the next" });
        }
        let same = |recording: &Recording| {
            let fewer = recording.tensors.iter().zip(&largest.tensors).all(|(a, b)| a.is_smaller(b));
            recording.operation == largest.operation
                && recording.tensors.len() == largest.tensors.len()
                && fewer
        };
        if !recordings.iter().all(same) {
            return Err(Error::Recordings { reason: "they are of different operations or layers" });
        }
        for recording in recordings {
            for step in &recording.steps {
                step.check(recording.capacity, self.profile())?;
            }
        }
        Ok(())
    }

    /// Compiles a recording unless it was compiled before, and binds the caller's tensors to it: see
    /// [`Prepared::bind`].
    ///
    /// # Errors
    /// Everything that wgpu reports, and the errors of [`Prepared::bind`].
    pub fn bind(&self, recording: &Recording, tensors: &[(&str, Tensor<'_>)]) -> Result<Bound, Error> {
        self.prepare_recordings(vec![recording.clone()])?.bind(tensors)
    }

    /// Like [`Kernels::bind`], for browsers, where wgpu reports later whether a pipeline compiled.
    ///
    /// # Errors
    /// Those of [`Kernels::bind`].
    pub async fn bind_async(
        &self,
        recording: &Recording,
        tensors: &[(&str, Tensor<'_>)],
    ) -> Result<Bound, Error> {
        self.prepare_recordings_async(vec![recording.clone()]).await?.bind(tensors)
    }

    /// Binds a recording from this planner, which needs no check.
    pub(crate) fn bind_own(
        &self,
        recording: &Recording,
        tensors: &[(&str, Tensor<'_>)],
    ) -> Result<Bound, Error> {
        Prepared::new(self, vec![recording.clone()])?.bind(tensors)
    }

    /// Compiles shaders ahead of their first use, such as those of [`Recording::shaders`].
    ///
    /// # Errors
    /// The device lacks a limit or wgpu refuses the pipeline.
    pub fn warm(&self, shaders: impl IntoIterator<Item = Shader>) -> Result<(), Error> {
        for shader in shaders {
            self.pipeline(&shader)?;
        }
        Ok(())
    }

    /// Like [`Kernels::warm`], for browsers, where wgpu reports later whether a pipeline compiled.
    /// Afterwards, operations with these shaders can be prepared and bound at once. Failures are not kept.
    ///
    /// # Errors
    /// Those of [`Kernels::warm`].
    pub async fn warm_async(&self, shaders: impl IntoIterator<Item = Shader>) -> Result<(), Error> {
        let missing = shaders.into_iter().filter(|shader| !self.is_compiled(shader));
        // All start before the first is awaited, so that a browser compiles them at the same time.
        let compiling: Vec<_> = missing.map(|shader| (self.compile(&shader), shader)).collect();
        for (compiling, shader) in compiling {
            let pipeline = Arc::new(compiling.await?);
            let place = place(&self.shared.pipelines, (shader, self.pooled));
            lock(&place).get_or_insert(pipeline);
        }
        Ok(())
    }

    /// Number of pipelines compiled so far.
    #[must_use]
    pub fn compiled(&self) -> usize {
        let places: Vec<_> = lock(&self.shared.pipelines).values().cloned().collect();
        places.into_iter().filter(|place| lock(place).is_some()).count()
    }

    /// Checks every tensor by itself, and that no written tensor covers bytes of another one.
    pub(crate) fn check(&self, tensors: &[(&Operand, Tensor<'_>)]) -> Result<(), Error> {
        let bound = tensors.iter().map(|&(operand, tensor)| tensor::Given { operand, tensor });
        tensor::check(&bound.collect::<Vec<_>>(), self.pooled, &self.profile().limits)
    }

    /// A storage buffer of zeros that can also be copied from and to.
    pub(crate) fn storage(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer, Error> {
        let copies = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        self.shared.buffer(label, bytes, wgpu::BufferUsages::STORAGE | copies)
    }

    pub(crate) fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    pub(super) fn is_pooled(&self) -> bool {
        self.pooled
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn is_compiled(&self, shader: &Shader) -> bool {
        let place = lock(&self.shared.pipelines).get(&(shader.clone(), self.pooled)).cloned();
        place.is_some_and(|place| lock(&place).is_some())
    }

    fn compile(&self, shader: &Shader) -> impl Future<Output = Result<Pipeline, Error>> + use<> {
        let source = shader.source();
        let source = if self.pooled { source.pooled() } else { source };
        compile(&self.shared.device, source, &self.shared.varying)
    }

    pub(super) fn pipeline(&self, shader: &Shader) -> Result<Arc<Pipeline>, Error> {
        made_once(&self.shared.pipelines, (shader.clone(), self.pooled), || {
            at_once("compiling a shader", self.compile(shader))
        })
    }

    /// A uniform buffer with these contents, shared by all steps that need the same contents.
    pub(super) fn uniform(&self, bytes: &[u8]) -> Result<Arc<wgpu::Buffer>, Error> {
        made_once(&self.shared.uniforms, bytes.to_vec(), || self.shared.uniform("hydralora uniform", bytes))
    }

    /// A new uniform that changes, bound as group 1. It is not shared.
    pub(crate) fn varied(&self, label: &'static str, bytes: &[u8]) -> Result<Varied, Error> {
        let Shared { device, varying, .. } = &*self.shared;
        let buffer = self.shared.uniform(label, bytes)?;
        let bind_group = scoped(device, "binding a uniform buffer", || {
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(label),
                layout: varying,
                entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
            })
        })?;
        Ok(Varied { buffer, bind_group })
    }
}

impl Shared {
    /// A uniform buffer that holds `bytes`. It is not mapped at creation, because a browser short of memory
    /// answers that with an exception.
    fn uniform(&self, label: &str, bytes: &[u8]) -> Result<wgpu::Buffer, Error> {
        scoped(&self.device, "creating a uniform buffer", || {
            let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                // Devices without arbitrary binding sizes want whole 16-byte units.
                size: (bytes.len() as u64).next_multiple_of(16),
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            self.queue.write_buffer(&buffer, 0, bytes);
            buffer
        })
    }

    /// A storage buffer that the library owns.
    pub(crate) fn scratch(&self, bytes: u64) -> Result<wgpu::Buffer, Error> {
        self.buffer("hydralora scratch", bytes, wgpu::BufferUsages::STORAGE)
    }

    fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer, Error> {
        let size = bytes.next_multiple_of(4);
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        scoped(&self.device, &format!("creating the buffer {label}"), || {
            self.device.create_buffer(&descriptor)
        })
    }
}

/// A uniform that changes, bound as group 1.
#[derive(Debug)]
pub(crate) struct Varied {
    buffer: wgpu::Buffer,
    bind_group: wgpu::BindGroup,
}

impl Varied {
    pub(crate) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    pub(crate) fn write(&self, queue: &wgpu::Queue, bytes: &[u8]) {
        queue.write_buffer(&self.buffer, 0, bytes);
    }

    pub(crate) fn bind_group(&self) -> &wgpu::BindGroup {
        &self.bind_group
    }
}

/// The place of `key` in `cache`.
fn place<K: Eq + Hash, V>(cache: &Cache<K, V>, key: K) -> Place<V> {
    Arc::clone(lock(cache).entry(key).or_default())
}

/// The value that `cache` has at `key`, or else the value from `make`. Failures are not kept.
fn made_once<K: Eq + Hash, V>(
    cache: &Cache<K, V>,
    key: K,
    make: impl FnOnce() -> Result<V, Error>,
) -> Result<Arc<V>, Error> {
    let place = place(cache, key);
    let mut place = lock(&place);
    if let Some(made) = &*place {
        return Ok(Arc::clone(made));
    }
    let made = Arc::new(make()?);
    *place = Some(Arc::clone(&made));
    Ok(made)
}

/// Locks even after a thread panicked with the lock: the guarded value is always consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
