//! Adapters as safetensors files, with the reference code's names: `fc1.lora_A.weight` (or `lora_A0`, ...),
//! `fc1.lora_B0.weight`, ..., `fc1.lora_route.weight`, and the same for fc2.

use std::collections::HashMap;
use std::path::Path;

use hydralora::{Adapter, Config, Router, Sharing};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::Result;
use crate::base::ADAPTED;

pub fn save(path: &Path, config: &Config, adapters: &[Adapter; 2]) -> Result<()> {
    let [d_in, d_out, rank, experts] =
        [config.d_in, config.d_out, config.rank, config.experts].map(|n| n as usize);
    let router_columns = match config.router {
        Router::Input => d_in,
        Router::Latent => rank,
        Router::GivenWeights | Router::GivenLogits => 0,
    };
    let mut tensors = Vec::new();
    for (layer, adapter) in ADAPTED.iter().zip(adapters) {
        let mut add = |name: &str, shape: [usize; 2], values: &[f32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensors.push((format!("{layer}.{name}.weight"), shape, bytes));
        };
        match config.a {
            Sharing::Shared => add("lora_A", [rank, d_in], &adapter.a),
            Sharing::Separate => {
                for (i, a) in adapter.a.chunks(rank * d_in).enumerate() {
                    add(&format!("lora_A{i}"), [rank, d_in], a);
                }
            }
        }
        add("lora_route", [experts, router_columns], &adapter.router);
        for (i, b) in adapter.b.iter().enumerate() {
            add(&format!("lora_B{i}"), [d_out, rank], b);
        }
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    // One entry, because the order of several would change from run to run.
    let config = serde_json::to_string(&Config { dropout: None, ..*config })?;
    let metadata = HashMap::from([("config".to_owned(), config)]);
    let bytes = safetensors::serialize(views, Some(metadata))?;
    Ok(std::fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))?)
}

pub fn load(path: &Path) -> Result<(Config, [Adapter; 2])> {
    parse(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn parse(path: &Path) -> Result<(Config, [Adapter; 2])> {
    let bytes = std::fs::read(path)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)?;
    let metadata = header.metadata().as_ref().ok_or("there is no metadata")?;
    let file = SafeTensors::deserialize(&bytes)?;
    let config = metadata.get("config").ok_or("the metadata has no `config`")?;
    let config: Config =
        serde_json::from_str(config).map_err(|error| format!("the metadata's `config`: {error}"))?;
    // Packing the adapters checks how many elements each tensor has.
    let values = |layer: &str, name: &str| -> Result<Vec<f32>> {
        let name = format!("{layer}.{name}.weight");
        let tensor = file.tensor(&name)?;
        if tensor.dtype() != Dtype::F32 {
            return Err(format!("{name} is {:?}, but must be F32", tensor.dtype()).into());
        }
        Ok(tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    let adapter = |layer: &str| -> Result<Adapter> {
        Ok(Adapter {
            a: match config.a {
                Sharing::Shared => values(layer, "lora_A")?,
                Sharing::Separate => {
                    let all = (0..config.experts).map(|i| values(layer, &format!("lora_A{i}")));
                    all.collect::<Result<Vec<_>>>()?.concat()
                }
            },
            router: values(layer, "lora_route")?,
            router_bias: Vec::new(),
            b: (0..config.experts)
                .map(|i| values(layer, &format!("lora_B{i}")))
                .collect::<Result<Vec<_>>>()?,
        })
    };
    Ok((config, [adapter(ADAPTED[0])?, adapter(ADAPTED[1])?]))
}
