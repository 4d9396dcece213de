//! Lists the adapters that match `WGPU_BACKEND` and `WGPU_ADAPTER_NAME`, the best first: kind, backend, name
//! and driver, separated by tabs. Exits with 2 if there is none.

use std::process::ExitCode;

use hydralora::device::adapters_from_env;

fn main() -> ExitCode {
    let adapters = pollster::block_on(adapters_from_env());
    for adapter in &adapters {
        let info = adapter.get_info();
        let (kind, backend) = (info.device_type, info.backend);
        println!("{kind:?}\t{backend:?}\t{}\t{} {}", info.name, info.driver, info.driver_info);
    }
    if adapters.is_empty() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}
