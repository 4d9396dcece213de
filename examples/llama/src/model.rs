//! A model that is ready to run: its weights, its activations on the device, and every dispatch of a forward pass bound.

use hydralora::device::Gpu;
use hydralora::{
    AdamW, Batch, Bound, Capacity, Kernels, Limit, LinearDirection, LinearOptions, Operation, Plans, Tensor,
    WriteMode, wgpu,
};

use crate::adapters::{Adapters, Projection, Report, Routing};
use crate::backward;
use crate::config::Config;
use crate::error::Error;
use crate::matrix::{Matrix, binding_bytes};
use crate::rope;
use crate::shader::{self, Dispatch, Kind, Shader, Shaders, check_limit, reported};
use crate::weights::Weights;

/// The tokens of a step: how many, where they lie in their sequence, and how long sequences are.
pub struct Span {
    batch: Batch,
    uniform: wgpu::Buffer,
}

/// A sequence that takes all tokens.
pub const ENDLESS: u32 = 1 << 30;

impl Span {
    pub fn new(kernels: &Kernels, gpu: &Gpu) -> Result<Self, Error> {
        let uniform = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("span"),
            size: 16,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Ok(Self { batch: Batch::new(kernels, 1)?, uniform })
    }

    pub fn set(
        &mut self,
        queue: &wgpu::Queue,
        tokens: u32,
        position: u32,
        sequence: u32,
    ) -> Result<(), Error> {
        self.batch.set(queue, tokens)?;
        queue.write_buffer(&self.uniform, 0, bytemuck::bytes_of(&[tokens, position, sequence, 0]));
        Ok(())
    }
}

/// A step of a pass.
pub enum Step {
    Own(Dispatch),
    Frozen(Bound),
    Adapter(Bound),
}

impl Step {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Own(dispatch) => dispatch.kind,
            Self::Frozen(_) => Kind::Frozen,
            Self::Adapter(_) => Kind::Adapters,
        }
    }

    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, span: &Span) -> Result<(), hydralora::Error> {
        match self {
            Self::Own(dispatch) => dispatch.encode(pass, span.batch.tokens()),
            Self::Frozen(bound) | Self::Adapter(bound) => bound.encode(pass, &span.batch)?,
        }
        Ok(())
    }
}

/// How a model is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    /// The most tokens of a step.
    pub capacity: u32,
    /// The most tokens of a sequence that is generated.
    pub context: u32,
    /// Whether adapters are trained, and what is kept for it. Sequences then begin at place 0.
    pub training: Option<Keep>,
}

/// What is kept of every block from the forward pass to the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All of its activations.
    Activations,
    /// Its input, from which the backward pass computes the others again.
    Inputs,
}

impl Use {
    /// Rows of keys, and of values.
    fn rows(&self) -> u32 {
        self.capacity.max(self.context)
    }

    /// Bytes of the activations, of the keys and values, and of their gradients.
    pub fn bytes(&self, config: &Config) -> u64 {
        // Wide enough for every shape that a file may claim.
        let [width, hidden, blocks, heads] =
            [config.width, config.hidden, config.blocks, config.heads].map(u128::from);
        let [queries, keys] = [config.query_width(), config.key_width()].map(u128::from);
        let block = 6 * width + 3 * (queries + hidden) + 2 * keys + heads;
        let shared = 4 * width + u128::from(config.vocabulary) + 4;
        let gradients = 2 * width + 3 * (queries + hidden + keys) + heads;
        let (own, caches) = match self.training {
            None => (block, blocks),
            Some(Keep::Activations) => (blocks * block + gradients, blocks),
            Some(Keep::Inputs) => (block + (blocks - 1) * width + gradients, 1),
        };
        let numbers =
            u128::from(self.capacity) * (shared + own) + 2 * caches * keys * u128::from(self.rows());
        u64::try_from(4 * numbers).unwrap_or(u64::MAX)
    }

    /// The most tokens whose activations each fit a binding.
    pub fn most_tokens(gpu: &Gpu, config: &Config) -> u32 {
        let [_, widest] = widest(config);
        let workgroups = gpu.device.limits().max_compute_workgroups_per_dimension;
        u32::try_from(binding_bytes(gpu) / (4 * u64::from(widest.1))).unwrap_or(u32::MAX).min(workgroups)
    }

    /// Refuses what the model or the device has no room for, before any memory is taken.
    pub fn check(&self, gpu: &Gpu, config: &Config) -> Result<(), Error> {
        let Self { capacity, context, .. } = *self;
        shader::check(&gpu.device, config)?;
        if context > config.context {
            return Err(Error::LongContext { tokens: context, context: config.context });
        }
        let (rows, [key, other]) = (self.rows(), widest(config));
        for (tokens, (name, columns)) in
            [(rows, key), (capacity, other), (context, ("turns", config.head_width))]
        {
            check_words(gpu, name, tokens, columns)?;
        }
        let allowed = gpu.device.limits().max_compute_workgroups_per_dimension;
        let limit = Limit::ComputeWorkgroupsPerDimension;
        check_limit("a step", limit, [capacity, allowed], "take fewer tokens at a time")?;
        check_limit("attention, a row for each head,", limit, [config.heads, allowed], "take another model")
    }

    /// Whether a sequence of so many tokens fits.
    pub fn check_sequence(&self, tokens: u64) -> Result<(), Error> {
        let context = self.context;
        if tokens <= context.into() { Ok(()) } else { Err(Error::Context { tokens, context }) }
    }
}

/// The widest of what each place of a sequence has, and of what each token of a step has.
fn widest(config: &Config) -> [(&'static str, u32); 2] {
    let all = [
        ("logits", config.vocabulary),
        ("gate", config.hidden),
        ("query", config.query_width()),
        ("x", config.width),
    ];
    let widest = all.into_iter().rev().max_by_key(|(_, columns)| *columns);
    [("keys", config.key_width()), widest.unwrap_or(all[0])]
}

/// A model, perhaps with adapters.
pub struct Model {
    pub config: Config,
    pub how: Use,
    span: Span,
    /// The last token of a step alone, whose logits a generation needs.
    last: Span,
    tokens: wgpu::Buffer,
    targets: wgpu::Buffer,
    /// The normalised activations after the last block, and those of the last token.
    normed: wgpu::Buffer,
    last_normed: wgpu::Buffer,
    logits: wgpu::Buffer,
    /// Of each token in the mean of the losses.
    token_weights: wgpu::Buffer,
    losses: wgpu::Buffer,
    forward: Vec<Step>,
    head: Vec<Step>,
    last_head: Vec<Step>,
    loss: Step,
    /// The loss with the logits' gradients, and what follows from them.
    backward: Vec<Step>,
}

/// What the binding of a pass needs.
pub struct Binder<'a> {
    pub gpu: &'a Gpu,
    kernels: &'a Kernels,
    pub weights: &'a Weights,
    pub shaders: &'a Shaders,
    adapters: Option<&'a Adapters>,
    span: &'a wgpu::Buffer,
    pub turns: wgpu::Buffer,
    /// Nothing, for each token.
    zeros: wgpu::Buffer,
    pub how: Use,
}

/// The activations of a block, in the order in which they are computed.
#[derive(Clone)]
pub struct Activations {
    /// What the attention's norm takes, and gives.
    pub x: wgpu::Buffer,
    pub h: wgpu::Buffer,
    pub query: wgpu::Buffer,
    pub key: wgpu::Buffer,
    pub value: wgpu::Buffer,
    pub rotated: wgpu::Buffer,
    pub keys: wgpu::Buffer,
    pub values: wgpu::Buffer,
    pub log_sums: wgpu::Buffer,
    pub attended: wgpu::Buffer,
    pub output: wgpu::Buffer,
    /// What the feed-forward part's norm takes, and gives.
    pub x_hidden: wgpu::Buffer,
    pub h_hidden: wgpu::Buffer,
    pub gate: wgpu::Buffer,
    pub up: wgpu::Buffer,
    pub act: wgpu::Buffer,
    pub down: wgpu::Buffer,
}

impl Binder<'_> {
    /// A buffer with so many elements of each token.
    pub fn words(&self, label: &'static str, columns: u32) -> Result<wgpu::Buffer, Error> {
        words(self.gpu, label, self.how.capacity, columns)
    }

    fn activations(&self) -> Result<Activations, Error> {
        let Config { width, hidden, heads, .. } = self.weights.config;
        let (queries, keys) = (self.weights.config.query_width(), self.weights.config.key_width());
        Ok(Activations {
            x: self.words("x", width)?,
            h: self.words("h", width)?,
            query: self.words("query", queries)?,
            key: self.words("key", keys)?,
            value: self.words("value", keys)?,
            rotated: self.words("rotated", queries)?,
            keys: self.cache("keys")?,
            values: self.cache("values")?,
            log_sums: self.words("log sums", heads)?,
            attended: self.words("attended", queries)?,
            output: self.words("output", width)?,
            x_hidden: self.words("x hidden", width)?,
            h_hidden: self.words("h hidden", width)?,
            gate: self.words("gate", hidden)?,
            up: self.words("up", hidden)?,
            act: self.words("act", hidden)?,
            down: self.words("down", width)?,
        })
    }

    fn cache(&self, label: &'static str) -> Result<wgpu::Buffer, Error> {
        words(self.gpu, label, self.how.rows(), self.weights.config.key_width())
    }

    /// The activations of a block, of which it shares with the block before what need not be kept.
    fn next_activations(&self, before: Option<&Activations>) -> Result<Activations, Error> {
        let Some(before) = before.cloned() else { return self.activations() };
        match self.how.training {
            Some(Keep::Activations) => self.activations(),
            Some(Keep::Inputs) => {
                Ok(Activations { x: self.words("x", self.weights.config.width)?, ..before })
            }
            // Keys and values are each block's own, so that a generation can go on.
            None => Ok(Activations { keys: self.cache("keys")?, values: self.cache("values")?, ..before }),
        }
    }

    /// A frozen matrix either way: y = W x, or dx (+)= g W. Of a split matrix, each part gives some columns of y, and takes
    /// some of g.
    pub fn linear(
        &self,
        steps: &mut Vec<Step>,
        direction: LinearDirection,
        [source, target]: [&wgpu::Buffer; 2],
        weight: &Matrix,
        write: WriteMode,
        tokens: u32,
    ) -> Result<(), Error> {
        let element = self.weights.element;
        let [rows, columns] = weight.shape;
        let forward = direction == LinearDirection::Forward;
        let stride = weight.is_split().then_some(rows);
        for part in &weight.parts {
            let options = LinearOptions {
                direction,
                write: if forward || part.first == 0 { write } else { WriteMode::Accumulate },
                weight: element,
                source_stride: stride.filter(|_| !forward),
                target_stride: stride.filter(|_| forward),
                ..Default::default()
            };
            let config = hydralora::Config { d_in: columns, d_out: part.rows, ..Default::default() };
            let capacity = Capacity { tokens, plans: Plans::Several };
            let prepared = self.kernels.prepare(&Operation::Linear(options), &config, capacity)?;
            let own_columns = |buffer: &'_ wgpu::Buffer| 4 * u64::from(part.first)..buffer.size();
            let (from, to) = if forward {
                (source.slice(..), target.slice(own_columns(target)))
            } else {
                (source.slice(own_columns(source)), target.slice(..))
            };
            let names = direction.names();
            let weight = Tensor::from(&part.buffer).of(element);
            let tensors = [(names[0], from.into()), ("weight", weight), (names[1], to.into())];
            steps.push(Step::Frozen(prepared.bind(&tensors)?));
        }
        Ok(())
    }

    pub fn own(&self, shader: &Shader, buffers: &[&wgpu::Buffer]) -> Step {
        let all: Vec<_> = std::iter::once(self.span).chain(buffers.iter().copied()).collect();
        Step::Own(shader.bind(&self.gpu.device, &all))
    }

    /// A projection of a block, and what its adapter adds, if it has one.
    fn projection(
        &self,
        steps: &mut Vec<Step>,
        (block, projection): (u32, Projection),
        weight: &Matrix,
        [x, y]: [&wgpu::Buffer; 2],
    ) -> Result<(), Error> {
        let tokens = self.how.capacity;
        self.linear(steps, LinearDirection::Forward, [x, y], weight, WriteMode::Overwrite, tokens)?;
        if let Some(adapters) = self.adapters {
            let bound = adapters.forward(block, projection, x, y, self.how.training.is_some())?;
            steps.extend(bound.map(Step::Adapter));
        }
        Ok(())
    }

    /// What reaches a projection's input from its output's gradient, and its adapter's gradients.
    pub fn projection_backward(
        &self,
        steps: &mut Vec<Step>,
        (block, projection): (u32, Projection),
        weight: &Matrix,
        [x, g, dx]: [&wgpu::Buffer; 3],
        write: WriteMode,
    ) -> Result<(), Error> {
        self.linear(steps, LinearDirection::Backward, [g, dx], weight, write, self.how.capacity)?;
        if let Some(adapters) = self.adapters {
            steps.extend(adapters.backward(block, projection, [x, g, dx])?.into_iter().map(Step::Adapter));
        }
        Ok(())
    }

    /// The forward pass of a block, whose input is the sum of two.
    fn block(
        &self,
        steps: &mut Vec<Step>,
        index: u32,
        [x, added]: [&wgpu::Buffer; 2],
        own: &Activations,
    ) -> Result<(), Error> {
        let block = &self.weights.blocks[index as usize];
        steps.push(self.own(&self.shaders.norm, &[&block.attention_norm, x, added, &own.x, &own.h]));
        self.inner(steps, index, own)?;
        self.projection(steps, (index, Projection::Down), &block.down, [&own.act, &own.down])
    }

    /// The activations of a block once more, from its input, but for its output.
    pub fn recompute(&self, steps: &mut Vec<Step>, index: u32, own: &Activations) -> Result<(), Error> {
        let block = &self.weights.blocks[index as usize];
        // A dispatch cannot leave the sum where it reads it, and nothing needs the output any more.
        let norm = [&block.attention_norm, &own.x, &self.zeros, &own.down, &own.h];
        steps.push(self.own(&self.shaders.norm, &norm));
        self.inner(steps, index, own)
    }

    /// Everything of a block between its first norm and its last projection.
    fn inner(&self, steps: &mut Vec<Step>, index: u32, own: &Activations) -> Result<(), Error> {
        let block = &self.weights.blocks[index as usize];
        let shaders = self.shaders;
        let at = |projection| (index, projection);
        self.projection(steps, at(Projection::Query), &block.query, [&own.h, &own.query])?;
        self.projection(steps, at(Projection::Key), &block.key, [&own.h, &own.key])?;
        self.projection(steps, at(Projection::Value), &block.value, [&own.h, &own.value])?;
        let attention = [&own.rotated, &own.keys, &own.values, &own.attended, &own.log_sums];
        steps.extend([
            self.own(&shaders.rope_query, &[&own.query, &own.rotated, &self.turns]),
            self.own(&shaders.rope_key, &[&own.key, &own.keys, &self.turns]),
            self.own(&shaders.store_value, &[&own.value, &own.values, &self.turns]),
            self.own(&shaders.attention, &attention),
        ]);
        self.projection(steps, at(Projection::Output), &block.output, [&own.attended, &own.output])?;
        let norm = [&block.hidden_norm, &own.x, &own.output, &own.x_hidden, &own.h_hidden];
        steps.push(self.own(&shaders.norm, &norm));
        self.projection(steps, at(Projection::Gate), &block.gate, [&own.h_hidden, &own.gate])?;
        self.projection(steps, at(Projection::Up), &block.up, [&own.h_hidden, &own.up])?;
        steps.push(self.own(&shaders.silu, &[&own.gate, &own.up, &own.act]));
        Ok(())
    }

    /// The tokens' embeddings.
    fn embed(&self, steps: &mut Vec<Step>, tokens: &wgpu::Buffer, embedded: &wgpu::Buffer) {
        for part in &self.weights.embedding.parts {
            let device = &self.gpu.device;
            let range = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("part"),
                size: 8,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            self.gpu.queue.write_buffer(&range, 0, bytemuck::bytes_of(&[part.first, part.rows]));
            steps.push(self.own(&self.shaders.embed, &[tokens, &part.buffer, embedded, &range]));
        }
    }
}

impl Model {
    /// Binds every dispatch of a model. `shaders` are those of its weights.
    pub async fn new(
        gpu: &Gpu,
        kernels: &Kernels,
        weights: &Weights,
        shaders: &Shaders,
        adapters: Option<&Adapters>,
        how: Use,
    ) -> Result<Self, Error> {
        how.check(gpu, &weights.config)?;
        let bind = || Self::bind(gpu, kernels, weights, shaders, adapters, how);
        reported(&gpu.device, "binding the model", bind).await?
    }

    fn bind(
        gpu: &Gpu,
        kernels: &Kernels,
        weights: &Weights,
        shaders: &Shaders,
        adapters: Option<&Adapters>,
        how: Use,
    ) -> Result<Self, Error> {
        let config = weights.config.clone();
        let (span, last) = (Span::new(kernels, gpu)?, Span::new(kernels, gpu)?);
        let turns = gpu.upload("turns", &rope::turns(&config.rates, how.context))?;
        let (width, vocabulary) = (config.width, config.vocabulary);
        let zeros = words(gpu, "zeros", how.capacity, width)?;
        let binder =
            Binder { gpu, kernels, weights, shaders, adapters, span: &span.uniform, turns, zeros, how };
        let words = |label, columns| binder.words(label, columns);
        let (tokens, targets) = (words("tokens", 1)?, words("targets", 1)?);
        let embedded = words("embedded", width)?;
        let (sum, normed) = (words("sum", width)?, words("normed", width)?);
        let (logits, losses) = (words("logits", vocabulary)?, words("losses", 1)?);
        let last_normed = gpu.zeroed("last normed", width as usize)?;
        let token_weights = words("weights", 1)?;

        let mut forward = Vec::new();
        binder.embed(&mut forward, &tokens, &embedded);
        let mut all: Vec<Activations> = Vec::new();
        for index in 0..config.blocks {
            let own = binder.next_activations(all.last())?;
            let input =
                all.last().map_or([&embedded, &binder.zeros], |before| [&before.x_hidden, &before.down]);
            binder.block(&mut forward, index, input, &own)?;
            all.push(own);
        }
        let input = all.last().map_or([&embedded, &binder.zeros], |before| [&before.x_hidden, &before.down]);
        forward.push(binder.own(&shaders.norm, &[&weights.norm, input[0], input[1], &sum, &normed]));

        let head = |source, tokens| -> Result<Vec<Step>, Error> {
            let mut steps = Vec::new();
            let (direction, write) = (LinearDirection::Forward, WriteMode::Overwrite);
            binder.linear(&mut steps, direction, [source, &logits], weights.head(), write, tokens)?;
            Ok(steps)
        };
        let (whole_head, last_head) = (head(&normed, how.capacity)?, head(&last_normed, 1)?);
        let loss = [&targets, &token_weights, &logits, &losses];
        let mut backward = Vec::new();
        if how.training.is_some() {
            backward.push(binder.own(&shaders.loss_backward, &loss));
            backward::bind(&binder, &mut backward, &all, [&logits, &sum])?;
        }
        let loss = binder.own(&shaders.loss, &loss);
        Ok(Self {
            config,
            how,
            span,
            last,
            tokens,
            targets,
            normed,
            last_normed,
            logits,
            token_weights,
            losses,
            forward,
            head: whole_head,
            last_head,
            loss,
            backward,
        })
    }

    /// Whether these tokens are the model's, and a sequence of so many fits.
    fn check(&self, ids: &[&[u32]], end: u64) -> Result<(), Error> {
        if end == 0 {
            return Err(Error::NoTokens);
        }
        self.how.check_sequence(end)?;
        let vocabulary = self.config.vocabulary;
        match ids.iter().copied().flatten().find(|token| **token >= vocabulary) {
            Some(&token) => Err(Error::Token { token, vocabulary }),
            None => Ok(()),
        }
    }

    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<(), hydralora::Error> {
        self.forward.iter().try_for_each(|step| step.encode(pass, &self.span))
    }

    /// All that [`Self::train`] records, each step with its tokens.
    pub fn training_steps(&self) -> impl Iterator<Item = (&Step, &Span)> {
        self.forward.iter().chain(&self.head).chain(&self.backward).map(|step| (step, &self.span))
    }

    /// All that [`Self::logits`] records, each step with its tokens.
    pub fn logits_steps(&self) -> impl Iterator<Item = (&Step, &Span)> {
        let last = self.last_head.iter().map(|step| (step, &self.last));
        self.forward.iter().map(|step| (step, &self.span)).chain(last)
    }

    /// Sets the tokens of a step, each with the one that it should predict, in sequences of this length.
    fn set(
        &mut self,
        queue: &wgpu::Queue,
        inputs: &[u32],
        targets: &[u32],
        sequence: u32,
    ) -> Result<u32, Error> {
        let (count, capacity) = (inputs.len().min(targets.len()), self.how.capacity);
        let (inputs, targets) = (&inputs[..count], &targets[..count]);
        self.check(&[inputs, targets], (count as u64).min(sequence.into()))?;
        if count > capacity as usize {
            return Err(Error::Capacity { tokens: count as u64, capacity });
        }
        let tokens = count as u32;
        self.span.set(queue, tokens, 0, sequence)?;
        queue.write_buffer(&self.tokens, 0, bytemuck::cast_slice(inputs));
        queue.write_buffer(&self.targets, 0, bytemuck::cast_slice(targets));
        let weights = vec![1.0 / tokens as f32; tokens as usize];
        queue.write_buffer(&self.token_weights, 0, bytemuck::cast_slice(&weights));
        Ok(tokens)
    }

    /// Submits a step of training: forward, the losses, backward to the adapters' gradients of their mean, and the
    /// optimiser's step.
    pub fn train(
        &mut self,
        gpu: &Gpu,
        [inputs, targets]: [&[u32]; 2],
        sequence: u32,
        optimiser: Option<&AdamW>,
    ) -> Result<(), Error> {
        self.set(&gpu.queue, inputs, targets, sequence)?;
        gpu.submit(|pass| {
            self.training_steps().try_for_each(|(step, span)| step.encode(pass, span))?;
            if let Some(optimiser) = optimiser {
                optimiser.encode(pass);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The mean weights that each module's router gives its experts, for the first tokens of a text.
    pub async fn routing(
        &mut self,
        gpu: &Gpu,
        reports: &[Report],
        [inputs, targets]: [&[u32]; 2],
        sequence: u32,
    ) -> Result<Vec<Routing>, Error> {
        let most = inputs.len().min(targets.len()).min(self.how.capacity as usize);
        self.set(&gpu.queue, &inputs[..most], &targets[..most], sequence)?;
        gpu.submit(|pass| {
            self.encode(pass)?;
            reports.iter().try_for_each(|report| report.bound.encode(pass, &self.span.batch))
        })?;
        let mut routing = Vec::new();
        for report in reports {
            let weights = report.weights(gpu).await?;
            routing.push(Routing { module: report.module.clone(), weights });
        }
        Ok(routing)
    }

    /// The losses of the last step.
    pub fn loss_buffer(&self) -> &wgpu::Buffer {
        &self.losses
    }

    /// The tokens of the last step, for random numbers.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.span.batch
    }

    /// The negative log-likelihood of each target, given the inputs up to it in its sequence.
    pub async fn losses(
        &mut self,
        gpu: &Gpu,
        [inputs, targets]: [&[u32]; 2],
        sequence: u32,
    ) -> Result<Vec<f32>, Error> {
        let tokens = self.set(&gpu.queue, inputs, targets, sequence)?;
        gpu.submit(|pass| {
            self.encode(pass)?;
            self.head.iter().try_for_each(|step| step.encode(pass, &self.span))?;
            self.loss.encode(pass, &self.span)
        })?;
        Ok(gpu.read_part(&self.losses, 0..tokens as usize).await?)
    }

    /// The logits after the last of the tokens, any number, which come after `position` others that are in the cache. They are
    /// taken in pieces of as many as the model has capacity for.
    pub async fn logits(&mut self, gpu: &Gpu, ids: &[u32], position: u32) -> Result<Vec<f32>, Error> {
        if ids.is_empty() {
            return Err(Error::NoTokens);
        }
        self.check(&[ids], u64::from(position) + ids.len() as u64)?;
        self.last.set(&gpu.queue, 1, 0, ENDLESS)?;
        let row = 4 * u64::from(self.config.width);
        let mut left = ids;
        while !left.is_empty() {
            let (piece, rest) = left.split_at(left.len().min(self.how.capacity as usize));
            let (tokens, before) = (piece.len() as u32, (ids.len() - left.len()) as u32);
            self.span.set(&gpu.queue, tokens, position + before, ENDLESS)?;
            gpu.queue.write_buffer(&self.tokens, 0, bytemuck::cast_slice(piece));
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            self.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()))?;
            if rest.is_empty() {
                let first = u64::from(tokens - 1) * row;
                encoder.copy_buffer_to_buffer(&self.normed, first, &self.last_normed, 0, row);
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                self.last_head.iter().try_for_each(|step| step.encode(&mut pass, &self.last))?;
            }
            gpu.queue.submit([encoder.finish()]);
            left = rest;
        }
        Ok(gpu.read_part(&self.logits, 0..self.config.vocabulary as usize).await?)
    }
}

/// Whether a binding holds so many elements of each token.
fn check_words(gpu: &Gpu, name: &'static str, tokens: u32, columns: u32) -> Result<(), Error> {
    let elements = u64::from(tokens) * u64::from(columns);
    let (needed, allowed) = (elements.saturating_mul(4), binding_bytes(gpu));
    if needed > allowed { Err(Error::Activations { name, tokens, needed, allowed }) } else { Ok(()) }
}

/// A buffer with so many elements of each token. Every shader can bind it as a whole.
fn words(gpu: &Gpu, name: &'static str, tokens: u32, columns: u32) -> Result<wgpu::Buffer, Error> {
    check_words(gpu, name, tokens, columns)?;
    Ok(gpu.zeroed(name, tokens as usize * columns as usize)?)
}
