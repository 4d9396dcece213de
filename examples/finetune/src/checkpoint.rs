//! Adapters as safetensors files, with the reference code's names: `fc1.lora_A.weight`,
//! `fc1.lora_B0.weight`, ..., `fc1.lora_route.weight`, and the same for fc2.

use std::collections::HashMap;
use std::path::Path;

use hydralora::{Adapter, Config, Router};
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
        add("lora_A", [rank, d_in], &adapter.a);
        add("lora_route", [experts, router_columns], &adapter.router);
        for (i, b) in adapter.b.iter().enumerate() {
            add(&format!("lora_B{i}"), [d_out, rank], b);
        }
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from(
        [
            ("rank", rank.to_string()),
            ("experts", experts.to_string()),
            ("scaling", config.scaling.to_string()),
            ("router", router_name(config.router).to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
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
    let text = |key: &str| metadata.get(key).ok_or_else(|| format!("the metadata has no `{key}`"));
    let number = |key: &str| -> Result<u32> {
        let value = text(key)?;
        Ok(value.parse().map_err(|_| format!("`{key}` is `{value}`, which is no count"))?)
    };
    let scaling = text("scaling")?;
    let [d_out, d_in] = [("lora_B0", 0), ("lora_A", 1)].map(|(name, dimension)| -> Result<u32> {
        let name = format!("{}.{name}.weight", ADAPTED[0]);
        let length = *file.tensor(&name)?.shape().get(dimension).ok_or(format!("{name} is no matrix"))?;
        Ok(u32::try_from(length)?)
    });
    let config = Config {
        d_in: d_in?,
        d_out: d_out?,
        rank: number("rank")?,
        experts: number("experts")?,
        scaling: scaling.parse().map_err(|_| format!("`scaling` is `{scaling}`, which is no number"))?,
        router: router(text("router")?)?,
        ..Default::default()
    };
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
            a: values(layer, "lora_A")?,
            router: values(layer, "lora_route")?,
            router_bias: Vec::new(),
            b: (0..config.experts)
                .map(|i| values(layer, &format!("lora_B{i}")))
                .collect::<Result<Vec<_>>>()?,
        })
    };
    Ok((config, [adapter(ADAPTED[0])?, adapter(ADAPTED[1])?]))
}

fn router_name(router: Router) -> &'static str {
    match router {
        Router::Input => "input",
        Router::Latent => "latent",
        Router::GivenWeights => "given weights",
        Router::GivenLogits => "given logits",
    }
}

fn router(name: &str) -> Result<Router> {
    match name {
        "input" => Ok(Router::Input),
        "latent" => Ok(Router::Latent),
        _ => Err(format!("`router` is `{name}`, but must be `input` or `latent`").into()),
    }
}
