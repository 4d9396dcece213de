//! The shapes to measure. By default these are a few that show each dependence; on demand, every combination
//! that people train.

use std::fmt::{self, Display};
use std::str::FromStr;

/// A layer and a number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    pub tokens: u32,
    pub d_in: u32,
    pub d_out: u32,
    pub rank: u32,
    pub experts: u32,
}

/// The projections of LLaMA-2-7B, as `d_in` and `d_out`.
const WIDTHS: [[u32; 2]; 3] = [[4096, 4096], [4096, 11008], [11008, 4096]];
const RANKS: [u32; 4] = [4, 8, 16, 32];
const EXPERTS: [u32; 4] = [1, 3, 4, 8];
const TOKENS: [u32; 5] = [1, 16, 128, 1024, 4096];

/// The shape for which the project states its targets.
pub const REFERENCE: Shape = Shape { tokens: 2048, d_in: 4096, d_out: 4096, rank: 8, experts: 4 };

/// Shapes that the combinations leave out: odd rows and experts, plain LoRA at a large rank, and a projection
/// of LLaMA-2-13B with six experts; and two at which the library was once slower than the concatenated form.
const OTHERS: [Shape; 5] = [
    Shape { tokens: 33, d_in: 4097, d_out: 4099, rank: 7, experts: 5 },
    Shape { tokens: 128, rank: 64, experts: 1, ..REFERENCE },
    Shape { tokens: 16, d_in: 5120, d_out: 13824, rank: 16, experts: 6 },
    Shape { tokens: 300, d_in: 5120, d_out: 13824, rank: 16, experts: 6 },
    Shape { tokens: 1, d_in: 8192, d_out: 8192, rank: 16, experts: 3 },
];

/// What is measured on GPUs besides, and takes software drivers too long: a batch that fills them.
pub const ON_GPUS: Shape = Shape { tokens: 4096, ..REFERENCE };

/// The reference, varied in one direction at a time: tokens, widths, rank and experts; and the other shapes.
pub fn small() -> Vec<Shape> {
    let tokens = [1, 4, 16, 64, 128].map(|tokens| Shape { tokens, ..REFERENCE });
    let widths = WIDTHS[1..].iter().map(|&[d_in, d_out]| Shape { tokens: 128, d_in, d_out, ..REFERENCE });
    let adapters = [(4, 1), (8, 1), (16, 1), (8, 3), (16, 4), (32, 4), (32, 8)];
    let adapters = adapters.map(|(rank, experts)| Shape { tokens: 128, rank, experts, ..REFERENCE });
    tokens.into_iter().chain(widths).chain(adapters).chain(OTHERS).chain([REFERENCE]).collect()
}

/// Every combination of the shapes that people train, and the other shapes.
pub fn full() -> Vec<Shape> {
    let mut shapes = vec![REFERENCE];
    for [d_in, d_out] in WIDTHS {
        for rank in RANKS {
            for experts in EXPERTS {
                shapes.extend(TOKENS.map(|tokens| Shape { tokens, d_in, d_out, rank, experts }));
            }
        }
    }
    shapes.extend(OTHERS);
    shapes
}

impl Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, d_in, d_out, rank, experts } = self;
        write!(f, "T={tokens} {d_in}x{d_out} r={rank} N={experts}")
    }
}

/// Parses five numbers with commas: tokens, `d_in`, `d_out`, rank, experts.
impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<u32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
        match numbers.as_deref() {
            Ok(&[tokens, d_in, d_out, rank, experts]) => Ok(Self { tokens, d_in, d_out, rank, experts }),
            _ => Err(format!("{text:?} is no shape: write TOKENS,D_IN,D_OUT,RANK,EXPERTS")),
        }
    }
}
