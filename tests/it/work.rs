//! A test of speed that a noisy machine cannot disturb: how much work plans do beyond what the layer needs,
//! and how evenly this work grows.

use hydralora::{
    BackwardInputOptions, BackwardParamsOptions, Config, DeviceProfile, Element, ForwardOptions, Operation,
    Planner, Router, Work, WriteMode, wgpu,
};

/// The projections of LLaMA-2-7B.
const WIDTHS: [[u32; 2]; 3] = [[4096, 4096], [4096, 11008], [11008, 4096]];

fn config([d_in, d_out]: [u32; 2], rank: u32, experts: u32) -> Config {
    Config { d_in, d_out, rank, experts, scaling: 2.0, router: Router::Input, ..Default::default() }
}

/// Devices from a software driver on two cores to a wide GPU.
fn devices() -> [DeviceProfile; 3] {
    let device = |busy, subgroup_lanes| DeviceProfile {
        subgroup_lanes,
        ..DeviceProfile::new(wgpu::Limits::default(), busy)
    };
    [DeviceProfile { software: true, ..device(2, 8) }, device(64, 1), device(256, 32)]
}

fn steps() -> [Operation; 3] {
    Operation::training_step(Element::F32)
}

/// The work of the plan, and the least work that the layer needs.
fn work(operation: Operation, config: &Config, tokens: u32, device: &DeviceProfile) -> [Work; 2] {
    let planned = Planner::new(device.clone()).plan(&operation, config, tokens);
    let least = operation.least_work(config, tokens);
    [planned.map(|recording| recording.work), least].map(|work| work.expect("it fits"))
}

/// With enough tokens for every device, plans add only padding. Columns are padded to whole passes (by a
/// sixteenth at most, because passes are equally long), and gradient rows to multiples of four.
#[test]
fn many_tokens_cost_what_they_have_to() {
    for device in devices() {
        for widths in WIDTHS {
            for rank in [4, 8, 16, 32] {
                for experts in [1, 3, 4, 8] {
                    let config = config(widths, rank, experts);
                    for operation in steps() {
                        let [planned, least] = work(operation, &config, 8192, &device);
                        let ratio = planned.flops as f64 / least.flops as f64;
                        let most = match operation {
                            Operation::BackwardParams(_) => {
                                let rows = f64::from(rank + experts + rank * experts);
                                // Each of the two blocks of rows is divided evenly, and padded to multiples
                                // of four.
                                (rows + 2.0 * 15.0) / rows
                            }
                            _ => 1.07,
                        };
                        let name = operation.name();
                        assert!(
                            (1.0..=most).contains(&ratio),
                            "{name} of {config:?}: {ratio:.3} times the operations, at most {most:.3}"
                        );
                        // Splits write copies of the gradients and read them again. A separate shrink writes the
                        // sums of its columns. Plans add nothing else.
                        let added = planned.bytes - least.bytes;
                        let most = match operation {
                            Operation::BackwardParams(_) => 8 * config.layout().expect("it fits").bytes(),
                            _ => 8192 * 4 * u64::from((rank * experts).max(rank + experts)),
                        };
                        assert!(added <= 2 * most, "{name} of {config:?}: {added} more bytes");
                    }
                }
            }
        }
    }
}

/// Costs have no cliffs. One more token costs at most one more tile, and never doubles the cost.
#[test]
fn work_grows_evenly_with_tokens() {
    let config = config([4096, 4096], 8, 4);
    for device in devices() {
        for operation in steps() {
            let mut before = work(operation, &config, 1, &device)[0].flops;
            for tokens in 2..1200 {
                let now = work(operation, &config, tokens, &device)[0].flops;
                let growth = now as f64 / before as f64;
                let most = 2.0f64.min(1.0 + 48.0 / f64::from(tokens)).max(1.05);
                assert!(
                    growth <= most,
                    "{} grows {growth:.2} times from {} to {tokens} tokens on {} workgroups, at most {most:.2}",
                    operation.name(),
                    tokens - 1,
                    device.busy_workgroups
                );
                before = now;
            }
        }
    }
}

#[test]
fn work_is_counted_as_the_formulas_say() {
    let config = config([4096, 4096], 8, 4);
    let (tokens, d) = (2048u64, 4096u64);
    let parameters = 4 * (12 + 32) * d;
    let state = 4 * tokens * 12;
    let product = 2 * tokens * d * (12 + 32);
    for element in [Element::F32, Element::F16] {
        let (write, f32) = (WriteMode::Accumulate, Element::F32);
        let row = element.bytes() * tokens * d;
        let options = ForwardOptions {
            write,
            save: true,
            x: element,
            parameters: f32,
            y: element,
            ..Default::default()
        };
        let forward = Operation::Forward(options).least_work(&config, 2048);
        assert_eq!(forward, Ok(Work { bytes: 3 * row + parameters + state, flops: product }));
        let options = BackwardInputOptions { g: element, dx: Some((element, write)), ..Default::default() };
        let backward = Operation::BackwardInput(options).least_work(&config, 2048);
        assert_eq!(backward, Ok(Work { bytes: 3 * row + parameters + 2 * state, flops: product }));
        let options = BackwardParamsOptions { write, x: element, g: element, ..Default::default() };
        let backward = Operation::BackwardParams(options).least_work(&config, 2048);
        assert_eq!(backward, Ok(Work { bytes: 2 * row + 2 * parameters + 2 * state, flops: product }));
    }
}
