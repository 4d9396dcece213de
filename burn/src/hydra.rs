//! The module.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use burn::backend::Dispatch;
use burn::module::{Content, DisplaySettings, Flag, Module, ModuleDisplay, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use hydralora::checkpoint::Checkpoint;
use hydralora::{Adapter, Config, GateRows, Layout, Router};

use crate::call::{Call, element};
use crate::config::next_seed;
use crate::context::Context;
use crate::error::Error;
use crate::formula;
use crate::ops::HydraLayer as _;

/// A `HydraLoRA` adapter: `y = scaling * sum_i w_i B_i A x`, with the weights w from a router that is trained with it. With
/// one expert it is plain `LoRA`.
///
/// On wgpu devices it is one dispatch, or two, of the library's; its backward is two or three. On other devices it is
/// the same formula in burn's own operations.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct HydraLora {
    /// All matrices, packed as the library packs them ([`hydralora::Layout`]), so that they have one gradient and one step
    /// of the optimiser. They stay f32 beside activations in half precision.
    pub parameters: Param<Tensor<1>>,
    /// Whether dropout drops on autodiff devices, as in burn's `Dropout`.
    pub training: Param<Flag>,
    #[module(skip)]
    layer: Layer,
}

/// What an adapter is beside its parameters.
#[derive(Debug, Clone)]
struct Layer {
    config: Config,
    layout: Layout,
    seed: u64,
    /// Steps of dropout so far, counted together by all clones.
    step: Arc<AtomicU32>,
}

/// What a layer may take beside x.
#[derive(Debug, Clone)]
pub struct Extras<const D: usize> {
    /// What the adapter's output is added to, in its memory where nothing else needs that: a tensor with the shape and
    /// type of y.
    pub base: Option<Tensor<D>>,
    /// The experts' weights or logits, where the layer has [`Router::GivenWeights`] or [`Router::GivenLogits`]: rows x
    /// experts, with a row for each token, for each of some sequences of equal length, or for all tokens.
    pub gates: Option<Tensor<2>>,
    /// A number for each token; those where it is zero take no adapter, whatever their x is.
    pub mask: Option<Tensor<1>>,
}

impl<const D: usize> Default for Extras<D> {
    fn default() -> Self {
        Self { base: None, gates: None, mask: None }
    }
}

impl HydraLora {
    /// An adapter with given matrices. Its dropout's seed is one that no other adapter of the process has without asking for it
    /// ([`HydraLora::with_seed`]).
    ///
    /// # Errors
    /// An invalid configuration, matrices of other shapes, or a wgpu device that this package does not know.
    pub fn try_from_adapter(config: &Config, adapter: &Adapter, device: &Device) -> Result<Self, Error> {
        Context::of(device)?;
        let layout = config.layout()?;
        let packed = layout.pack(adapter)?;
        let shape = [packed.len()];
        let parameters = Param::from_data(TensorData::new(packed, shape), device);
        let layer = Layer { config: *config, layout, seed: next_seed(), step: Arc::default() };
        Ok(Self { parameters, training: Param::from_bool(true), layer })
    }

    /// A module of a checkpoint that another program saved, or [`hydralora::checkpoint::save`].
    ///
    /// # Errors
    /// An unknown module, a damaged file, or a wgpu device that this package does not know.
    pub fn try_from_checkpoint(
        checkpoint: &Checkpoint,
        module: &str,
        device: &Device,
    ) -> Result<Self, Error> {
        let adapter = checkpoint.adapter(module)?;
        let known = checkpoint.modules().iter().find(|known| known.name == module);
        let unknown = || hydralora::Error::UnknownModule { module: module.to_owned() };
        Self::try_from_adapter(&known.ok_or_else(unknown)?.config, &adapter, device)
    }

    /// The matrices, read from the device, for checkpoints:
    /// `hydralora::checkpoint::save(folder, &[("fc1", *fc1.config())], |_| Ok(fc1.try_to_adapter()?))`.
    ///
    /// # Errors
    /// burn cannot read them.
    pub fn try_to_adapter(&self) -> Result<Adapter, Error> {
        let packed = self.parameters.val().try_into_vec_as();
        let packed: Vec<f32> = packed.map_err(|error| Error::Read { message: error.to_string() })?;
        Ok(self.layer.layout.unpack(&packed)?)
    }

    /// The library's configuration of the layer.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.layer.config
    }

    /// The same with another seed of dropout, whose steps start anew.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.layer = Layer { seed, step: Arc::default(), ..self.layer };
        self
    }

    /// The adapter's output, zero for a fresh adapter.
    ///
    /// # Shapes
    ///
    /// - x: `[..., d_input]`
    /// - output: `[..., d_output]`
    ///
    /// # Panics
    /// A wrong shape, another device than the module's, a wgpu device that this package does not know, and where the
    /// device refuses.
    #[must_use]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_with(x, Extras::default())
    }

    /// `base` plus the adapter's output.
    ///
    /// # Panics
    /// As [`HydraLora::forward`].
    #[must_use]
    pub fn forward_add<const D: usize>(&self, base: Tensor<D>, x: Tensor<D>) -> Tensor<D> {
        self.forward_with(x, Extras { base: Some(base), ..Extras::default() })
    }

    /// The adapter's output, with what may come beside x.
    ///
    /// # Panics
    /// As [`HydraLora::forward`].
    #[must_use]
    pub fn forward_with<const D: usize>(&self, x: Tensor<D>, extras: Extras<D>) -> Tensor<D> {
        self.by_rows(x, extras, self.layer.config.d_out, |inputs| {
            let device = inputs.x.device();
            let config = self.called(&device);
            match Context::of(&device).unwrap_or_else(|error| panic!("HydraLora: {error}")) {
                Some(context) => self.by_kernels(&context, inputs, self.parameters.val(), config),
                None => self.by_formula(inputs, &self.parameters.val(), &config),
            }
        })
    }

    /// What [`HydraLora::forward_with`] computes, in burn's own operations, on any device: for comparison. Dropout drops
    /// other elements than that of the kernels.
    ///
    /// # Panics
    /// As [`HydraLora::forward`].
    #[must_use]
    pub fn formula<const D: usize>(&self, x: Tensor<D>, extras: Extras<D>) -> Tensor<D> {
        self.by_rows(x, extras, self.layer.config.d_out, |inputs| {
            let config = self.called(&inputs.x.device());
            self.by_formula(inputs, &self.parameters.val(), &config)
        })
    }

    /// The experts' weights for each token, for plots and for losses of one's own: burn's own operations, differentiable.
    ///
    /// # Shapes
    ///
    /// - x: `[..., d_input]`
    /// - output: `[..., experts]`
    ///
    /// # Panics
    /// A wrong shape, or a layer whose weights or logits are given.
    #[must_use]
    pub fn gates<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let config = &self.layer.config;
        assert!(
            !matches!(config.router, Router::GivenWeights | Router::GivenLogits),
            "HydraLora::gates: this layer's gates are given"
        );
        self.by_rows(x, Extras::default(), config.experts, |inputs| {
            let dtype = inputs.x.dtype();
            let x = inputs.x.cast(whole(dtype));
            let parameters = self.parameters.val().cast(whole(dtype));
            formula::gates(&x, &parameters, config, &self.layer.layout).cast(dtype)
        })
    }

    /// Computes with a row for each token, so many numbers in a row.
    fn by_rows<const D: usize>(
        &self,
        x: Tensor<D>,
        extras: Extras<D>,
        columns: u32,
        compute: impl FnOnce(Inputs) -> Tensor<2>,
    ) -> Tensor<D> {
        let (device, dtype) = (x.device(), x.dtype());
        let shape = with_last(x.dims(), columns as usize);
        match Inputs::new(self, x, extras) {
            Some(inputs) => compute(inputs).reshape(shape),
            None => Tensor::zeros(shape, (&device, dtype)),
        }
    }

    /// The layer as a call has it: with its dropout only in training.
    fn called(&self, device: &Device) -> Config {
        let drops = self.training.is_enabled() && (device.is_autodiff() || self.parameters.is_autodiff());
        let config = self.layer.config;
        Config { dropout: config.dropout.filter(|_| drops), ..config }
    }

    fn by_kernels(
        &self,
        context: &Context,
        inputs: Inputs,
        parameters: Tensor<1>,
        config: Config,
    ) -> Tensor<2> {
        let Inputs { x, base, gates, mask, tokens } = inputs;
        let dtype = x.dtype();
        let [d_in, d_out] = [config.d_in, config.d_out];
        // Rows of half precision are read four elements at a time.
        let fits = dtype == DType::F32 || [d_in, d_out].iter().all(|width| width.is_multiple_of(4));
        let computed = element(dtype).filter(|_| fits).map_or(DType::F32, |_| dtype);
        let parameters = parameters.cast(DType::F32);
        let gate_rows = gates.as_ref().map(|(_, rows)| *rows);
        let call = Call {
            config,
            adds: base.is_some(),
            gates: gate_rows,
            masks: mask.is_some(),
            random: config.dropout.map_or((0, 0), |_| self.layer.next_random()),
        };
        // Before burn queues it: what the device cannot do in forward or backward is said here.
        let wanted = [x.is_tracked(), parameters.is_tracked()];
        let of_gates = gates.as_ref().is_some_and(|(gates, _)| gates.is_tracked());
        let saves = wanted != [false; 2] || of_gates || base.as_ref().is_some_and(Tensor::is_tracked);
        let element = element(computed).unwrap_or_default();
        let backward = (wanted != [false; 2] || of_gates).then(|| call.backward(element, wanted));
        for operation in iter::once(call.forward(element, saves)).chain(backward.into_iter().flatten()) {
            let prepared = context.prepare(&operation, &call, tokens as u32);
            prepared.unwrap_or_else(|error| panic!("HydraLora: {error}"));
        }

        let absent = || parameters.clone().into_dispatch();
        let y = Dispatch::hydra(
            base.map_or_else(absent, |base| base.cast(computed).into_dispatch()),
            x.cast(computed).into_dispatch(),
            absent(),
            gates.map_or_else(absent, |(gates, _)| gates.cast(DType::F32).into_dispatch()),
            mask.map_or_else(absent, |mask| mask.cast(DType::F32).into_dispatch()),
            call,
        );
        Tensor::<2>::from_dispatch(y).cast(dtype)
    }

    fn by_formula(&self, inputs: Inputs, parameters: &Tensor<1>, config: &Config) -> Tensor<2> {
        let Inputs { x, base, gates, mask, tokens } = inputs;
        // As the kernels: results are rounded, sums are not.
        let dtype = x.dtype();
        let computed = whole(dtype);
        let parameters = parameters.clone().cast(computed);
        let gates = gates.map(|(gates, _)| {
            let [rows, experts] = gates.dims();
            let of_tokens = gates.unsqueeze_dim::<3>(1).expand([rows, tokens / rows.max(1), experts]);
            of_tokens.reshape([tokens, experts]).cast(computed)
        });
        let x = x.cast(computed);
        let y = formula::forward(x, &parameters, gates, mask, config, &self.layer.layout);
        let y = match base {
            Some(base) => base.cast(computed) + y,
            None => y,
        };
        y.cast(dtype)
    }
}

impl Layer {
    /// Seed and step of the next forward with dropout.
    fn next_random(&self) -> (u64, u32) {
        (self.seed, self.step.fetch_add(1, Ordering::Relaxed))
    }
}

/// What burn's own operations compute in for activations of a type: in half precision sums would be lost.
fn whole(dtype: DType) -> DType {
    if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype }
}

/// The tensors of a call as matrices, after their shapes have been checked.
struct Inputs {
    x: Tensor<2>,
    base: Option<Tensor<2>>,
    gates: Option<(Tensor<2>, GateRows)>,
    mask: Option<Tensor<1>>,
    tokens: usize,
}

impl Inputs {
    /// None if there are no tokens.
    fn new<const D: usize>(module: &HydraLora, x: Tensor<D>, extras: Extras<D>) -> Option<Self> {
        let Config { d_in, d_out, experts, router, .. } = module.layer.config;
        let [d_in, d_out, experts] = [d_in, d_out, experts].map(|length| length as usize);
        let Extras { base, gates, mask } = extras;
        let dims = x.dims();
        assert!(
            dims.last() == Some(&d_in),
            "HydraLora: x has the shape {dims:?}, and its last axis must be d_input, {d_in}"
        );
        let tokens: usize = dims[..D - 1].iter().product();
        assert!(u32::try_from(tokens).is_ok(), "HydraLora: x has {tokens} tokens, more than 32 bits count");
        let device = x.device();
        let same = |name: &str, other: Device| {
            assert!(
                other == device,
                "HydraLora: {name} is on {other:?}, and x on {device:?}: move one of them"
            );
        };
        same("the module", module.parameters.device());
        let base = base.inspect(|base| {
            same("the base", base.device());
            let (given, needed) = (base.dims(), with_last(dims, d_out));
            assert!(given == needed, "HydraLora: base has the shape {given:?}, and y {needed:?}");
            let (given, needed) = (base.dtype(), x.dtype());
            assert!(given == needed, "HydraLora: base is {given:?}, and x {needed:?}: cast one of them");
        });
        let takes_gates = matches!(router, Router::GivenWeights | Router::GivenLogits);
        assert!(
            gates.is_some() == takes_gates,
            "HydraLora: gates are {}, and the router is {router:?}: only given weights and logits take them",
            if gates.is_some() { "given" } else { "not given" }
        );
        let gates = gates.map(|gates| {
            same("the tensor of gates", gates.device());
            let [rows, columns] = gates.dims();
            assert!(
                columns == experts && (rows == tokens || rows > 0 && tokens.is_multiple_of(rows)),
                "HydraLora: gates have the shape [{rows}, {columns}], and need {experts} columns and a row for each \
                 of {tokens} tokens, for each of some sequences of equal length, or for all tokens"
            );
            let shared = match rows {
                _ if rows == tokens => GateRows::Token,
                1 => GateRows::Batch,
                _ => GateRows::Sequence((tokens / rows) as u32),
            };
            (gates, shared)
        });
        let mask = mask.inspect(|mask| {
            same("the mask", mask.device());
            let [given] = mask.dims();
            assert!(given == tokens, "HydraLora: the mask has {given} numbers, and x {tokens} tokens");
        });
        (tokens > 0).then(|| Self {
            x: x.reshape([tokens, d_in]),
            base: base.map(|base| base.reshape([tokens, d_out])),
            gates,
            mask,
            tokens,
        })
    }
}

/// The same axes with another last one.
fn with_last<const D: usize>(mut dims: [usize; D], last: usize) -> [usize; D] {
    dims[D - 1] = last;
    dims
}

impl ModuleDisplay for HydraLora {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&self.layer.config.to_string()).optional()
    }
}
