//! Saves plain LoRA into a folder as PEFT reads it, with what its layers compute: `cargo run --example save_lora DIR`.
//! `cargo xtask peft` gives the folder to PEFT, which has to compute the same.

use std::path::Path;

use hydralora::checkpoint::{self, CheckpointError};
use hydralora::{Adapter, Config};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Modules with ranks and scalings of their own.
const MODULES: [(&str, Config); 3] = [
    (
        "model.layers.0.mlp.up_proj",
        Config { d_in: 24, d_out: 40, rank: 4, experts: 1, scaling: 2.0, ..Config::DEFAULT },
    ),
    (
        "model.layers.0.mlp.down_proj",
        Config { d_in: 40, d_out: 24, rank: 6, experts: 1, scaling: 0.7, ..Config::DEFAULT },
    ),
    (
        "model.layers.1.mlp.up_proj",
        Config { d_in: 24, d_out: 40, rank: 4, experts: 1, scaling: 3.25, ..Config::DEFAULT },
    ),
];
const TOKENS: usize = 9;

fn main() -> Result<(), CheckpointError> {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: save_lora DIR");
        std::process::exit(1);
    };
    let folder = Path::new(&folder);
    let of = |name: &str| {
        let at = MODULES.iter().position(|(own, _)| *own == name).unwrap_or(0);
        Adapter::initialise_random_heads(&MODULES[at].1, at as u64, 1.0)
    };
    checkpoint::save(folder, &MODULES, |name| Ok(of(name)?))?;
    let rng = &mut StdRng::seed_from_u64(1);
    let mut expected = serde_json::Map::new();
    for (name, config) in MODULES {
        let x: Vec<f32> = (0..TOKENS * config.d_in as usize).map(|_| rng.random_range(-1.0..1.0)).collect();
        let y = adapted(&config, &of(name)?, &x);
        let module = serde_json::json!({ "d_in": config.d_in, "d_out": config.d_out, "x": x, "y": y });
        expected.insert(name.to_owned(), module);
    }
    let path = folder.join("expected.json");
    std::fs::write(&path, serde_json::Value::Object(expected).to_string())
        .map_err(|error| CheckpointError::Io { path, error })
}

/// s B A x of every token, in float64.
fn adapted(config: &Config, adapter: &Adapter, x: &[f32]) -> Vec<f64> {
    let product = |matrix: &[f32], columns: u32, vector: &[f64]| -> Vec<f64> {
        let dot = |row: &[f32]| row.iter().zip(vector).map(|(&row, vector)| f64::from(row) * vector).sum();
        matrix.chunks(columns as usize).map(dot).collect()
    };
    let of_token = |token: &[f32]| {
        let token: Vec<f64> = token.iter().copied().map(f64::from).collect();
        let y = product(&adapter.b[0], config.rank, &product(&adapter.a, config.d_in, &token));
        y.into_iter().map(|y| f64::from(config.scaling) * y)
    };
    x.chunks(config.d_in as usize).flat_map(of_token).collect()
}
