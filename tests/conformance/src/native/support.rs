//! The support listing: the cases that each device can run, found without running any.

use std::sync::Arc;

use super::adapters::{NativeDevice, planner};
use crate::cases;

/// Prints every fixed case for each device, with what the device lacks for it.
pub fn print(devices: &[Arc<dyn NativeDevice>]) {
    for device in devices {
        let cases = cases::all();
        let mut supported = 0;
        for case in &cases {
            let job = case.job();
            let planner = planner(device.profile(), case.planning, &job);
            let refused = job.ops.iter().find_map(|op| op.plan(&planner).err());
            supported += usize::from(refused.is_none());
            let verdict = refused.map_or("supported".to_owned(), |error| format!("unsupported: {error}"));
            println!("[{}] {case} ... {verdict}", device.identity().label());
        }
        println!("{}: {supported} of {} cases supported\n", device.identity().label(), cases.len());
    }
}
