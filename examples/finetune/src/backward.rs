//! Backward on the device, from the logits' gradient to the adapters' gradients.

use hydralora::{
    BackwardInputOptions, BackwardParamsOptions, Batch, Bound, Element, Error, GateGradient,
    GateLossesOptions, Operation, WriteMode, wgpu,
};

use crate::Result;
use crate::adapters::{Adapters, in_training};
use crate::base::WIDTH;
use crate::model::Model;
use crate::runtime::Runtime;
use crate::shader::Dispatch;

/// Backward through a [`Model`] with adapters, prepared once.
pub struct Backward {
    /// The adapters' gradients, packed like their parameters.
    pub gradients: [wgpu::Buffer; 2],
    head: Bound,
    /// fc1 and fc2. They run in the opposite order.
    hidden: [Hidden; 2],
}

/// fc1 or fc2 with its gelu.
struct Hidden {
    gelu: Dispatch,
    frozen: Option<Bound>,
    /// Of the experts, if there are several, and their balance is part of the loss.
    losses: Option<Bound>,
    input: Bound,
    params: Bound,
}

impl Backward {
    /// `model` must have been prepared with `adapters`.
    pub async fn prepare(
        runtime: &Runtime,
        model: &Model,
        adapters: &Adapters,
        balance: f32,
    ) -> Result<Self> {
        let Runtime { gpu, kernels, shaders, base } = runtime;
        let (capacity, experts) = (model.capacity, adapters.config.experts);
        let balanced = balance != 0.0 && experts > 1;
        let activations = &model.activations;
        let Some(saved) = &activations.saved else {
            return Err("backward needs a model with adapters".into());
        };
        let buffer = |name: &str, columns: u32| gpu.zeroed(name, capacity.tokens as usize * columns as usize);
        let gradients = || gpu.zeroed("gradients", adapters.elements());
        let gradients = [gradients()?, gradients()?];
        // The gradients of `Activations::inputs` without the first. gelu's backward works in place, so the
        // gradient of fc2's input becomes that of fc1's output.
        let dinputs = [buffer("fc2 input", WIDTH)?, buffer("head input", WIDTH)?];

        let hidden = async |layer: usize| -> Result<Hidden> {
            let config = &in_training(&adapters.config, layer);
            let g = &dinputs[layer];
            // Nothing before fc1 is trained, so the gradient of its input is not needed.
            let dx = layer.checked_sub(1).map(|before| &dinputs[before]);
            let frozen = match dx {
                Some(dx) => Some(base.hidden[layer].backward(kernels, capacity, g, dx).await?),
                None => None,
            };
            let dstate = buffer("dstate", config.state_len())?;

            let gate_gradient = gpu.zeroed("gate gradient", experts as usize)?;
            let losses = if balanced {
                let options = GateLossesOptions { balance, ..GateLossesOptions::default() };
                let report = gpu.zeroed("report", 5 + 2 * experts as usize)?;
                let losses = kernels.prepare_async(&Operation::GateLosses(options), config, capacity).await?;
                Some(losses.bind(&[
                    ("saved", (&saved[layer]).into()),
                    ("gate_gradient", (&gate_gradient).into()),
                    ("report", (&report).into()),
                ])?)
            } else {
                None
            };

            let options = BackwardInputOptions {
                gate_gradient: balanced.then_some(GateGradient::Losses),
                dx: dx.map(|_| (Element::F32, WriteMode::Accumulate)),
                ..BackwardInputOptions::default()
            };
            let mut tensors = vec![
                ("g", g.into()),
                ("parameters", (&adapters.parameters[layer]).into()),
                ("saved", (&saved[layer]).into()),
                ("dstate", (&dstate).into()),
            ];
            tensors.extend(dx.map(|dx| ("dx", dx.into())));
            tensors.extend(balanced.then(|| ("gate_gradient", (&gate_gradient).into())));
            let input = kernels.prepare_async(&Operation::BackwardInput(options), config, capacity).await?;
            let input = input.bind(&tensors)?;

            let options = BackwardParamsOptions::default();
            let params = kernels.prepare_async(&Operation::BackwardParams(options), config, capacity).await?;
            let params = params.bind(&[
                ("x", (&activations.inputs[layer]).into()),
                ("g", g.into()),
                ("saved", (&saved[layer]).into()),
                ("dstate", (&dstate).into()),
                ("gradients", (&gradients[layer]).into()),
            ])?;
            let gelu = shaders.gelu_backward.bind(&gpu.device, &[&activations.outputs[layer], g]);
            Ok(Hidden { gelu, frozen, losses, input, params })
        };
        Ok(Self {
            head: base.head.backward(kernels, capacity, &activations.dlogits, &dinputs[1]).await?,
            hidden: [hidden(0).await?, hidden(1).await?],
            gradients,
        })
    }

    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, batch: &Batch) -> Result<(), Error> {
        self.head.encode(pass, batch)?;
        for Hidden { gelu, frozen, losses, input, params } in self.hidden.iter().rev() {
            gelu.encode(pass, batch);
            if let Some(frozen) = frozen {
                frozen.encode(pass, batch)?;
            }
            if let Some(losses) = losses {
                losses.encode(pass, batch)?;
            }
            input.encode(pass, batch)?;
            params.encode(pass, batch)?;
        }
        Ok(())
    }
}
