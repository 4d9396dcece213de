//! Merging an adapter into the frozen weights, for gates that do not depend on the token.

use crate::element::Element;
use crate::error::Error;
use crate::gpu::{Batch, Bound, Kernels, Prepared, Tensor};
use crate::layer::{
    Adapter, Config, Gate, LinearDirection, LinearOptions, Operation, Sharing, WriteMode, check_number,
};
use crate::plan::{Capacity, Plans};

/// What to merge into which weights.
#[derive(Debug, Clone, Copy)]
pub struct MergeDescriptor<'a> {
    /// The layer.
    pub config: Config,
    /// Its adapter.
    pub adapter: &'a Adapter,
    /// A weight for each expert, which takes the place of the router's. One expert's is 1 unless it is given. The means over some
    /// batches are in the report of [`GateLossesOptions`](crate::GateLossesOptions), but for top-k: that has those before the
    /// choice, so average what forward saves.
    pub gates: Option<&'a [f32]>,
    /// W0, `d_out` x `d_in`, f32, f16 or bf16; updated. What f16 has no room for becomes infinite, and stays so.
    pub weight: Tensor<'a>,
    /// Whether the adapter is taken out again. Rounding stays: keep the weights where they must return bit for bit.
    pub undo: bool,
}

/// A prepared merge, `W0 += s * sum_i w_i B_i A_i`: one dispatch of the frozen layer's kernel, or a few.
#[derive(Debug)]
pub struct Merge {
    bound: Bound,
    batch: Batch,
    // The buffers that `bound` reads.
    _factors: [wgpu::Buffer; 2],
}

impl MergeDescriptor<'_> {
    /// The frozen layer's dx += W0^T g, with A for its weight and a row of W0 for each token.
    fn operation(&self) -> (Operation, Config, Capacity) {
        let options = LinearOptions {
            direction: LinearDirection::Backward,
            write: WriteMode::Accumulate,
            target: self.weight.element(),
            ..LinearOptions::default()
        };
        let layer = Config { d_in: self.config.d_in, d_out: self.config.a_rows(), ..Config::DEFAULT };
        (Operation::Linear(options), layer, Capacity { tokens: self.config.d_out, plans: Plans::One })
    }
}

impl Merge {
    /// Checks everything, uploads the adapter and binds.
    ///
    /// # Errors
    /// Several experts without weights, or with the wrong number of them: a router's depend on the token. Matrices with
    /// wrong shapes, a weight that is too small, and the errors of [`Kernels::prepare`].
    pub fn prepare(kernels: &Kernels, descriptor: &MergeDescriptor<'_>) -> Result<Self, Error> {
        let (operation, layer, capacity) = descriptor.operation();
        Self::bind(kernels, descriptor, &kernels.prepare(&operation, &layer, capacity)?)
    }

    /// Like [`Merge::prepare`], for browsers, where wgpu reports later whether a pipeline compiled.
    ///
    /// # Errors
    /// Those of [`Merge::prepare`].
    pub async fn prepare_async(kernels: &Kernels, descriptor: &MergeDescriptor<'_>) -> Result<Self, Error> {
        let (operation, layer, capacity) = descriptor.operation();
        Self::bind(kernels, descriptor, &kernels.prepare_async(&operation, &layer, capacity).await?)
    }

    fn bind(kernels: &Kernels, descriptor: &MergeDescriptor<'_>, prepared: &Prepared) -> Result<Self, Error> {
        let MergeDescriptor { config, adapter, gates, weight, undo } = *descriptor;
        // Checks the adapter's shapes.
        config.layout()?.pack(adapter)?;
        let mut left = left_factor(&config, adapter, gates)?;
        if undo {
            for number in &mut left {
                *number = -*number;
            }
        }
        let upload = |label: &str, numbers: &[f32]| -> Result<wgpu::Buffer, Error> {
            let buffer = kernels.storage(label, 4 * numbers.len() as u64)?;
            kernels.queue().write_buffer(&buffer, 0, &Element::F32.encode(numbers));
            Ok(buffer)
        };
        let factors = [upload("hydralora merged B", &left)?, upload("hydralora merged A", &adapter.a)?];
        let [b, a] = factors.each_ref().map(Tensor::from);
        let bound = prepared.bind(&[("g", b), ("weight", a), ("dx", weight)])?;
        Ok(Self { bound, batch: Batch::new(kernels, config.d_out)?, _factors: factors })
    }

    /// Encodes the merge.
    ///
    /// # Errors
    /// None, as it has been prepared for as many rows as the weights have.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<(), Error> {
        self.bound.encode(pass, &self.batch)
    }
}

/// How far the outputs of a merged layer are from those of the layer as it was, whose weights depend on the token: what
/// fixing them costs, and what the frozen weights' rounding adds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MergeError {
    /// The root of the mean squared difference.
    pub difference: f64,
    /// The root of the mean squared output of the layer as it was.
    pub output: f64,
    /// The largest difference.
    pub largest: f64,
}

impl MergeError {
    /// Compares the outputs for the same tokens, such as those of a calibration set: `dynamic` with W0 as it was and the
    /// adapter, `merged` with the merged weights alone. A difference that is NaN makes all NaN.
    ///
    /// # Errors
    /// Different numbers of outputs.
    pub fn between(dynamic: &[f32], merged: &[f32]) -> Result<Self, Error> {
        Error::check_length("the merged layer's outputs", dynamic.len(), merged.len())?;
        let root_mean = |squares: f64| (squares / dynamic.len().max(1) as f64).sqrt();
        let [mut differences, mut outputs, mut largest] = [0.0f64; 3];
        for (&dynamic, &merged) in dynamic.iter().zip(merged) {
            let difference = f64::from(merged) - f64::from(dynamic);
            differences += difference * difference;
            outputs += f64::from(dynamic) * f64::from(dynamic);
            // `max` alone would lose a NaN.
            largest = if difference.is_nan() || largest.is_nan() {
                f64::NAN
            } else {
                largest.max(difference.abs())
            };
        }
        Ok(Self { difference: root_mean(differences), output: root_mean(outputs), largest })
    }
}

/// `s * sum_i w_i B_i`, or where each expert has an A of its own, all `s * w_i B_i` side by side: `d_out` x the rows of
/// A.
fn left_factor(config: &Config, adapter: &Adapter, gates: Option<&[f32]>) -> Result<Vec<f32>, Error> {
    let [rank, experts, d_out] = [config.rank, config.experts, config.d_out].map(|n| n as usize);
    let gates = match (gates, config.gate()) {
        (Some(gates), _) => gates,
        (None, Gate::One) => &[1.0],
        (None, _) => {
            let (option, other) =
                ("merging without weights for the experts", "weights that depend on the token");
            return Err(Error::Exclusive { option, other });
        }
    };
    Error::check_length("the experts' weights", experts, gates.len())?;
    for &gate in gates {
        check_number("an expert's weight", gate, gate.is_finite(), "finite")?;
    }
    let columns = config.a_rows() as usize;
    Error::check_host("the factors of a merge", u64::from(config.d_out) * u64::from(config.a_rows()), 8)?;
    let mut left = vec![0.0f64; d_out * columns];
    for (i, (b, &gate)) in adapter.b.iter().zip(gates).enumerate() {
        let first = if config.a == Sharing::Separate { i * rank } else { 0 };
        for (row, b) in left.chunks_exact_mut(columns).zip(b.chunks_exact(rank)) {
            for (sum, &b) in row[first..].iter_mut().zip(b) {
                *sum += f64::from(config.scaling) * f64::from(gate) * f64::from(b);
            }
        }
    }
    let narrow = |number: f64| {
        check_number("a factor of the merged weights", number as f32, (number as f32).is_finite(), "finite")?;
        Ok(number as f32)
    };
    left.into_iter().map(narrow).collect()
}
