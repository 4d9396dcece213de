//! The shapes that are measured: a few that show each dependence by default, every combination that
//! people train on demand.

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

/// The shape that the project's targets are stated for.
pub const REFERENCE: Shape = Shape { tokens: 2048, d_in: 4096, d_out: 4096, rank: 8, experts: 4 };

/// From the reference in each direction: tokens, widths, rank and experts.
pub fn small() -> Vec<Shape> {
    let tokens = [1, 4, 16, 64, 128].map(|tokens| Shape { tokens, ..REFERENCE });
    let widths = WIDTHS[1..].iter().map(|&[d_in, d_out]| Shape { tokens: 128, d_in, d_out, ..REFERENCE });
    let adapters = [(4, 1), (8, 1), (8, 3), (16, 4), (32, 4), (32, 8)];
    let adapters = adapters.map(|(rank, experts)| Shape { tokens: 128, rank, experts, ..REFERENCE });
    tokens.into_iter().chain(widths).chain(adapters).chain([REFERENCE]).collect()
}

/// Every combination of the shapes that people train.
pub fn full() -> Vec<Shape> {
    let mut shapes = vec![REFERENCE];
    for [d_in, d_out] in WIDTHS {
        for rank in RANKS {
            for experts in EXPERTS {
                shapes.extend(TOKENS.map(|tokens| Shape { tokens, d_in, d_out, rank, experts }));
            }
        }
    }
    shapes
}

impl Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, d_in, d_out, rank, experts } = self;
        write!(f, "T={tokens} {d_in}x{d_out} r={rank} N={experts}")
    }
}

/// Five numbers with commas: tokens, `d_in`, `d_out`, rank, experts.
impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<u32> = text.split(',').filter_map(|number| number.trim().parse().ok()).collect();
        let [tokens, d_in, d_out, rank, experts] = numbers[..] else {
            return Err(format!("{text:?} is no shape: write TOKENS,D_IN,D_OUT,RANK,EXPERTS"));
        };
        Ok(Self { tokens, d_in, d_out, rank, experts })
    }
}
