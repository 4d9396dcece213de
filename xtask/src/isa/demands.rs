//! What is demanded of the kernels' shaders: the numbers that hold today, so that what is gained stays. They
//! are to be tightened whenever a kernel gets better, and are those of the compilers that docs/design.md names.

use super::amd::FAMILIES as AMD;
use super::intel::FAMILIES as INTEL;
use super::{ADDED_IN_FLIGHT, Gpu, IN_FLIGHT, Statistics, WAITS};

/// Of every shader of a kernel that is planned for real layers.
struct Demand {
    kernel: &'static str,
    /// On these GPUs. On others shaders are only held not to spill.
    gpus: &'static [&'static str],
    /// The least loads in flight of any loop that sums; 0 for kernels without one.
    in_flight: u64,
    /// The most waits in an iteration of such a loop.
    waits: u64,
    /// The least loads in flight of any loop that adds to what is there; 0 for kernels without one.
    added: u64,
    /// The most that is spilled, in all: registers, and bytes.
    spilled: u64,
}

const DEMANDS: [Demand; 35] = [
    //                                    in flight, waits, added to, spilled
    demand("forward", &AMD, [4, 3, 4, 0]),
    demand("forward", &["sm_75"], [2, 9, 4, 0]),
    demand("forward", &["sm_89"], [2, 6, 4, 0]),
    demand("forward", &["sm_90"], [2, 6, 4, 0]),
    demand("forward", &INTEL, [1, 10, 1, 512]),
    demand("backward_input", &AMD, [4, 3, 4, 0]),
    demand("backward_input", &["sm_75"], [3, 16, 4, 0]),
    demand("backward_input", &["sm_89"], [1, 6, 4, 0]),
    demand("backward_input", &["sm_90"], [1, 6, 4, 0]),
    demand("backward_input", &INTEL, [1, 13, 1, 512]),
    demand("shrink", &AMD, [8, 3, 0, 0]),
    demand("shrink", &["sm_75"], [5, 7, 0, 0]),
    demand("shrink", &["sm_89"], [5, 7, 0, 0]),
    demand("shrink", &["sm_90"], [6, 7, 0, 4]),
    demand("shrink", &INTEL, [1, 10, 0, 256]),
    demand("backward_params", &AMD, [4, 1, 0, 0]),
    demand("backward_params", &["sm_75"], [1, 4, 0, 0]),
    demand("backward_params", &["sm_89"], [2, 4, 0, 0]),
    demand("backward_params", &["sm_90"], [1, 8, 0, 0]),
    demand("backward_params", &INTEL, [1, 4, 0, 512]),
    // It loads in loops of their own, into workgroup memory.
    demand("linear", &AMD, [0, 0, 0, 0]),
    demand("linear", &["sm_75"], [0, 0, 0, 28]),
    demand("linear", &["sm_89"], [0, 0, 0, 12]),
    demand("linear", &["sm_90"], [0, 0, 0, 0]),
    demand("linear", &INTEL, [0, 0, 0, 640]),
    demand("linear_direct", &AMD, [9, 2, 4, 0]),
    demand("linear_direct", &["sm_75"], [6, 3, 4, 0]),
    demand("linear_direct", &["sm_89"], [4, 7, 4, 0]),
    demand("linear_direct", &["sm_90"], [2, 15, 4, 0]),
    demand("linear_direct", &INTEL, [3, 10, 4, 640]),
    demand("gradient_norm", &AMD, [4, 1, 0, 0]),
    demand("gradient_norm", &["sm_75"], [4, 1, 0, 0]),
    demand("gradient_norm", &["sm_89"], [1, 4, 0, 0]),
    demand("gradient_norm", &["sm_90"], [1, 4, 0, 0]),
    demand("gradient_norm", &INTEL, [3, 2, 0, 0]),
];

const fn demand(
    kernel: &'static str,
    gpus: &'static [&'static str],
    [in_flight, waits, added, spilled]: [u64; 4],
) -> Demand {
    Demand { kernel, gpus, in_flight, waits, added, spilled }
}

/// What a GPU's shaders do not meet. Those that are not planned are only held not to spill. Where shaders are the
/// library's `own`, every kernel must be among them.
pub(super) fn missed(gpu: &Gpu, own: bool) -> Vec<String> {
    let demands: Vec<_> = DEMANDS.iter().filter(|demand| demand.gpus.contains(&gpu.name.as_str())).collect();
    let of = |shader: &str| {
        let (kernel, _) = shader.split_once("_planned_")?;
        demands.iter().find(|demand| demand.kernel == kernel)
    };
    let mut missed = Vec::new();
    for (shader, compiled) in &gpu.shaders {
        let demand = of(shader);
        let most = demand.map_or(0, |demand| demand.spilled);
        let spilled: u64 = gpu.spills.iter().map(|name| compiled.statistics[*name]).sum();
        if spilled > most {
            missed.push(format!("{shader} on {}: {spilled} spilled, at most {most} may be", gpu.name));
        }
        let unmet = demand.into_iter().flat_map(|demand| demand.unmet(&compiled.statistics));
        missed.extend(unmet.map(|reason| format!("{shader} on {}: {reason}", gpu.name)));
    }
    if !own {
        return missed;
    }
    // A bar that looks at nothing would always be cleared.
    let worst = gpu.worst();
    for demand in &demands {
        let has =
            |name| worst.get(&format!("{}_planned", demand.kernel)).is_some_and(|row| row.contains_key(name));
        for (name, number) in [(IN_FLIGHT, demand.in_flight), (ADDED_IN_FLIGHT, demand.added)] {
            if number > 0 && !has(name) {
                missed.push(format!("{} on {}: no loop is found to have {name}", demand.kernel, gpu.name));
            }
        }
    }
    missed
}

impl Demand {
    fn unmet(&self, statistics: &Statistics) -> impl Iterator<Item = String> {
        let least = [(IN_FLIGHT, self.in_flight), (ADDED_IN_FLIGHT, self.added)];
        let least = least.into_iter().filter_map(|(name, least)| {
            let value = *statistics.get(name)?;
            (value < least).then(|| format!("{name} {value}, at least {least} are demanded"))
        });
        let waits = statistics.get(WAITS).filter(|&&waits| self.in_flight > 0 && waits > self.waits);
        let waits = waits.map(|waits| format!("{WAITS} {waits}, at most {} are allowed", self.waits));
        least.chain(waits)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ADDED_IN_FLIGHT, IN_FLIGHT, WAITS};
    use super::demand;

    #[test]
    fn what_is_worse_is_unmet() {
        let demand = demand("forward", &["gfx1100"], [4, 5, 16, 0]);
        let unmet = |in_flight, waits, added| {
            let statistics = [(IN_FLIGHT, in_flight), (WAITS, waits), (ADDED_IN_FLIGHT, added)];
            demand.unmet(&statistics.map(|(name, value)| (name.to_owned(), value)).into()).count()
        };
        assert_eq!([unmet(4, 5, 16), unmet(5, 4, 17)], [0, 0]);
        assert_eq!([unmet(3, 5, 16), unmet(4, 6, 16), unmet(4, 5, 15), unmet(1, 16, 1)], [1, 1, 1, 3]);
        // A shader need not have every kind of loop.
        assert_eq!(demand.unmet(&[].into()).count(), 0);
    }
}
