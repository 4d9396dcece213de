//! The packed layout: the place of each parameter in the packed buffer, packing and unpacking.
//!
//! Parameters, gradients and optimiser moments share one layout, so that a gradient buffer is indexed like
//! its parameters, and the optimiser needs one dispatch for each buffer:
//!
//! - the **shrink** block, (rows of A + experts) x `d_in`: the rows of A, then the rows of `W_g`
//!   (latent router: only A);
//! - the **expand** block, (experts * rank) x `d_out`: row `i * rank + j` is column j of `B_i`;
//! - for the latent router or a router's bias, a small **gate** block: a row for each expert, with its row of the latent
//!   router's `W_g`, then its bias.
//!
//! One expert has no router: its shrink block is A alone. Where each expert has an A of its own, the shrink block
//! begins with the rows of `A_0`, then those of `A_1`, and so on.
//!
//! Rows are padded to a multiple of four elements. Padding is zero, and stays zero in training.

use super::adapter::Adapter;
use super::config::Config;
use super::hyper::ParameterGroup;
use crate::error::{Error, Limit};

/// A row-major block of the packed buffer. All numbers count f32 elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    offset: usize,
    rows: usize,
    columns: usize,
}

impl Block {
    /// The block's start, in elements.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements in a row, without padding.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Elements from the start of a row to the start of the next: the columns, rounded up to a multiple of
    /// four.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.columns.next_multiple_of(4)
    }

    /// The block's end, in elements.
    #[must_use]
    pub fn end(&self) -> usize {
        self.offset + self.rows * self.stride()
    }

    /// The elements of `row`, without padding. For a row beyond the last, the range lies beyond this block.
    #[must_use]
    pub fn row(&self, row: usize) -> std::ops::Range<usize> {
        let start = self.offset.saturating_add(row.saturating_mul(self.stride()));
        start..start.saturating_add(self.columns)
    }
}

/// The packed layout of one adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    shrink: Block,
    expand: Block,
    gate: Option<Block>,
    has_bias: bool,
    a_rows: usize,
    rank: usize,
    experts: usize,
}

impl Config {
    /// The place of each parameter in the packed buffer.
    ///
    /// # Errors
    /// A zero dimension, a scaling that is not finite, or more parameters than a 4 GiB buffer holds.
    pub fn layout(&self) -> Result<Layout, Error> {
        Layout::new(self)
    }
}

impl Layout {
    fn new(config: &Config) -> Result<Self, Error> {
        config.check()?;
        let [d_in, d_out, rank, experts] =
            [config.d_in, config.d_out, config.rank, config.experts].map(u64::from);
        // u128, because no product of four 32-bit numbers overflows it.
        let (shrink_rows, gate_columns) = (config.shrink_rows(), config.gate().block_columns(config.rank));
        let [d_in4, d_out4, gate4] =
            [d_in, d_out, gate_columns.into()].map(|n| u128::from(n.next_multiple_of(4)));
        let elements = u128::from(shrink_rows) * d_in4
            + u128::from(experts * rank) * d_out4
            + u128::from(experts) * gate4;
        Error::check_limit(
            "the adapter's packed layout",
            Limit::Elements,
            u64::try_from(elements).unwrap_or(u64::MAX),
            1 << 30,
            "use a smaller rank, fewer experts or a narrower layer",
        )?;
        // All sizes and offsets below have room in usize then, also where that has 32 bits.
        Error::check_host("the adapter's packed layout", elements as u64, 4)?;

        let [d_in, d_out, rank, experts] = [d_in, d_out, rank, experts].map(|n| n as usize);
        let a_rows = config.a_rows() as usize;
        let shrink = Block { offset: 0, rows: shrink_rows as usize, columns: d_in };
        let expand = Block { offset: shrink.end(), rows: experts * rank, columns: d_out };
        let gate = (gate_columns > 0).then(|| Block {
            offset: expand.end(),
            rows: experts,
            columns: gate_columns as usize,
        });
        Ok(Self { shrink, expand, gate, has_bias: config.gate().has_bias(), a_rows, rank, experts })
    }

    /// A and, for the input router, `W_g`: rows x `d_in`.
    #[must_use]
    pub fn shrink(&self) -> Block {
        self.shrink
    }

    /// Every `B_i`, transposed: (experts * rank) x `d_out`.
    #[must_use]
    pub fn expand(&self) -> Block {
        self.expand
    }

    /// The latent router's `W_g` and the router's bias, if there is either: experts x (rank, or 0; and 1 for the
    /// bias).
    #[must_use]
    pub fn gate(&self) -> Option<Block> {
        self.gate
    }

    /// The starts of the expand block and of the gate block, and the end of the layout, in vec4s, for the
    /// kernels' uniforms. Without a gate block, its start is the end.
    pub(crate) fn vecs(&self) -> [u32; 3] {
        let gate = self.gate.map_or(self.len(), |block| block.offset);
        [self.expand.offset, gate, self.len()].map(|elements| (elements / 4) as u32)
    }

    /// Elements in the packed buffer, including padding: a multiple of four.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no configuration has an empty layout")]
    pub fn len(&self) -> usize {
        self.gate.unwrap_or(self.expand).end()
    }

    /// Bytes of a buffer with this layout: parameters, gradients, or half of the optimiser's moments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        4 * self.len() as u64
    }

    /// The group of a parameter; padding counts as part of its row.
    #[must_use]
    pub fn group(&self, element: usize) -> ParameterGroup {
        if element < self.a_rows * self.shrink.stride() {
            ParameterGroup::A
        } else if (self.expand.offset..self.expand.end()).contains(&element) {
            ParameterGroup::B
        } else {
            ParameterGroup::Router
        }
    }

    /// The elements of row j of A.
    fn a_row(&self, j: usize) -> std::ops::Range<usize> {
        self.shrink.row(j)
    }

    /// The elements of row i of `W_g`: none without a router.
    fn router_row(&self, expert: usize) -> std::ops::Range<usize> {
        if self.shrink.rows > self.a_rows {
            return self.shrink.row(self.a_rows + expert);
        }
        let row = self.gate.map_or(0..0, |block| block.row(expert));
        row.start..row.end - usize::from(self.has_bias)
    }

    /// The router's bias of an expert.
    fn bias(&self, expert: usize) -> std::ops::Range<usize> {
        match &self.gate {
            Some(block) if self.has_bias => block.row(expert).end - 1..block.row(expert).end,
            _ => 0..0,
        }
    }

    /// The elements of column j of `B_i`.
    fn b_column(&self, expert: usize, j: usize) -> std::ops::Range<usize> {
        self.expand.row(expert * self.rank + j)
    }

    /// Packs an adapter, with zeros for padding. If the layer has no router or no bias, those of the adapter are
    /// ignored.
    ///
    /// # Errors
    /// A matrix with the wrong number of elements, or the wrong number of matrices `B_i`.
    pub fn pack<T: Copy + Default>(&self, adapter: &Adapter<T>) -> Result<Vec<T>, Error> {
        let (d_in, d_out) = (self.shrink.columns, self.expand.columns);
        let router_columns = self.router_row(0).len();
        Error::check_length("A", self.a_rows * d_in, adapter.a.len())?;
        if router_columns > 0 {
            Error::check_length("W_g", self.experts * router_columns, adapter.router.len())?;
        }
        if self.has_bias {
            Error::check_length("the router's bias", self.experts, adapter.router_bias.len())?;
        }
        Error::check_length("the list of B_i", self.experts, adapter.b.len())?;
        let mut packed = vec![T::default(); self.len()];
        for (j, row) in adapter.a.chunks_exact(d_in).enumerate() {
            packed[self.a_row(j)].copy_from_slice(row);
        }
        for expert in 0..self.experts {
            let row = expert * router_columns..(expert + 1) * router_columns;
            packed[self.router_row(expert)].copy_from_slice(&adapter.router[row]);
            if self.has_bias {
                packed[self.bias(expert)].copy_from_slice(&adapter.router_bias[expert..=expert]);
            }
        }
        for (expert, b) in adapter.b.iter().enumerate() {
            Error::check_length(format_args!("B_{expert}"), d_out * self.rank, b.len())?;
            for j in 0..self.rank {
                for (packed, row) in
                    packed[self.b_column(expert, j)].iter_mut().zip(b.chunks_exact(self.rank))
                {
                    *packed = row[j];
                }
            }
        }
        Ok(packed)
    }

    /// Unpacks the matrices of a packed buffer: parameters, or gradients.
    ///
    /// # Errors
    /// A buffer with the wrong number of elements.
    pub fn unpack<T: Copy>(&self, packed: &[T]) -> Result<Adapter<T>, Error> {
        Error::check_length("the packed buffer", self.len(), packed.len())?;
        let rows = |range: &dyn Fn(usize) -> std::ops::Range<usize>, count: usize| -> Vec<T> {
            (0..count).flat_map(|row| packed[range(row)].iter().copied()).collect()
        };
        let b = (0..self.experts)
            .map(|expert| {
                let columns: Vec<&[T]> = (0..self.rank).map(|j| &packed[self.b_column(expert, j)]).collect();
                (0..self.expand.columns).flat_map(|row| columns.iter().map(move |c| c[row])).collect()
            })
            .collect();
        Ok(Adapter {
            a: rows(&|j| self.a_row(j), self.a_rows),
            router: rows(&|expert| self.router_row(expert), self.experts),
            router_bias: rows(&|expert| self.bias(expert), self.experts),
            b,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Router;

    #[test]
    fn one_expert_has_no_router() {
        for router in [Router::Input, Router::Latent] {
            let config = Config {
                d_in: 8,
                d_out: 12,
                rank: 16,
                experts: 1,
                scaling: 1.0,
                router,
                ..Default::default()
            };
            let layout = config.layout().expect("a valid configuration");
            assert_eq!((layout.shrink().rows(), layout.gate()), (16, None));
            assert_eq!((layout.len() as u64, config.state_len()), (config.parameter_count(), 16));
            let adapter = Adapter::initialise(&config, 1).expect("a valid configuration");
            let packed = layout.pack(&adapter);
            assert_eq!(layout.unpack(packed.as_ref().expect("it fits")).as_ref(), Ok(&adapter));
            // A router that the adapter has anyway, as in the released code's checkpoints, is ignored.
            let routed = Adapter { router: vec![f32::INFINITY; 8], ..adapter };
            assert_eq!(layout.pack(&routed), packed);
        }
    }

    #[test]
    fn a_row_that_is_not_there_is_empty_of_everything() {
        let config = Config {
            d_in: 9,
            d_out: 5,
            rank: 3,
            experts: 2,
            scaling: 1.0,
            router: Router::Latent,
            ..Default::default()
        };
        let layout = config.layout().expect("a valid configuration");
        let blocks = [layout.shrink(), layout.expand(), layout.gate().expect("a latent router")];
        let ends = blocks.map(|block| (block.offset(), block.stride(), block.end()));
        assert_eq!(ends, [(0, 12, 36), (36, 8, 84), (84, 4, 92)]);
        assert_eq!(blocks[1].row(1), 44..49);
        // The row is in no block, and asking for it does not panic.
        assert!(blocks.iter().all(|block| block.row(usize::MAX).start >= block.end()));
    }
}
