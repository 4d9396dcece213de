//! Lists the adapters that `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` leave, best first. Exits with 2
//! where there is none.

use std::process::ExitCode;

use hydralora::device::{adapters_from_env, describe};

fn main() -> ExitCode {
    let adapters = pollster::block_on(adapters_from_env());
    for adapter in &adapters {
        println!("{}", describe(&adapter.get_info()));
    }
    if adapters.is_empty() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}
