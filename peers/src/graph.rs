//! burn's graphs: the operations of the released HydraLoRA code, and the fewest that do the same.

use burn::tensor::activation::softmax;
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor, TensorData};
use hydralora::Config;

use crate::contest::{Outcome, Pass, Problem};

/// The matrices, as burn's linear layers keep them: inputs x outputs.
enum Weights {
    /// Each for itself; every expert applies A anew.
    Official { a: Tensor<2>, router: Tensor<2>, b: Vec<Tensor<2>> },
    /// A beside the router, and the experts below each other: two products in all.
    Concatenated { shrink: Tensor<2>, expand: Tensor<2> },
}

struct Graph {
    device: Device,
    config: Config,
    inputs: Vec<Tensor<2>>,
    weights: Weights,
    /// Held until the device has finished: burn is lazy, and what nobody holds need not be computed.
    results: Vec<Tensor<2>>,
}

/// On a device with autodiff, a forward and backward; otherwise a forward.
pub fn official(device: &Device, problem: &Problem) -> Box<dyn Pass> {
    let Config { d_in, d_out, rank, experts, .. } = problem.config;
    let adapter = &problem.adapter;
    let weights = Weights::Official {
        a: leaf(transposed(&adapter.a, d_in), [d_in, rank], device),
        router: leaf(transposed(&adapter.router, d_in), [d_in, experts], device),
        b: adapter.b.iter().map(|b| leaf(transposed(b, rank), [rank, d_out], device)).collect(),
    };
    graph(device, problem, weights)
}

/// On a device with autodiff, a forward and backward; otherwise a forward.
pub fn concatenated(device: &Device, problem: &Problem) -> Box<dyn Pass> {
    let Config { d_in, d_out, rank, experts, .. } = problem.config;
    let adapter = &problem.adapter;
    let shrink = [&adapter.a[..], &adapter.router].concat();
    let expand = adapter.b.iter().flat_map(|b| transposed(b, rank)).collect();
    let weights = Weights::Concatenated {
        shrink: leaf(transposed(&shrink, d_in), [d_in, rank + experts], device),
        expand: leaf(expand, [experts * rank, d_out], device),
    };
    graph(device, problem, weights)
}

fn graph(device: &Device, problem: &Problem, weights: Weights) -> Box<dyn Pass> {
    let (config, inputs) = (problem.config, inputs(device, problem));
    Box::new(Graph { device: device.clone(), config, inputs, weights, results: Vec::new() })
}

/// The problem's inputs as burn's tensors, of which gradients are wanted on a device with autodiff.
pub fn inputs(device: &Device, problem: &Problem) -> Vec<Tensor<2>> {
    let shape = [problem.tokens, problem.config.d_in];
    problem.inputs.iter().map(|x| leaf(x.clone(), shape, device)).collect()
}

fn leaf(values: Vec<f32>, [rows, columns]: [u32; 2], device: &Device) -> Tensor<2> {
    let tensor = Tensor::from_data(TensorData::new(values, [rows as usize, columns as usize]), device);
    if device.is_autodiff() { tensor.require_grad() } else { tensor }
}

/// A matrix with so many columns, as burn's layers keep it.
pub fn transposed(matrix: &[f32], columns: u32) -> Vec<f32> {
    let columns = columns as usize;
    (0..columns).flat_map(|column| matrix[column..].iter().step_by(columns).copied()).collect()
}

impl Graph {
    fn y(&self, x: &Tensor<2>) -> Tensor<2> {
        let [rank, experts] = [self.config.rank, self.config.experts].map(|n| n as usize);
        let product = |x: &Tensor<2>, matrix: &Tensor<2>| linear(x.clone(), matrix.clone(), None);
        match &self.weights {
            Weights::Official { a, router, b } => {
                let gates = softmax(product(x, router), 1);
                let experts = b.iter().enumerate().map(|(expert, b)| {
                    gates.clone().narrow(1, expert, 1) * product(&product(x, a), b) * self.config.scaling
                });
                experts.reduce(|y, expert| y + expert).expect("there is an expert")
            }
            Weights::Concatenated { shrink, expand } => {
                let tokens = x.dims()[0];
                let state = product(x, shrink);
                let h = state.clone().narrow(1, 0, rank) * self.config.scaling;
                let gates = softmax(state.narrow(1, rank, experts), 1);
                let outer: Tensor<3> = gates.unsqueeze_dim(2) * h.unsqueeze_dim(1);
                product(&outer.reshape([tokens, experts * rank]), expand)
            }
        }
    }

    fn leaves(&self) -> Vec<&Tensor<2>> {
        match &self.weights {
            Weights::Official { a, router, b } => [a, router].into_iter().chain(b).collect(),
            Weights::Concatenated { shrink, expand } => vec![shrink, expand],
        }
    }
}

impl Pass for Graph {
    fn queue(&mut self, input: usize) -> Outcome<()> {
        // Their memory serves again.
        self.clear();
        let x = &self.inputs[input];
        let y = self.y(x);
        if self.device.is_autodiff() {
            let gradients = y.backward();
            let leaves = [x].into_iter().chain(self.leaves());
            let gradients = leaves.map(|leaf| leaf.grad(&gradients).ok_or("burn gives a leaf no gradient"));
            self.results = gradients.collect::<Result<_, _>>()?;
        }
        self.results.insert(0, y.inner());
        Ok(self.device.flush()?)
    }

    fn wait(&self) -> Outcome<()> {
        Ok(self.device.sync()?)
    }

    fn read(&self) -> Outcome<Vec<Vec<f32>>> {
        let Config { d_out, rank, experts, .. } = self.config;
        let [d_out, rank, experts] = [d_out, rank, experts].map(|n| n as usize);
        let mut results = self.results.clone();
        let gradients = results.split_off(results.len().min(2));
        let blocks = match &gradients[..] {
            [] => None,
            [shrink, expand] => Some((shrink.clone(), expand.clone())),
            [a, router, b @ ..] => {
                Some((Tensor::cat(vec![a.clone(), router.clone()], 1), Tensor::cat(b.to_vec(), 0)))
            }
            [_] => unreachable!("A and the router have gradients"),
        };
        if let Some((shrink, expand)) = blocks {
            results.push(shrink.clone().narrow(1, 0, rank).transpose());
            results.push(shrink.narrow(1, rank, experts).transpose());
            let b = expand.reshape([experts, rank, d_out]).swap_dims(1, 2);
            results.push(b.reshape([experts * d_out, rank]));
        }
        Ok(results.into_iter().map(Tensor::try_into_vec_as).collect::<Result<_, _>>()?)
    }

    fn clear(&mut self) {
        self.results.clear();
    }
}
