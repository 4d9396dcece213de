//! burn's modules: the adapter of `burn-hydralora`, alone and on a frozen layer, and burn's own `Lora` on one, which adds
//! A B to the weights before it uses them.

use std::collections::HashMap;

use burn::module::{Lora, Module, ModuleMapper, Param, ParamId};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use burn_hydralora::{HydraLinear, HydraLora};
use hydralora::{Adapter, Config, Layout};

use crate::contest::{Outcome, Pass, Problem};
use crate::graph::{self, transposed};

struct Trained {
    device: Device,
    layout: Layout,
    inputs: Vec<Tensor<2>>,
    layer: Layer,
    y: Option<Tensor<2>>,
    /// dx, and those of the parameters.
    gradients: Option<(Tensor<2>, Held)>,
}

enum Layer {
    Adapter(HydraLora),
    Hydra(HydraLinear),
    Lora(Linear),
}

/// Gradients of parameters, as a layer has these.
enum Held {
    Packed(Box<Tensor<1>>),
    Factors(Box<[Tensor<2>; 2]>),
}

/// The adapter alone. On a device with autodiff, a forward and backward; otherwise a forward.
pub fn adapter(device: &Device, problem: &Problem) -> Outcome<Box<dyn Pass>> {
    let adapter = HydraLora::try_from_adapter(&problem.config, &problem.adapter, device)?;
    trained(device, problem, Layer::Adapter(adapter))
}

/// The adapter on a frozen layer, and `Lora` on the same, for a problem with one expert.
pub fn layers(device: &Device, problem: &Problem) -> Outcome<[Box<dyn Pass>; 2]> {
    let Config { d_in, d_out, rank, scaling, .. } = problem.config;
    let linear = LinearConfig::new(d_in as usize, d_out as usize).with_bias(false).init(device).no_grad();
    let adapter = HydraLora::try_from_adapter(&problem.config, &problem.adapter, device)?;
    let hydra = Layer::Hydra(HydraLinear::new(linear.clone(), adapter));
    let lora = linear.apply_lora(Lora::new(rank as usize, f64::from(scaling) * f64::from(rank)));
    let factors = lora.weight.adapter().ok_or("burn attached no adapter")?;
    let values = HashMap::from([
        (factors.a.id, transposed(&problem.adapter.a, d_in)),
        (factors.b.id, transposed(&problem.adapter.b[0], rank)),
    ]);
    let lora = Layer::Lora(lora.map(&mut Values(values)));
    Ok([trained(device, problem, hydra)?, trained(device, problem, lora)?])
}

fn trained(device: &Device, problem: &Problem, layer: Layer) -> Outcome<Box<dyn Pass>> {
    let (layout, inputs) = (problem.config.layout()?, graph::inputs(device, problem));
    Ok(Box::new(Trained { device: device.clone(), layout, inputs, layer, y: None, gradients: None }))
}

/// Gives parameters other values.
struct Values(HashMap<ParamId, Vec<f32>>);

impl ModuleMapper for Values {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.remove(&parameter.id) {
            Some(values) => parameter.map(|old| {
                let data = TensorData::new(values, old.shape());
                let new = Tensor::from_data(data, &old.device());
                if old.is_require_grad() { new.require_grad() } else { new }
            }),
            None => parameter,
        }
    }
}

impl Layer {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Adapter(adapter) => adapter.forward(x),
            Self::Hydra(layer) => layer.forward(x),
            Self::Lora(linear) => linear.forward(x),
        }
    }

    fn held(&self, gradients: &Gradients) -> Option<Held> {
        Some(match self {
            Self::Adapter(adapter) | Self::Hydra(HydraLinear { adapter, .. }) => {
                Held::Packed(Box::new(adapter.parameters.val().grad(gradients)?))
            }
            Self::Lora(linear) => {
                let factors = linear.weight.adapter()?;
                let [a, b] = [&factors.a, &factors.b].map(|factor| factor.val().grad(gradients));
                Held::Factors(Box::new([a?, b?]))
            }
        })
    }
}

impl Pass for Trained {
    fn queue(&mut self, input: usize) -> Outcome<()> {
        // Their memory serves again.
        self.clear();
        let x = &self.inputs[input];
        let y = self.layer.forward(x.clone());
        if self.device.is_autodiff() {
            let gradients = y.backward();
            let dx = x.grad(&gradients).ok_or("burn gives x no gradient")?;
            let held = self.layer.held(&gradients).ok_or("burn gives parameters no gradient")?;
            self.gradients = Some((dx, held));
        }
        self.y = Some(y.inner());
        Ok(self.device.flush()?)
    }

    fn wait(&self) -> Outcome<()> {
        Ok(self.device.sync()?)
    }

    fn read(&self) -> Outcome<Vec<Vec<f32>>> {
        let y = self.y.clone().ok_or("nothing has run")?;
        let mut results = vec![y.try_into_vec_as()?];
        match &self.gradients {
            None => {}
            Some((dx, Held::Packed(packed))) => {
                let packed: Vec<f32> = packed.clone().try_into_vec_as()?;
                let Adapter { a, router, b, .. } = self.layout.unpack(&packed)?;
                results.extend([dx.clone().try_into_vec_as()?, a, router, b.concat()]);
            }
            Some((dx, Held::Factors(factors))) => {
                let [a, b] = &**factors;
                let matrix = |factor: &Tensor<2>| factor.clone().transpose().try_into_vec_as();
                results.extend([dx.clone().try_into_vec_as()?, matrix(a)?, Vec::new(), matrix(b)?]);
            }
        }
        Ok(results)
    }

    fn clear(&mut self) {
        (self.y, self.gradients) = (None, None);
    }
}
