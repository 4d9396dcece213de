use proptest::prelude::*;

use super::*;
use crate::layer::{
    BackwardInputOptions, BackwardParamsOptions, Config, ForwardOptions, LinearDirection, LinearOptions,
    Operation, WriteMode,
};
use crate::plan::{Choice, DeviceProfile};
use crate::planner::Planner;

/// An NVIDIA H100, as publications have it.
const WIDE: DeviceNumbers = DeviceNumbers {
    launch: 2.5e-6,
    gap: 2e-6,
    memory_bandwidth: 3e12,
    cache_bandwidth: 5.5e12,
    cache_bytes: 50e6,
    memory_latency: 342e-9,
    cache_latency: 150e-9,
    multiply_adds: 29.7e12,
    load_bandwidth: 29.7e12,
    bytes_in_flight: 2.16e6,
    cores: 132,
    resident_threads: 512,
    workgroup_bytes: 228 << 10,
    registers: 128,
    rows_together: 1,
};

const CONFIG: Config =
    Config { d_in: 4096, d_out: 4096, rank: 8, experts: 4, scaling: 2.0, ..Config::DEFAULT };

fn planner(numbers: DeviceNumbers) -> Planner {
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 31, ..wgpu::Limits::default() };
    let profile = DeviceProfile::new(limits, 1).calibrated(numbers);
    Planner::new(DeviceProfile { subgroup_lanes: 32, ..profile })
}

/// The operations of a training step, of which all but the frozen layer's forward add to their results.
fn operations(element: Element) -> [Operation; 5] {
    let (write, x, y, g) = (WriteMode::Accumulate, element, element, element);
    let (source, weight, target) = (element, element, element);
    let forward = LinearOptions { bias: true, source, weight, target, ..Default::default() };
    let backward = LinearOptions { direction: LinearDirection::Backward, bias: false, write, ..forward };
    [
        Operation::Forward(ForwardOptions { write, save: true, x, y, ..Default::default() }),
        Operation::BackwardInput(BackwardInputOptions { g, dx: Some((x, write)), ..Default::default() }),
        Operation::BackwardParams(BackwardParamsOptions { write, x, g, ..Default::default() }),
        Operation::Linear(forward),
        Operation::Linear(backward),
    ]
}

/// The predicted seconds of all candidates, in their order.
fn seconds(planner: &Planner, operation: &Operation, config: &Config, tokens: u32) -> Vec<f64> {
    let choices = planner.choices(operation, config, tokens).expect("it fits");
    let predict = |choice| planner.predict(choice, operation, config, tokens).expect("it fits");
    choices.into_iter().map(|choice| predict(choice).expect("a GPU").as_secs_f64()).collect()
}

fn numbers() -> impl Strategy<Value = DeviceNumbers> {
    let rates = (1e10..5e12, 1.0..10.0, 1e5..1e8, 1e11..5e13, 1e11..5e13, 1e3..5e6);
    let times = (1e-6..5e-5, 1e-6..5e-5, 1e-8..3e-7, 1.0..5.0);
    (rates, times, 1u32..256, prop::sample::select(&[64u32, 384, 512, 1024, 2048][..]), 32u32..256, 1u32..5)
        .prop_map(|(rates, times, cores, resident_threads, registers, rows_together)| {
            let (memory_bandwidth, faster, cache_bytes, multiply_adds, load_bandwidth, bytes_in_flight) =
                rates;
            let (launch, gap, cache_latency, slower) = times;
            DeviceNumbers {
                launch,
                gap,
                memory_bandwidth,
                cache_bandwidth: faster * memory_bandwidth,
                cache_bytes,
                memory_latency: slower * cache_latency,
                cache_latency,
                multiply_adds,
                load_bandwidth,
                bytes_in_flight,
                cores,
                resident_threads,
                workgroup_bytes: 65_536,
                registers,
                rows_together,
            }
        })
}

/// The same device with one number better.
fn better(numbers: DeviceNumbers) -> [DeviceNumbers; 11] {
    let n = numbers;
    [
        DeviceNumbers { launch: n.launch / 2.0, ..n },
        DeviceNumbers { gap: n.gap / 2.0, ..n },
        // More bandwidth takes more bytes in flight.
        DeviceNumbers {
            memory_bandwidth: 2.0 * n.memory_bandwidth,
            bytes_in_flight: 2.0 * n.bytes_in_flight,
            ..n
        },
        DeviceNumbers { cache_bandwidth: 2.0 * n.cache_bandwidth, ..n },
        DeviceNumbers { cache_bytes: 2.0 * n.cache_bytes, ..n },
        DeviceNumbers { memory_latency: n.memory_latency / 2.0, ..n },
        DeviceNumbers { cache_latency: n.cache_latency / 2.0, ..n },
        DeviceNumbers { multiply_adds: 2.0 * n.multiply_adds, ..n },
        DeviceNumbers { load_bandwidth: 2.0 * n.load_bandwidth, ..n },
        DeviceNumbers { bytes_in_flight: n.bytes_in_flight / 2.0, ..n },
        DeviceNumbers { rows_together: 4 * n.rows_together, ..n },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn predictions_are_times_and_sorted_and_no_better_device_is_slower(
        numbers in numbers(),
        widths in (1u32..3000, 1u32..3000),
        adapter in (1u32..40, 1u32..9),
        tokens in 1u32..5000,
        half in any::<bool>(),
    ) {
        numbers.check().expect("a device's");
        // Half precision has no odd rows.
        let (element, round) = if half { (Element::F16, 4) } else { (Element::F32, 1) };
        let [d_in, d_out] = [widths.0, widths.1].map(|width| width.next_multiple_of(round));
        let config = Config { d_in, d_out, rank: adapter.0, experts: adapter.1, ..CONFIG };
        let device = planner(numbers);
        for operation in operations(element) {
            let times = seconds(&device, &operation, &config, tokens);
            prop_assert!(times.iter().all(|time| time.is_finite() && *time > 0.0));
            prop_assert!(times.is_sorted());
            let choice = device.choices(&operation, &config, tokens).expect("it fits")[0];
            let least = operation.least_work(&config, tokens).expect("it fits");
            prop_assert!(times[0] >= numbers.least_seconds(&least) - 1e-9);
            for better in better(numbers) {
                // The profile's other properties stay, so that the choice stays possible.
                let profile = DeviceProfile { numbers: better, ..device.profile.clone() };
                let time = Planner::new(profile).predict(choice, &operation, &config, tokens);
                let time = time.expect("it fits").expect("a GPU").as_secs_f64();
                prop_assert!(time <= times[0] + 1e-9, "{time} after {} with {better:?}", times[0]);
            }
        }
    }
}

#[test]
fn longer_workgroups_hide_latency() {
    // The same loads by as many workgroups of 64 and of 256 threads, a quarter of the iterations each.
    let phase = |threads: f64| Phase {
        workgroups: 256.0,
        threads,
        iterations: 64.0 * 64.0 / threads,
        chain: WIDE.loaded_latency(),
        memory: 67e6,
        ..Phase::default()
    };
    let [narrow, wide] = [64.0, 256.0].map(|threads| phase(threads).seconds(&WIDE));
    assert!(wide < 0.75 * narrow, "{wide} instead of {narrow}");
    // Nine tenths of the bandwidth at the bytes in flight that are said to give it, if no cache is in the way.
    let device = DeviceNumbers { cache_bandwidth: 1e18, ..WIDE };
    let resident = WIDE.bytes_in_flight / 64.0 / 256.0;
    let filled = Phase { workgroups: resident, iterations: 67e6 / WIDE.bytes_in_flight, ..phase(256.0) };
    let reached = 67e6 / WIDE.memory_bandwidth / filled.seconds(&device);
    assert!((0.88..0.92).contains(&reached), "{reached}");
}

#[test]
fn a_wide_device_gets_threads_enough_to_fill_it() {
    let [forward, ..] = operations(Element::F32);
    let threads = |numbers: DeviceNumbers, tokens| {
        let recording = planner(numbers).plan(&forward, &CONFIG, tokens).expect("it fits");
        let step = recording.steps.last().expect("a step");
        let Some(Choice::Fused(choice)) = recording.choice else { panic!("{:?}", recording.choice) };
        let grid: u32 = step.grid.at(tokens).iter().product();
        (choice.threads * grid, choice)
    };
    let (many, _) = threads(WIDE, 4096);
    assert!(many >= 256 * WIDE.cores, "{many} threads");
    // One token has nothing but slices and splits to spread.
    let (few, choice) = threads(WIDE, 1);
    assert!(choice.slices > 1 && choice.shrink_splits > 1 && few < many, "{choice:?}");
    // A phone repeats no work to fill a width that it does not have.
    let (phone, choice) = threads(DeviceNumbers::PHONE, 4096);
    assert!(phone <= many && choice.slices <= 2, "{choice:?}");
}

#[test]
fn spilled_registers_cost() {
    let [_, backward, ..] = operations(Element::F32);
    let few = DeviceNumbers { registers: 64, ..WIDE };
    let [few, many] = [few, WIDE].map(|numbers| seconds(&planner(numbers), &backward, &CONFIG, 4096)[0]);
    assert!(few > many);
}

#[test]
fn every_operation_has_a_plan_for_64_registers() {
    let [few, many] =
        [64, 1024].map(|registers| planner(DeviceNumbers { registers, ..DeviceNumbers::PHONE }));
    for element in [Element::F32, Element::F16] {
        for operation in operations(element) {
            for tokens in [1, 16, 300] {
                let choices = few.choices(&operation, &CONFIG, tokens).expect("it fits");
                let predict =
                    |planner: &Planner, choice| planner.predict(choice, &operation, &CONFIG, tokens);
                // What spills is predicted to take longer.
                let fits = |&choice: &Choice| predict(&few, choice) == predict(&many, choice);
                assert!(choices.iter().any(fits), "{operation:?} at {tokens} tokens");
            }
        }
    }
}

#[test]
fn a_class_is_known_by_what_its_adapter_reveals() {
    use wgpu::Backend::{BrowserWebGpu, Metal, Vulkan};
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, Other};
    let of = |name: &str, vendor, kind, backend| {
        let info =
            wgpu::AdapterInfo { name: name.to_owned(), vendor, ..wgpu::AdapterInfo::new(kind, backend) };
        let numbers = DeviceNumbers::of(&info);
        numbers.check().expect("a device's");
        numbers
    };
    let phone = of("Apple A17 Pro GPU", 0, IntegratedGpu, Metal);
    assert_eq!(phone, DeviceNumbers::PHONE);
    let cores = ["Apple M1", "Apple M4 Pro", "Apple M3 Max", "Apple M2 Ultra"]
        .map(|name| of(name, 0, IntegratedGpu, Metal).busy_workgroups());
    assert!(cores.is_sorted() && cores[2] > 2 * cores[0], "{cores:?}");
    assert_eq!(of("Mali-G715", 0x13b5, IntegratedGpu, Vulkan).registers, 64);
    assert_eq!(of("Intel Iris", 0x8086, IntegratedGpu, Vulkan), DeviceNumbers::INTEGRATED);
    assert_eq!(of("Whatever", 0x1002, DiscreteGpu, Vulkan), DeviceNumbers::DISCRETE);
    assert_eq!(of("NVIDIA Whatever", 0x10de, DiscreteGpu, Vulkan).rows_together, 1);
    // A browser tells no kind, and wgpu there no vendor.
    let in_browser = |vendor| of("", vendor, Other, BrowserWebGpu);
    assert_eq!(in_browser(0), DeviceNumbers::INTEGRATED);
    assert_eq!(in_browser(0x106b), of("Apple M1", 0, IntegratedGpu, Metal));
    assert_eq!(in_browser(0x13b5), of("Mali-G715", 0x13b5, IntegratedGpu, Vulkan));
    assert_eq!(in_browser(0x10de), of("NVIDIA Whatever", 0x10de, DiscreteGpu, Vulkan));
    // What may be a phone's GPU, or a laptop's, gets no dispatch that takes these a second.
    let bound = |vendor, kind| {
        let info = wgpu::AdapterInfo { vendor, ..wgpu::AdapterInfo::new(kind, BrowserWebGpu) };
        let profile = DeviceProfile::of_adapter(wgpu::Limits::default(), &info, wgpu::Features::empty());
        profile.max_dispatch_flops
    };
    let [phone, laptop, card] = [DeviceNumbers::PHONE, DeviceNumbers::INTEGRATED, DeviceNumbers::DISCRETE]
        .map(|numbers| numbers.dispatch_flops());
    assert_eq!([0, 0x106b, 0x5143].map(|vendor| bound(vendor, Other)), [phone; 3]);
    assert_eq!([0x1002, 0x8086].map(|vendor| bound(vendor, Other)), [laptop; 2]);
    assert_eq!([bound(0x10de, Other), bound(0x1002, DiscreteGpu), bound(0, Cpu)], [card, card, u64::MAX]);
    let wrong = [0.0, -1.0, f64::NAN, f64::INFINITY].map(|gap| DeviceNumbers { gap, ..WIDE }.check());
    assert!(wrong.iter().all(Result::is_err), "{wrong:?}");
}

#[test]
fn software_is_not_predicted() {
    let profile = DeviceProfile { software: true, ..DeviceProfile::new(wgpu::Limits::default(), 4) };
    let calibrated = profile.clone().calibrated(WIDE);
    for operation in operations(Element::F32) {
        let plan = |profile: &DeviceProfile| Planner::new(profile.clone()).plan(&operation, &CONFIG, 128);
        let recording = plan(&profile).expect("it fits");
        assert_eq!(plan(&calibrated), Ok(recording.clone()), "a calibration changes no plan");
        let choice = recording.choice.expect("one of several");
        assert_eq!(Planner::new(calibrated.clone()).predict(choice, &operation, &CONFIG, 128), Ok(None));
    }
}
