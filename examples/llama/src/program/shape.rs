//! Shapes of well-known models, to measure without their weights.

use hydralora_llama::config::Config;
use hydralora_llama::rope;

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Shape {
    #[value(name = "smollm2-135m")]
    SmolLm2,
    #[value(name = "llama-3.2-1b")]
    Llama32,
    #[value(name = "llama-2-7b")]
    Llama2,
    #[value(name = "llama-3.1-8b")]
    Llama31,
}

impl Shape {
    pub fn config(self) -> Config {
        let ([blocks, width, hidden], [heads, key_heads, head_width], [vocabulary, context], tied) =
            match self {
                Self::SmolLm2 => ([30, 576, 1536], [9, 3, 64], [49_152, 8192], true),
                Self::Llama32 => ([16, 2048, 8192], [32, 8, 64], [128_256, 131_072], true),
                Self::Llama2 => ([32, 4096, 11_008], [32, 32, 128], [32_000, 4096], false),
                Self::Llama31 => ([32, 4096, 14_336], [32, 8, 128], [128_256, 131_072], false),
            };
        Config {
            blocks,
            width,
            hidden,
            heads,
            key_heads,
            head_width,
            vocabulary,
            context,
            rates: rope::rates(10_000.0, head_width),
            epsilon: 1e-5,
            tied,
        }
    }
}
