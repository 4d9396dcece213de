//! Backward on the device, from the logits' gradient to the adapters' gradients.

use hydralora::{
    BackwardInput, BackwardInputDescriptor, BackwardParams, BackwardParamsDescriptor, Linear,
    LinearDescriptor, LinearDirection, WriteMode, wgpu,
};

use crate::Result;
use crate::adapters::Adapters;
use crate::base::{Frozen, VOCABULARY, WIDTH};
use crate::model::{Model, gelu_workgroups};
use crate::runtime::Runtime;
use crate::shader::Dispatch;

/// Backward through a [`Model`] with adapters, prepared once.
pub struct Backward {
    /// The adapters' gradients, packed like their parameters.
    pub gradients: wgpu::Buffer,
    head: Linear,
    /// fc1 and fc2; they run in the opposite order.
    hidden: [Hidden; 2],
}

/// fc1 or fc2 with its gelu.
struct Hidden {
    gelu: Dispatch,
    frozen: Option<Linear>,
    input: BackwardInput,
    params: BackwardParams,
}

impl Backward {
    /// `model` must have been prepared with `adapters`.
    pub fn prepare(runtime: &Runtime, model: &Model, adapters: &Adapters) -> Result<Self> {
        let Runtime { gpu, kernels, shaders, base } = runtime;
        let tokens = model.tokens;
        let packing = adapters.packing;
        let activations = &model.activations;
        let Some(saved) = &activations.saved else {
            return Err("backward needs a model with adapters".into());
        };
        let buffer = |name: &str, columns: u32| gpu.zeroed(name, tokens as usize * columns as usize);
        let gradients = gpu.zeroed("gradients", packing.elements())?;
        // Gradients at `Activations::inputs` but the first. gelu's backward works in place, so the one at fc2's
        // input becomes the one at fc1's output.
        let dinputs = [buffer("fc2 input", WIDTH)?, buffer("head input", WIDTH)?];

        let linear = |layer: &Frozen, d_out, source: &wgpu::Buffer, target: &wgpu::Buffer| {
            Linear::prepare(
                kernels,
                &LinearDescriptor {
                    direction: LinearDirection::Backward,
                    d_in: WIDTH,
                    d_out,
                    tokens,
                    source: source.into(),
                    weight: (&layer.weight).into(),
                    bias: None,
                    target: target.into(),
                    write: WriteMode::Overwrite,
                },
            )
        };
        let hidden = |layer: usize| -> Result<Hidden> {
            let (dx, g) = (layer.checked_sub(1).map(|before| &dinputs[before]), &dinputs[layer]);
            // Nothing before fc1 learns, so its input's gradient is not wanted.
            let frozen = dx.map(|dx| linear(&base.hidden[layer], WIDTH, g, dx)).transpose()?;
            let dstate = buffer("dstate", packing.config.state_len())?;
            let input = BackwardInput::prepare(
                kernels,
                &BackwardInputDescriptor {
                    config: packing.config,
                    tokens,
                    g: g.into(),
                    parameters: adapters.layer(layer),
                    saved: (&saved[layer]).into(),
                    dx: dx.map(Into::into),
                    write: WriteMode::Accumulate,
                    dstate: (&dstate).into(),
                },
            )?;
            let params = BackwardParams::prepare(
                kernels,
                &BackwardParamsDescriptor {
                    config: packing.config,
                    tokens,
                    x: (&activations.inputs[layer]).into(),
                    g: g.into(),
                    saved: (&saved[layer]).into(),
                    dstate: (&dstate).into(),
                    gradients: packing.layer(&gradients, layer),
                    write: WriteMode::Overwrite,
                    scratch: None,
                },
            )?;
            let gelu = shaders.gelu_backward.bind(
                &gpu.device,
                &[&activations.outputs[layer], g],
                gelu_workgroups(tokens),
            );
            Ok(Hidden { gelu, frozen, input, params })
        };
        Ok(Self {
            head: linear(&base.head, VOCABULARY, &activations.dlogits, &dinputs[1])?,
            hidden: [hidden(0)?, hidden(1)?],
            gradients,
        })
    }

    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.head.encode(pass);
        for Hidden { gelu, frozen, input, params } in self.hidden.iter().rev() {
            gelu.encode(pass);
            if let Some(frozen) = frozen {
                frozen.encode(pass);
            }
            input.encode(pass);
            params.encode(pass);
        }
    }
}
