//! Says what a checkpoint holds: `cargo run --example inspect DIR`. Fails with the reason if it cannot be loaded.

use std::path::Path;
use std::process::ExitCode;

use hydralora::checkpoint::{Checkpoint, CheckpointError};

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: inspect DIR, a folder with adapter_config.json, or a file beside one");
        return ExitCode::FAILURE;
    };
    match inspect(path.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn inspect(path: &Path) -> Result<(), CheckpointError> {
    let checkpoint = Checkpoint::open(path)?;
    let modules = checkpoint.modules();
    let width = modules.iter().map(|module| module.name.len()).max().unwrap_or(0);
    let [mut parameters, mut routers, mut bytes] = [0; 3];
    for module in modules {
        // Numbers that are not finite are found by reading them.
        let router = checkpoint.adapter(&module.name)?.router.len() as u64;
        let own = module.config.parameter_count();
        println!(
            "{:width$}  {}; {}, {own} parameters, {} bytes",
            module.name, module.config, module.element, module.bytes
        );
        parameters += own;
        routers += router;
        bytes += module.bytes;
    }
    println!(
        "{} modules, {parameters} parameters, {} without the routers, {bytes} bytes",
        modules.len(),
        parameters - routers
    );
    if modules.iter().any(|module| module.averages_gates) {
        println!("the gates of all tokens of a batch are averaged");
    }
    if checkpoint.dropout() > 0.0 {
        println!("trained with dropout {}", checkpoint.dropout());
    }
    if checkpoint.fan_in_fan_out() {
        println!("for a model that stores its weights as d_in x d_out");
    }
    Ok(())
}
