//! A small byte-level transformer of burn's own modules.

use burn::module::Module;
use burn::nn::attention::{
    MhaInput, MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask,
};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Int, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use burn_hydralora::{HydraLinear, HydraLoraConfig};

use crate::texts::Batch;

const WIDTH: usize = 128;
pub const CONTEXT: usize = 64;
const LAYERS: usize = 2;
const HEADS: usize = 4;

/// A layer of the feed-forward parts: as it was trained, or frozen and with an adapter.
#[expect(clippy::large_enum_variant, reason = "burn has no boxed modules")]
#[derive(Module, Debug)]
pub enum Projection {
    Plain(Linear),
    Adapted(HydraLinear),
}

impl Projection {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Plain(linear) => linear.forward(x),
            Self::Adapted(layer) => layer.forward(x),
        }
    }

    fn adapted(self, config: &impl Fn(usize, usize) -> HydraLoraConfig, device: &Device) -> Self {
        match self {
            Self::Plain(linear) => {
                let [d_in, d_out] = linear.weight.shape().dims();
                Self::Adapted(HydraLinear::new(linear, config(d_in, d_out).init(device)))
            }
            adapted @ Self::Adapted(_) => adapted,
        }
    }
}

#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    attention: MultiHeadAttention,
    norm2: LayerNorm,
    up: Projection,
    down: Projection,
}

impl Block {
    fn new(device: &Device) -> Self {
        let plain = |d_in, d_out| Projection::Plain(LinearConfig::new(d_in, d_out).init(device));
        Self {
            norm1: LayerNormConfig::new(WIDTH).init(device),
            attention: MultiHeadAttentionConfig::new(WIDTH, HEADS).with_dropout(0.0).init(device),
            norm2: LayerNormConfig::new(WIDTH).init(device),
            up: plain(WIDTH, 4 * WIDTH),
            down: plain(4 * WIDTH, WIDTH),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [sequences, tokens, _] = x.dims();
        let mask = generate_autoregressive_mask(sequences, tokens, &x.device());
        let attended =
            self.attention.forward(MhaInput::self_attn(self.norm1.forward(x.clone())).mask_attn(mask));
        let x = x + attended.context;
        let hidden = gelu(self.up.forward(self.norm2.forward(x.clone())));
        x + self.down.forward(hidden)
    }
}

#[derive(Module, Debug)]
pub struct Transformer {
    bytes: Embedding,
    places: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Transformer {
    pub fn new(device: &Device) -> Self {
        Self {
            bytes: EmbeddingConfig::new(256, WIDTH).init(device),
            places: EmbeddingConfig::new(CONTEXT, WIDTH).init(device),
            blocks: (0..LAYERS).map(|_| Block::new(device)).collect(),
            norm: LayerNormConfig::new(WIDTH).init(device),
            head: LinearConfig::new(WIDTH, 256).init(device),
        }
    }

    /// Logits of the byte after each: sequences x tokens x 256.
    pub fn forward(&self, bytes: Tensor<2, Int>) -> Tensor<3> {
        let [_, tokens] = bytes.dims();
        let places = Tensor::<1, Int>::arange(0..tokens.cast_signed() as i64, &bytes.device()).unsqueeze();
        let x = self.bytes.forward(bytes) + self.places.forward(places);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.head.forward(self.norm.forward(x))
    }

    /// The same, frozen, with an adapter on each layer of its feed-forward parts.
    pub fn adapted(self, config: impl Fn(usize, usize) -> HydraLoraConfig, device: &Device) -> Self {
        let Self { bytes, places, blocks, norm, head } = self.no_grad();
        let adapt = |block: Block| Block {
            up: block.up.adapted(&config, device),
            down: block.down.adapted(&config, device),
            ..block
        };
        Self { bytes, places, blocks: blocks.into_iter().map(adapt).collect(), norm, head }
    }
}

impl InferenceStep for Transformer {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, Batch { inputs, targets }: Batch) -> ClassificationOutput {
        let logits: Tensor<2> = self.forward(inputs).flatten(0, 1);
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        ClassificationOutput::new(loss.forward(logits.clone(), targets.clone()), logits, targets)
    }
}

impl TrainStep for Transformer {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let output = InferenceStep::step(self, batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}
