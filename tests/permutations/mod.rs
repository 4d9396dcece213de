//! Every kind of shader that the library generates.

use std::collections::HashSet;

use hydralora::op::{AdamWPlan, BackwardInputPlan, BackwardParamsPlan, ForwardPlan, LinearPlan};
use hydralora::shader::Shader;
use hydralora::{AdamWHyper, Config, DeviceProfile, LinearDirection, Router, WriteMode, wgpu};

/// Shaders of plans under WebGPU's default limits, over every flag and access, and ranks, experts
/// and token counts that reach every tile.
pub fn permutations() -> Vec<Shader> {
    let mut shaders = HashSet::new();
    let writes = [WriteMode::Overwrite, WriteMode::Accumulate];
    for busy_workgroups in [1, 256] {
        let device = &DeviceProfile { limits: wgpu::Limits::default(), busy_workgroups };
        for [rank, experts] in [[1, 1], [1, 2], [3, 5], [8, 4], [16, 8], [64, 3], [5, 41]] {
            for (d_in, d_out) in [(8, 8), (8, 9), (9, 8), (601, 903)] {
                for router in [Router::Input, Router::Latent] {
                    let config = &Config { d_in, d_out, rank, experts, scaling: 1.0, router };
                    for tokens in [1, 5, 20, 300] {
                        for write in writes {
                            let fits = "these shapes fit";
                            for save in [false, true] {
                                let plan = ForwardPlan::new(config, tokens, write, save, device).expect(fits);
                                shaders.insert(plan.dispatch.shader);
                            }
                            for dx in [None, Some(write)] {
                                let plan = BackwardInputPlan::new(config, tokens, dx, device).expect(fits);
                                shaders.insert(plan.dispatch.shader);
                            }
                            let plan = BackwardParamsPlan::new(config, tokens, write, device).expect(fits);
                            shaders.extend(plan.dispatches.into_iter().map(|dispatch| dispatch.shader));
                        }
                    }
                }
            }
        }
        for [d_in, d_out] in [[8, 8], [8, 9], [9, 8], [9, 9]] {
            for tokens in [1, 9, 17, 100] {
                for write in writes {
                    for (direction, bias) in [
                        (LinearDirection::Forward, false),
                        (LinearDirection::Forward, true),
                        (LinearDirection::Backward, false),
                    ] {
                        let plan = LinearPlan::new(direction, [d_in, d_out, tokens], bias, write, device);
                        shaders.insert(plan.expect("these shapes fit").dispatch.shader);
                    }
                }
            }
        }
        for max_norm in [None, Some(1.0)] {
            let hyper = AdamWHyper { max_norm, ..AdamWHyper::default() };
            let plan = AdamWPlan::new(64, hyper, device).expect("this fits");
            shaders.extend(plan.dispatches.into_iter().map(|dispatch| dispatch.shader));
        }
    }
    shaders.into_iter().collect()
}
