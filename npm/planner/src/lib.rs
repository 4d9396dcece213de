//! The part of the npm package that plans. Options come in as JSON, and plans go out as JSON: recordings are data, so
//! the device stays on JavaScript's side.

mod options;

use hydralora::{AdamWHyper, Adapter, Block, Capacity, Config, DeviceProfile, Error, Layout, Operation};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::wasm_bindgen;

use options::{CapacityFields, ConfigFields, Device, HyperFields, OperationNames};

/// An error as JSON: a code, a message, and the numbers.
type Thrown = String;

/// Plans for one device.
#[wasm_bindgen]
pub struct Planner(hydralora::Planner);

#[wasm_bindgen]
impl Planner {
    /// From a device's limits and its adapter's info.
    ///
    /// # Errors
    /// A request that cannot be read.
    #[wasm_bindgen(constructor)]
    pub fn new(request: &str) -> Result<Self, Thrown> {
        let Device { limits, info } = read(request)?;
        Ok(Self(hydralora::Planner::new(DeviceProfile::of_adapter(
            limits.of_wgpu(),
            &info.of_wgpu(),
            hydralora::wgpu::Features::empty(),
        ))))
    }

    /// An operation for up to a number of tokens, as the list of its recordings.
    ///
    /// # Errors
    /// A request that cannot be read, and those of the library's planner.
    pub fn plan(&self, request: &str) -> Result<String, Thrown> {
        #[derive(Deserialize)]
        struct Request {
            #[serde(with = "OperationNames")]
            operation: Operation,
            #[serde(with = "ConfigFields")]
            config: Config,
            #[serde(with = "CapacityFields")]
            capacity: Capacity,
        }
        let Request { operation, config, capacity } = read(request)?;
        self.0.plan_all(&operation, &config, capacity).map_err(thrown).map(|recordings| json(&recordings))
    }

    /// A step of AdamW over buffers with these numbers of elements, as the list of its recordings.
    ///
    /// # Errors
    /// A request that cannot be read, and those of the library's planner.
    pub fn adamw(&self, request: &str) -> Result<String, Thrown> {
        #[derive(Deserialize)]
        struct Request {
            elements: Vec<u64>,
            #[serde(with = "HyperFields")]
            hyper: AdamWHyper,
        }
        let Request { elements, hyper } = read(request)?;
        self.0.adamw(&elements, &hyper).map_err(thrown).map(|recordings| json(&recordings))
    }
}

/// The bytes of AdamW's uniform for a step.
///
/// # Errors
/// A request that cannot be read, or numbers out of range.
#[wasm_bindgen]
pub fn adamw_uniform(
    hyper: &str,
    step: u32,
    learning_rate: f32,
    gradient_scale: f32,
) -> Result<Vec<u8>, Thrown> {
    #[derive(Deserialize)]
    struct Request(#[serde(with = "HyperFields")] AdamWHyper);
    let Request(hyper) = read(hyper)?;
    hyper.uniform(step, learning_rate, gradient_scale).map(Vec::from).map_err(thrown)
}

/// The contents of AdamW's tensor `groups` for a buffer of `elements` parameters with these adapters.
///
/// # Errors
/// A request that cannot be read, or an invalid configuration.
#[wasm_bindgen]
pub fn parameter_groups(elements: usize, adapters: &str) -> Result<Vec<u32>, Thrown> {
    #[derive(Deserialize)]
    struct Given {
        first: usize,
        #[serde(with = "ConfigFields")]
        config: Config,
    }
    let adapters: Vec<Given> = read(adapters)?;
    let place = |given: &Given| Ok((given.first, given.config.layout().map_err(thrown)?));
    let adapters = adapters.iter().map(place).collect::<Result<Vec<_>, Thrown>>()?;
    Ok(hydralora::parameter_groups(elements, &adapters))
}

/// Where each parameter of a layer lies in its packed buffer.
#[wasm_bindgen]
pub struct Packing {
    config: Config,
    layout: Layout,
}

#[wasm_bindgen]
impl Packing {
    /// Of a layer.
    ///
    /// # Errors
    /// A request that cannot be read, or an invalid configuration.
    #[wasm_bindgen(constructor)]
    pub fn new(config: &str) -> Result<Self, Thrown> {
        #[derive(Deserialize)]
        struct Request(#[serde(with = "ConfigFields")] Config);
        let Request(config) = read(config)?;
        Ok(Self { config, layout: config.layout().map_err(thrown)? })
    }

    /// Its blocks and sizes.
    #[must_use]
    pub fn describe(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Described {
            elements: usize,
            parameter_count: u64,
            state_length: u32,
            a_rows: u32,
            shrink: DescribedBlock,
            expand: DescribedBlock,
            gate: Option<DescribedBlock>,
        }
        let Self { config, layout } = self;
        json(&Described {
            elements: layout.len(),
            parameter_count: config.parameter_count(),
            state_length: config.state_len(),
            a_rows: config.a_rows(),
            shrink: layout.shrink().into(),
            expand: layout.expand().into(),
            gate: layout.gate().map(Into::into),
        })
    }

    /// A fresh adapter; with `heads`, whose `B_i` are random in that scale.
    ///
    /// # Errors
    /// A scale that is not finite.
    pub fn initialise(&self, seed: u64, heads: Option<f32>) -> Result<Vec<f32>, Thrown> {
        let adapter = match heads {
            None => Adapter::initialise(&self.config, seed),
            Some(scale) => Adapter::initialise_random_heads(&self.config, seed, scale),
        };
        adapter.and_then(|adapter| self.layout.pack(&adapter)).map_err(thrown)
    }

    /// Packs an adapter's matrices.
    ///
    /// # Errors
    /// A matrix of another length.
    pub fn pack(&self, matrices: &Matrices) -> Result<Vec<f32>, Thrown> {
        self.layout.pack(&matrices.0).map_err(thrown)
    }

    /// Unpacks an adapter's matrices, or their gradients.
    ///
    /// # Errors
    /// A buffer of another length.
    pub fn unpack(&self, packed: &[f32]) -> Result<Matrices, Thrown> {
        self.layout.unpack(packed).map(Matrices).map_err(thrown)
    }
}

/// An adapter's matrices in their natural shapes.
#[wasm_bindgen]
pub struct Matrices(Adapter);

#[wasm_bindgen]
impl Matrices {
    /// An adapter without experts.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(a: Vec<f32>, router: Vec<f32>, router_bias: Vec<f32>) -> Self {
        Self(Adapter { a, router, router_bias, b: Vec::new() })
    }

    /// Adds the next `B_i`.
    pub fn push(&mut self, b: Vec<f32>) {
        self.0.b.push(b);
    }

    /// A.
    #[must_use]
    pub fn a(&self) -> Vec<f32> {
        self.0.a.clone()
    }

    /// The router's `W_g`.
    #[must_use]
    pub fn router(&self) -> Vec<f32> {
        self.0.router.clone()
    }

    /// The router's bias.
    #[must_use]
    pub fn router_bias(&self) -> Vec<f32> {
        self.0.router_bias.clone()
    }

    /// Takes the last `B_i` that is there.
    pub fn pop(&mut self) -> Option<Vec<f32>> {
        self.0.b.pop()
    }
}

#[derive(Serialize)]
struct DescribedBlock {
    offset: usize,
    rows: usize,
    columns: usize,
    stride: usize,
}

impl From<Block> for DescribedBlock {
    fn from(block: Block) -> Self {
        let (offset, rows, columns, stride) = (block.offset(), block.rows(), block.columns(), block.stride());
        Self { offset, rows, columns, stride }
    }
}

fn read<'a, T: Deserialize<'a>>(request: &'a str) -> Result<T, Thrown> {
    serde_json::from_str(request).map_err(|error| {
        let message = error.to_string();
        // The place in the text means nothing to those who did not write it.
        let message = message.split(" at line ").next().unwrap_or_default();
        json(&serde_json::json!({ "code": "InvalidOption", "message": message }))
    })
}

fn thrown(error: Error) -> Thrown {
    #[derive(Serialize)]
    struct Described {
        message: String,
        #[serde(flatten)]
        error: Error,
    }
    json(&Described { message: error.to_string(), error })
}

/// Nothing here fails to be written: all keys are strings.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
