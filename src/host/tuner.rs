//! Times the most promising plans of an operation on a device, and saves the best in files. For stand-alone
//! programs, or an application's settings page: measuring submits and waits.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::element::Element;
use crate::error::Error;
use crate::gpu::{Batch, Bound, Kernels, Tensor};
use crate::host::calibration::Calibration;
use crate::host::device::Gpu;
use crate::host::stopwatch::{Clock, Stopwatch};
use crate::kernel::BindingKind;
use crate::layer::{Config, Operation, SplitMix64};
use crate::plan::{Choice, DeviceProfile, Tuning};
use crate::recording::{Operand, Recording};

/// The version of the files. In another version, choices may have other meanings.
const VERSION: u32 = 4;

/// Measures which plans are best on one device.
///
/// ```no_run
/// use hydralora::{Config, Kernels, Router, device::Gpu, tuner::Tuner};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let config = Config { d_in: 64, d_out: 64, rank: 8, experts: 4, scaling: 2.0, router: Router::Input, ..Default::default() };
/// let gpu = pollster::block_on(Gpu::from_env())?;
/// // What an earlier run measured on this device and driver, or nothing.
/// let mut tuner = Tuner::load("tuning.json", &gpu.device);
/// if tuner.calibration().is_none() {
///     tuner.calibrate(&gpu)?;
/// }
/// tuner.measure_step(&gpu, &config, 128)?;
/// tuner.save("tuning.json")?;
///
/// let kernels = Kernels::with_profile(&gpu.device, &gpu.queue, tuner.profile(&gpu.device))
///     .with_tuning(tuner.tuning().clone());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Tuner {
    device: DeviceName,
    calibration: Option<Calibration>,
    tuning: Tuning,
}

/// The device and driver that measurements hold for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DeviceName {
    adapter: String,
    backend: String,
    driver: String,
    driver_info: String,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    device: DeviceName,
    calibration: Option<Calibration>,
    tuning: Tuning,
}

/// The result of measuring an operation's plans.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// The clock of the times.
    pub clock: Clock,
    /// The best choice, which the tuner has noted.
    pub choice: Choice,
    /// The time of the best choice.
    pub best: Duration,
    /// The time of the choice that was predicted to be best, measured in turn with the best.
    pub predicted: Duration,
    /// All choices that were timed, the one that was predicted to be best first.
    pub timed: Vec<(Choice, Duration)>,
}

/// The most plans that are timed: the most promising ones. Few where a calibration has said what the device
/// can do, and more where the order of plans is a guess, or the software driver's own.
const MOST_TRIALS: usize = 16;
const MOST_CALIBRATED_TRIALS: usize = 5;
/// Number of times that each plan is timed at first. The fastest time counts.
const ROUNDS: usize = 3;
/// Number of times that the best and the predicted plan are timed in turn. The medians count.
const PAIRS: usize = 5;
/// The best plan must be faster than the predicted one by this factor to be noted instead of it.
const WORTH_IT: f64 = 1.02;
/// The copies of the inputs that are used in turn have at least this many bytes together, so that they do not
/// come from caches,
const ROTATED_BYTES: u64 = 64 << 20;
/// unless that takes more copies than this.
const MOST_COPIES: u64 = 16;

impl Tuner {
    /// A tuner that has measured nothing yet.
    #[must_use]
    pub fn new(device: &wgpu::Device) -> Self {
        let info = device.adapter_info();
        let device = DeviceName {
            adapter: info.name,
            backend: info.backend.to_string(),
            driver: info.driver,
            driver_info: info.driver_info,
        };
        Self { device, calibration: None, tuning: Tuning::default() }
    }

    /// A tuner with the measurements that were saved for this device. A file that is missing, is corrupt, or
    /// has another version, device or driver is ignored, with a warning to [`log`] unless it is only missing.
    #[must_use]
    pub fn load(path: impl AsRef<Path>, device: &wgpu::Device) -> Self {
        let path = path.as_ref();
        let empty = Self::new(device);
        let ignored = |why: &str| log::warn!("hydralora: {} is ignored: {why}", path.display());
        match std::fs::read(path) {
            Ok(bytes) => match empty.read(&bytes) {
                Ok(tuner) => return tuner,
                Err(why) => ignored(&why),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => ignored(&error.to_string()),
        }
        empty
    }

    /// A tuner with the measurements that [`Tuner::to_json`] wrote on this device, such as what a page keeps in the
    /// browser's storage.
    ///
    /// # Errors
    /// Text that is corrupt, or of another version, device or driver: measure again.
    pub fn parse(text: &str, device: &wgpu::Device) -> Result<Self, Error> {
        Self::new(device).read(text.as_bytes()).map_err(|reason| Error::Tuning { reason })
    }

    /// All measurements as text, the contents of the file that [`Tuner::save`] writes.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { device, calibration, tuning } = self.clone();
        let file = File { version: VERSION, device, calibration, tuning };
        // It has no maps but those with strings for keys, so nothing can fail.
        serde_json::to_string_pretty(&file).unwrap_or_default()
    }

    fn read(&self, bytes: &[u8]) -> Result<Self, String> {
        /// The field that every version has.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if version != VERSION {
            return Err(format!("it is of version {version}, not {VERSION}"));
        }
        let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if file.device != self.device {
            return Err(format!("it was measured on {:?}, and this is {:?}", file.device, self.device));
        }
        let File { device, calibration, tuning, .. } = file;
        if let Some(calibration) = &calibration {
            calibration.numbers.check().map_err(|error| error.to_string())?;
        }
        Ok(Self { device, calibration, tuning })
    }

    /// Writes all measurements to a file, completely or not at all: a temporary file beside it takes its name
    /// when it is complete.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        replace(path, self.to_json().as_bytes())
            .map_err(|error| Error::File { path: path.display().to_string(), message: error.to_string() })
    }

    /// The measured choices, for [`Kernels::with_tuning`].
    #[must_use]
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// What the device was measured to be, if it was.
    #[must_use]
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// The profile of the device, with what was measured on it, for [`Kernels::with_profile`].
    #[must_use]
    pub fn profile(&self, device: &wgpu::Device) -> DeviceProfile {
        let profile = DeviceProfile::of(device);
        match self.calibration {
            Some(Calibration { numbers, .. }) => profile.calibrated(numbers),
            None => profile,
        }
    }

    /// Measures what the device can do. [`Tuner::measure`] times fewer plans of a GPU afterwards, because
    /// their predicted order is then its own. Not for the web.
    ///
    /// # Errors
    /// Those of [`Calibration::measure`].
    pub fn calibrate(&mut self, gpu: &Gpu) -> Result<&Calibration, Error> {
        gpu.block_on(self.calibrate_async(gpu))?
    }

    /// Like [`Tuner::calibrate`]. On native platforms, the caller has to poll the device meanwhile.
    ///
    /// # Errors
    /// Those of [`Calibration::measure`].
    pub async fn calibrate_async(&mut self, gpu: &Gpu) -> Result<&Calibration, Error> {
        Ok(self.calibration.insert(Calibration::measure_async(gpu).await?))
    }

    /// Measures the operations of an f32 training step: [`Operation::training_step`]. Not for the web.
    ///
    /// # Errors
    /// Those of [`Tuner::measure`].
    pub fn measure_step(
        &mut self,
        gpu: &Gpu,
        config: &Config,
        tokens: u32,
    ) -> Result<[Measurement; 3], Error> {
        gpu.block_on(self.measure_step_async(gpu, config, tokens))?
    }

    /// Like [`Tuner::measure_step`]. On native platforms, the caller has to poll the device meanwhile.
    ///
    /// # Errors
    /// Those of [`Tuner::measure`].
    pub async fn measure_step_async(
        &mut self,
        gpu: &Gpu,
        config: &Config,
        tokens: u32,
    ) -> Result<[Measurement; 3], Error> {
        let [forward, input, params] = Operation::training_step(Element::F32);
        Ok([
            self.measure_async(gpu, config, tokens, forward).await?,
            self.measure_async(gpu, config, tokens, input).await?,
            self.measure_async(gpu, config, tokens, params).await?,
        ])
    }

    /// Times the most promising plans of an operation on random data, and notes the best for this layer and
    /// all numbers of tokens that have the same next power of two as `tokens`.
    ///
    /// Compiles the pipelines of up to sixteen plans, or of up to five on a GPU that was calibrated. Some
    /// drivers take a second for each. Then a GPU works for half a second before anything is timed
    /// ([`Stopwatch::warm_up`]). Not for the web.
    ///
    /// # Errors
    /// A shape that does not fit the device, too little memory, or a lost device.
    pub fn measure(
        &mut self,
        gpu: &Gpu,
        config: &Config,
        tokens: u32,
        operation: Operation,
    ) -> Result<Measurement, Error> {
        gpu.block_on(self.measure_async(gpu, config, tokens, operation))?
    }

    /// Like [`Tuner::measure`]. On native platforms, the caller has to poll the device meanwhile.
    ///
    /// # Errors
    /// Those of [`Tuner::measure`].
    pub async fn measure_async(
        &mut self,
        gpu: &Gpu,
        config: &Config,
        tokens: u32,
        operation: Operation,
    ) -> Result<Measurement, Error> {
        let profile = self.profile(&gpu.device);
        let most_trials = match self.calibration {
            Some(_) if !profile.software => MOST_CALIBRATED_TRIALS,
            _ => MOST_TRIALS,
        };
        let kernels = Kernels::with_profile(&gpu.device, &gpu.queue, profile);
        let planner = kernels.planner();
        let mut choices = promising(planner.choices(&operation, config, tokens)?, most_trials);
        let predicted = planner.plan(&operation, config, tokens)?.choice;
        let trial = Trial::new(gpu, kernels, *config, tokens, operation)?;
        let stopwatch = Stopwatch::new(gpu)?;
        let predicted = predicted.unwrap_or(choices[0]);
        // A driver's bound on loop iterations may refuse a choice that fits the device's limits.
        choices.retain(|&choice| choice != predicted && trial.record(choice).is_ok());
        choices.insert(0, predicted);
        choices.truncate(most_trials);
        let mut trials = Vec::new();
        for choice in choices {
            let prepared = trial.prepare(choice).await?;
            // A run without timing, because some drivers compile a pipeline only when it first runs.
            trial.time(&stopwatch, &prepared).await?;
            trials.push((choice, prepared, Duration::MAX));
        }
        stopwatch.warm_up_async(|pass| trial.encode(&trials[0].1, pass)).await?;
        // In turn, so that a device whose clock changes is fair to all.
        for _ in 0..ROUNDS {
            for (_, prepared, fastest) in &mut trials {
                *fastest = trial.time(&stopwatch, prepared).await?.min(*fastest);
            }
        }
        let timed: Vec<_> = trials.into_iter().map(|(choice, _, fastest)| (choice, fastest)).collect();
        let fastest = timed.iter().min_by_key(|(_, time)| *time);
        let mut choice = fastest.map_or(predicted, |&(choice, _)| choice);
        let pair = [trial.prepare(choice).await?, trial.prepare(predicted).await?];
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..PAIRS {
            for (prepared, times) in pair.iter().zip(&mut times) {
                times.push(trial.time(&stopwatch, prepared).await?);
            }
        }
        let [mut best, of_predicted] = times.map(|mut times| {
            times.sort();
            times[PAIRS / 2]
        });
        if of_predicted.as_secs_f64() < WORTH_IT * best.as_secs_f64() {
            (choice, best) = (predicted, of_predicted);
        }
        self.tuning.set(config, tokens, operation, choice);
        Ok(Measurement { clock: stopwatch.clock(), choice, best, predicted: of_predicted, timed })
    }
}

/// Replaces the contents of a file by `bytes`. If the path is a link, replaces the file that it points to.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    /// Distinguishes the temporary files of several threads.
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    // Browsers have neither files nor processes.
    if cfg!(target_arch = "wasm32") {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let Some(name) = path.file_name().filter(|_| !path.is_dir()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let (temporary, mut file) = loop {
        let mut temporary = name.to_owned();
        temporary.push(format!(".{}-{}.tmp", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed)));
        let temporary = path.with_file_name(temporary);
        match std::fs::File::create_new(&temporary) {
            // Left over from a process that was killed, or made by one on another machine.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => break (temporary, created?),
        }
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    written.and_then(|()| std::fs::rename(&temporary, &path)).inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

/// The choices to time: the first of each kind, then the next best.
fn promising(choices: Vec<Choice>, most: usize) -> Vec<Choice> {
    let mut kinds = Vec::new();
    let (mut firsts, others): (Vec<_>, Vec<_>) = choices.into_iter().partition(|choice| {
        let kind = choice.kind();
        let first = !kinds.contains(&kind);
        kinds.push(kind);
        first
    });
    firsts.extend(others);
    firsts.truncate(most);
    firsts
}

/// An operation with its own random data.
struct Trial {
    kernels: Kernels,
    config: Config,
    tokens: u32,
    operation: Operation,
    batch: Batch,
    /// Several sets of the tensors that are only read. `outputs` is one set of all others.
    inputs: Vec<Tensors>,
    outputs: Tensors,
}

/// Operands with their buffers.
type Tensors = Vec<(Operand, wgpu::Buffer)>;

/// Random data.
struct Noise<'a> {
    gpu: &'a Gpu,
    random: SplitMix64,
}

impl Noise<'_> {
    /// A buffer of numbers that repeat with a period, so that the host needs little memory.
    fn buffer(&mut self, operand: &Operand) -> Result<wgpu::Buffer, Error> {
        const PERIOD: u64 = 1 << 18;
        let (name, element) = (operand.name, operand.element);
        let elements = operand.bytes() / operand.element.bytes();
        let label = format!("hydralora tuner {name}");
        let values: Vec<f32> = (0..elements.min(PERIOD)).map(|_| self.random.uniform()).collect();
        if elements <= PERIOD {
            return self.gpu.upload_as(&label, &values, element);
        }
        let buffer = self.gpu.zeroed_as(&label, usize::try_from(elements).unwrap_or(usize::MAX), element)?;
        let period = self.gpu.upload_as(&label, &values, element)?;
        self.gpu.submit_commands("filling a buffer with random numbers", |encoder| {
            for offset in (0..buffer.size()).step_by(period.size() as usize) {
                let size = period.size().min(buffer.size() - offset);
                encoder.copy_buffer_to_buffer(&period, 0, &buffer, offset, size);
            }
            Ok(())
        })?;
        Ok(buffer)
    }

    fn buffers<'o>(&mut self, operands: impl Iterator<Item = &'o Operand>) -> Result<Tensors, Error> {
        operands.map(|operand| Ok((operand.clone(), self.buffer(operand)?))).collect()
    }
}

impl Trial {
    fn new(
        gpu: &Gpu,
        kernels: Kernels,
        config: Config,
        tokens: u32,
        operation: Operation,
    ) -> Result<Self, Error> {
        let recording = kernels.planner().plan(&operation, &config, tokens)?;
        for operand in &recording.tensors {
            let elements = operand.bytes() / operand.element.bytes();
            gpu.buffer_size(operand.name, elements, operand.element)?;
        }
        let reads = |operand: &&Operand| operand.kind == BindingKind::Read;
        let (inputs, outputs): (Vec<&Operand>, Vec<&Operand>) = recording.tensors.iter().partition(reads);
        let mut noise = Noise { gpu, random: SplitMix64(0) };
        let bytes = inputs.iter().fold(0, |bytes: u64, operand| bytes.saturating_add(operand.bytes()));
        let inputs = (0..ROTATED_BYTES.div_ceil(bytes.max(1)).clamp(1, MOST_COPIES))
            .map(|_| noise.buffers(inputs.iter().copied()))
            .collect::<Result<_, Error>>()?;
        // Outputs that are written before they are read need not be random, but random ones cost the same.
        let outputs = noise.buffers(outputs.into_iter())?;
        let batch = Batch::new(&kernels, tokens)?;
        Ok(Self { kernels, config, tokens, operation, batch, inputs, outputs })
    }

    fn record(&self, choice: Choice) -> Result<Recording, Error> {
        self.kernels.planner().plan_as(choice, &self.operation, &self.config, self.tokens)
    }

    /// The operation planned by `choice`, bound to each set of inputs.
    async fn prepare(&self, choice: Choice) -> Result<Vec<Bound>, Error> {
        let prepared = self.kernels.prepare_recordings_async(vec![self.record(choice)?]).await?;
        let bind = |inputs: &Tensors| {
            let tensors: Vec<_> = inputs
                .iter()
                .chain(&self.outputs)
                .map(|(operand, buffer)| (operand.name, Tensor::from(buffer).of(operand.element)))
                .collect();
            prepared.bind(&tensors)
        };
        self.inputs.iter().map(bind).collect()
    }

    /// The mean time of a run, over all sets of inputs in turn.
    async fn time(&self, stopwatch: &Stopwatch, bound: &[Bound]) -> Result<Duration, Error> {
        Ok(stopwatch.time_async(|pass| self.encode(bound, pass)).await? / bound.len() as u32)
    }

    /// A run with each set of inputs.
    fn encode(&self, bound: &[Bound], pass: &mut wgpu::ComputePass<'_>) -> Result<(), Error> {
        bound.iter().try_for_each(|bound| bound.encode(pass, &self.batch))
    }
}
