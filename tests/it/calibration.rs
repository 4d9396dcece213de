//! Measuring what a device can do.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use hydralora::calibration::Calibration;
use hydralora::device::Gpu;
use hydralora::stopwatch::{Clock, Stopwatch};
use hydralora::tuner::Tuner;
use hydralora::{
    AdamW, AdamWBuffers, AdamWDescriptor, Config, DeviceProfile, Element, Error, Kernels, Operation, wgpu,
};

use crate::common::{GPU, adapter};

static MEASURED: LazyLock<Calibration> =
    LazyLock::new(|| Calibration::measure(&GPU).expect("it is measured"));

#[test]
fn numbers_are_a_devices() {
    let Calibration { numbers, clock, seconds, bandwidths } = *MEASURED;
    println!("{clock}: {numbers:#?}, in {seconds} s; {bandwidths:?}");
    assert!((1e-6..60.0).contains(&seconds), "{seconds}");
    // Those that were tried come first.
    let tried = bandwidths.iter().take_while(|&&bandwidth| bandwidth > 0.0).count();
    assert!(tried > 1 && bandwidths[tried..].iter().all(|&bandwidth| bandwidth == 0.0), "{bandwidths:?}");
    numbers.check().expect("positive and finite");
    // Between a small board's processor and the largest GPUs.
    assert!((1e8..1e14).contains(&numbers.memory_bandwidth), "{numbers:?}");
    assert!((1e8..1e15).contains(&numbers.multiply_adds), "{numbers:?}");
    assert!((1e8..1e16).contains(&numbers.load_bandwidth), "{numbers:?}");
    assert!((1e8..1e16).contains(&numbers.cache_bandwidth), "{numbers:?}");
    assert!((1e-9..1e-2).contains(&numbers.memory_latency), "{numbers:?}");
    assert!((1e-9..1e-2).contains(&numbers.cache_latency), "{numbers:?}");
    assert!(numbers.launch < 0.1 && numbers.gap < 0.1, "{numbers:?}");
    assert!((1..=4096).contains(&numbers.cores), "{numbers:?}");
    // From what a walk has in flight at least, in three digits, to what all threads together have.
    assert!((1020.0..=4096.0 * 1024.0).contains(&numbers.bytes_in_flight), "{numbers:?}");
}

#[test]
fn a_calibration_changes_what_is_planned_on_gpus_alone() {
    let profile = DeviceProfile::of(&GPU.device);
    let calibrated = profile.clone().calibrated(MEASURED.numbers);
    assert_eq!(calibrated.numbers, MEASURED.numbers);
    assert_eq!(profile.limits, calibrated.limits);
    if !profile.software {
        assert_eq!(calibrated.busy_workgroups, MEASURED.numbers.busy_workgroups());
        return;
    }
    let kernels =
        [profile, calibrated].map(|profile| Kernels::with_profile(&GPU.device, &GPU.queue, profile));
    let config = Config { d_in: 512, d_out: 256, rank: 8, experts: 4, ..Config::DEFAULT };
    for operation in Operation::training_step(Element::F32) {
        let [plain, calibrated] =
            kernels.each_ref().map(|kernels| kernels.planner().plan(&operation, &config, 64));
        assert_eq!(plain, calibrated);
    }
}

/// As in browsers, whose clocks are coarse.
#[test]
fn short_work_is_repeated_until_the_clock_can_tell_it() {
    let least = Duration::from_millis(20);
    let buffer = GPU.zeroed("moments", 256).expect("it fits");
    let parameters = GPU.zeroed("parameters", 128).expect("it fits");
    let gradients = GPU.zeroed("gradients", 128).expect("it fits");
    let buffers = AdamWBuffers {
        elements: 128,
        parameters: (&parameters).into(),
        gradients: (&gradients).into(),
        moments: (&buffer).into(),
    };
    let kernels = Kernels::new(&GPU.device, &GPU.queue);
    let descriptor = AdamWDescriptor { buffers: &[buffers], ..AdamWDescriptor::default() };
    let short = AdamW::prepare(&kernels, &descriptor).expect("it fits");
    let (runs, begin) = (Cell::new(0_u32), Instant::now());
    let stopwatch = Stopwatch::new(&GPU).expect("it fits").at_least(least);
    let time = stopwatch.time(|pass| {
        runs.set(runs.get() + 1);
        short.encode(pass);
        Ok(())
    });
    let time = time.expect("it runs");
    assert!(begin.elapsed() >= least && runs.get() > 1, "{} runs in {:?}", runs.get(), begin.elapsed());
    // The mean of the last pass, which had at least half of all runs.
    assert!(time > Duration::ZERO && time * runs.get() >= least, "{time:?} each, {} runs", runs.get());
    assert!(time < least, "{time:?}");
}

#[test]
fn a_tuner_keeps_its_calibration() {
    let mut tuner = Tuner::new(&GPU.device);
    assert_eq!(tuner.calibration(), None);
    assert_eq!(tuner.profile(&GPU.device), DeviceProfile::of(&GPU.device));
    let measured = *tuner.calibrate(&GPU).expect("it is measured");
    let path = std::env::temp_dir().join(format!("hydralora-calibration-{}.json", std::process::id()));
    tuner.save(&path).expect("the folder can be written");
    let loaded = Tuner::load(&path, &GPU.device);
    assert_eq!(loaded.calibration(), Some(&measured), "bit for bit");
    assert_eq!(loaded, tuner);
    assert_eq!(loaded.profile(&GPU.device).numbers, measured.numbers);
    // Numbers that no device has are no calibration.
    let text = std::fs::read_to_string(&path).expect("it was written");
    let mut file: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    file["calibration"]["numbers"]["gap"] = (-1.0).into();
    std::fs::write(&path, file.to_string()).expect("the folder can be written");
    assert_eq!(Tuner::load(&path, &GPU.device), Tuner::new(&GPU.device));
    std::fs::remove_file(&path).expect("it is there");
}

/// A device of this test's own.
fn device(required_features: wgpu::Features) -> Gpu {
    let descriptor = wgpu::DeviceDescriptor { required_features, ..Default::default() };
    let request = adapter().request_device(&descriptor);
    let (device, queue) = pollster::block_on(request).expect("every device has WebGPU's default limits");
    Gpu { device, queue }
}

#[test]
fn the_hosts_clock_does_where_the_device_has_none() {
    let gpu = device(wgpu::Features::empty());
    let Calibration { numbers, clock, .. } = Calibration::measure(&gpu).expect("it is measured");
    assert_eq!(clock, Clock::Wall);
    numbers.check().expect("positive and finite");
    // The host's part of a launch is not taken for the device's.
    assert_eq!(numbers.launch, numbers.gap);
}

#[test]
fn a_lost_device_is_an_error() {
    let gpu = device(wgpu::Features::empty());
    gpu.device.destroy();
    let lost = Calibration::measure(&gpu);
    assert!(matches!(lost, Err(Error::Device { .. })), "{lost:?}");
}
