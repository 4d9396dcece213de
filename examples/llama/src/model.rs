//! A model that is ready to run: its weights, its activations on the device, and every dispatch of a forward pass bound.

use hydralora::device::Gpu;
use hydralora::{
    Batch, Bound, Capacity, Kernels, LinearDirection, LinearOptions, Operation, Plans, Tensor, WriteMode,
    wgpu,
};

use crate::adapters::{Adapters, Projection};
use crate::backward;
use crate::config::Config;
use crate::error::Error;
use crate::shader::{Dispatch, Shader, Shaders};
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
    Library(Bound),
}

impl Step {
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>, span: &Span) -> Result<(), Error> {
        match self {
            Self::Own(dispatch) => dispatch.encode(pass, span.batch.tokens()),
            Self::Library(bound) => bound.encode(pass, &span.batch)?,
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
    /// Whether adapters are trained: every block then has activations of its own, and sequences begin at place 0.
    pub training: bool,
}

impl Use {
    /// Rows of keys, and of values.
    fn rows(&self) -> u32 {
        self.capacity.max(self.context)
    }

    /// Bytes of the activations, of the keys and values, and of their gradients.
    pub fn bytes(&self, config: &Config) -> u64 {
        let [width, hidden, keys] = [config.width, config.hidden, config.key_width()].map(u64::from);
        let (blocks, heads) = (u64::from(config.blocks), u64::from(config.heads));
        let block = 9 * width + 2 * keys + heads + 3 * hidden;
        let shared = 4 * width + u64::from(config.vocabulary) + 4;
        let own =
            if self.training { blocks * block + 5 * width + 3 * (hidden + keys) + heads } else { block };
        let rows = u64::from(self.rows());
        4 * (u64::from(self.capacity) * (shared + own) + 2 * blocks * keys * rows)
    }
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
    head: Bound,
    last_head: Bound,
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
    pub fn words(&self, label: &str, columns: u32) -> Result<wgpu::Buffer, Error> {
        Ok(self.gpu.zeroed(label, self.how.capacity as usize * columns as usize)?)
    }

    fn activations(&self) -> Result<Activations, Error> {
        let Config { width, hidden, heads, .. } = self.weights.config;
        let mut all = Activations {
            x: self.words("x", width)?,
            h: self.words("h", width)?,
            query: self.words("query", width)?,
            key: self.words("key", self.weights.config.key_width())?,
            value: self.words("value", self.weights.config.key_width())?,
            rotated: self.words("rotated", width)?,
            keys: self.words("nothing", 1)?,
            values: self.words("nothing", 1)?,
            log_sums: self.words("log sums", heads)?,
            attended: self.words("attended", width)?,
            output: self.words("output", width)?,
            x_hidden: self.words("x hidden", width)?,
            h_hidden: self.words("h hidden", width)?,
            gate: self.words("gate", hidden)?,
            up: self.words("up", hidden)?,
            act: self.words("act", hidden)?,
            down: self.words("down", width)?,
        };
        self.new_cache(&mut all)?;
        Ok(all)
    }

    /// Keys and values are each block's own, so that a generation can go on.
    fn new_cache(&self, all: &mut Activations) -> Result<(), Error> {
        let rows = self.how.rows();
        let cache = |label| self.gpu.zeroed(label, (rows * self.weights.config.key_width()) as usize);
        (all.keys, all.values) = (cache("keys")?, cache("values")?);
        Ok(())
    }

    /// A frozen matrix either way: y = W x, or dx (+)= g W.
    pub fn linear(
        &self,
        direction: LinearDirection,
        [d_in, d_out]: [u32; 2],
        [source, weight, target]: [&wgpu::Buffer; 3],
        write: WriteMode,
        tokens: u32,
    ) -> Result<Bound, Error> {
        let element = self.weights.element;
        let options = LinearOptions { direction, write, weight: element, ..Default::default() };
        let config = hydralora::Config { d_in, d_out, ..Default::default() };
        let capacity = Capacity { tokens, plans: Plans::Several };
        let prepared = self.kernels.prepare(&Operation::Linear(options), &config, capacity)?;
        let weight = Tensor::from(weight).of(element);
        let names = direction.names();
        Ok(prepared.bind(&[(names[0], source.into()), ("weight", weight), (names[1], target.into())])?)
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
        tensors: [&wgpu::Buffer; 3],
    ) -> Result<(), Error> {
        let shape = projection.shape(&self.weights.config);
        let (write, tokens) = (WriteMode::Overwrite, self.how.capacity);
        let [x, _, y] = tensors;
        steps.push(Step::Library(self.linear(LinearDirection::Forward, shape, tensors, write, tokens)?));
        if let Some(adapters) = self.adapters
            && let Some(bound) = adapters.forward(block, projection, x, y, self.how.training)?
        {
            steps.push(Step::Library(bound));
        }
        Ok(())
    }

    /// What reaches a projection's input from its output's gradient, and its adapter's gradients.
    pub fn projection_backward(
        &self,
        steps: &mut Vec<Step>,
        (block, projection): (u32, Projection),
        [x, g, weight, dx]: [&wgpu::Buffer; 4],
        write: WriteMode,
    ) -> Result<(), Error> {
        let shape = projection.shape(&self.weights.config);
        let tokens = self.how.capacity;
        let linear = self.linear(LinearDirection::Backward, shape, [g, weight, dx], write, tokens)?;
        steps.push(Step::Library(linear));
        if let Some(adapters) = self.adapters {
            steps.extend(adapters.backward(block, projection, [x, g, dx])?.into_iter().map(Step::Library));
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
        let shaders = self.shaders;
        let at = |projection| (index, projection);
        steps.push(self.own(&shaders.norm, &[&block.attention_norm, x, added, &own.x, &own.h]));
        self.projection(steps, at(Projection::Query), [&own.h, &block.query, &own.query])?;
        self.projection(steps, at(Projection::Key), [&own.h, &block.key, &own.key])?;
        self.projection(steps, at(Projection::Value), [&own.h, &block.value, &own.value])?;
        let attention = [&own.rotated, &own.keys, &own.values, &own.attended, &own.log_sums];
        steps.extend([
            self.own(&shaders.rope_query, &[&own.query, &own.rotated, &self.turns]),
            self.own(&shaders.rope_key, &[&own.key, &own.keys, &self.turns]),
            self.own(&shaders.store_value, &[&own.value, &own.values, &self.turns]),
            self.own(&shaders.attention, &attention),
        ]);
        self.projection(steps, at(Projection::Output), [&own.attended, &block.output, &own.output])?;
        let norm = [&block.hidden_norm, &own.x, &own.output, &own.x_hidden, &own.h_hidden];
        steps.push(self.own(&shaders.norm, &norm));
        self.projection(steps, at(Projection::Gate), [&own.h_hidden, &block.gate, &own.gate])?;
        self.projection(steps, at(Projection::Up), [&own.h_hidden, &block.up, &own.up])?;
        steps.push(self.own(&shaders.silu, &[&own.gate, &own.up, &own.act]));
        self.projection(steps, at(Projection::Down), [&own.act, &block.down, &own.down])
    }
}

impl Model {
    /// Binds every dispatch of a model. `shaders` are those of its weights.
    pub fn new(
        gpu: &Gpu,
        kernels: &Kernels,
        weights: &Weights,
        shaders: &Shaders,
        adapters: Option<&Adapters>,
        how: Use,
    ) -> Result<Self, Error> {
        let config = weights.config.clone();
        if how.context > config.context {
            return Err(Error::Context { tokens: how.context, position: 0, context: config.context });
        }
        let (span, last) = (Span::new(kernels, gpu)?, Span::new(kernels, gpu)?);
        let turns = gpu.upload("turns", &turns(&config, how.context))?;
        let binder = Binder { gpu, kernels, weights, shaders, adapters, span: &span.uniform, turns, how };
        let (width, vocabulary) = (config.width, config.vocabulary);
        let words = |label, columns| binder.words(label, columns);
        let (tokens, targets) = (words("tokens", 1)?, words("targets", 1)?);
        let (embedded, zeros) = (words("embedded", width)?, words("zeros", width)?);
        let (sum, normed) = (words("sum", width)?, words("normed", width)?);
        let (logits, losses) = (words("logits", vocabulary)?, words("losses", 1)?);
        let last_normed = gpu.zeroed("last normed", width as usize)?;
        let token_weights = words("weights", 1)?;

        let mut forward = vec![binder.own(&shaders.embed, &[&tokens, &weights.embedding, &embedded])];
        let mut all: Vec<Activations> = Vec::new();
        for index in 0..config.blocks {
            let own = match all.last() {
                Some(before) if !how.training => {
                    let mut own = before.clone();
                    binder.new_cache(&mut own)?;
                    own
                }
                _ => binder.activations()?,
            };
            let input = all.last().map_or([&embedded, &zeros], |before| [&before.x_hidden, &before.down]);
            binder.block(&mut forward, index, input, &own)?;
            all.push(own);
        }
        let input = all.last().map_or([&embedded, &zeros], |before| [&before.x_hidden, &before.down]);
        forward.push(binder.own(&shaders.norm, &[&weights.norm, input[0], input[1], &sum, &normed]));

        let shape = [width, vocabulary];
        let head = |source, tokens| {
            let tensors = [source, weights.head(), &logits];
            binder.linear(LinearDirection::Forward, shape, tensors, WriteMode::Overwrite, tokens)
        };
        let (whole_head, last_head) = (head(&normed, how.capacity)?, head(&last_normed, 1)?);
        let loss = [&targets, &token_weights, &logits, &losses];
        let mut backward = Vec::new();
        if how.training {
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

    /// Whether so many tokens fit, of which the longest sequence reaches from its first place to its end.
    fn check(&self, tokens: u32, [position, end]: [u32; 2]) -> Result<(), Error> {
        let Use { capacity, context, .. } = self.how;
        let fits = tokens > 0 && tokens <= capacity && end <= context;
        if fits { Ok(()) } else { Err(Error::Context { tokens, position, context: context.min(capacity) }) }
    }

    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<(), Error> {
        self.forward.iter().try_for_each(|step| step.encode(pass, &self.span))
    }

    /// Sets the tokens of a step, each with the one that it should predict, in sequences of this length.
    fn set(
        &mut self,
        queue: &wgpu::Queue,
        inputs: &[u32],
        targets: &[u32],
        sequence: u32,
    ) -> Result<u32, Error> {
        let tokens = inputs.len().min(targets.len()) as u32;
        self.check(tokens, [0, tokens.min(sequence)])?;
        self.span.set(queue, tokens, 0, sequence)?;
        queue.write_buffer(&self.tokens, 0, bytemuck::cast_slice(inputs));
        queue.write_buffer(&self.targets, 0, bytemuck::cast_slice(targets));
        let weights = vec![1.0 / tokens as f32; tokens as usize];
        queue.write_buffer(&self.token_weights, 0, bytemuck::cast_slice(&weights));
        Ok(tokens)
    }

    /// Records a step of training: forward, the losses, and backward to the adapters' gradients of their mean.
    pub fn train(
        &mut self,
        queue: &wgpu::Queue,
        pass: &mut wgpu::ComputePass<'_>,
        [inputs, targets]: [&[u32]; 2],
        sequence: u32,
    ) -> Result<(), Error> {
        self.set(queue, inputs, targets, sequence)?;
        self.encode(pass)?;
        self.head.encode(pass, &self.span.batch)?;
        self.backward.iter().try_for_each(|step| step.encode(pass, &self.span))
    }

    /// The mean weights that each module's router gives its experts, for the first tokens of a text.
    pub fn routing(
        &mut self,
        gpu: &Gpu,
        reports: &[(Bound, wgpu::Buffer)],
        [inputs, targets]: [&[u32]; 2],
        sequence: u32,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let most = inputs.len().min(self.how.capacity as usize);
        self.set(&gpu.queue, &inputs[..most], &targets[..most], sequence)?;
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            self.encode(&mut pass)?;
            for (bound, _) in reports {
                bound.encode(&mut pass, &self.span.batch)?;
            }
        }
        gpu.queue.submit([encoder.finish()]);
        let weights = |(_, report): &(Bound, wgpu::Buffer)| {
            let report = gpu.read_blocking(report)?;
            Ok(report[5 + (report.len() - 5) / 2..].to_vec())
        };
        reports.iter().map(weights).collect()
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
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            self.encode(&mut pass)?;
            self.head.encode(&mut pass, &self.span.batch)?;
            self.loss.encode(&mut pass, &self.span)?;
        }
        gpu.queue.submit([encoder.finish()]);
        Ok(gpu.read_part(&self.losses, 0..tokens as usize).await?)
    }

    /// The logits after the last of the tokens, which come after `position` others that are in the cache.
    pub async fn logits(&mut self, gpu: &Gpu, ids: &[u32], position: u32) -> Result<Vec<f32>, Error> {
        let tokens = ids.len() as u32;
        self.check(tokens, [position, position.saturating_add(tokens)])?;
        self.span.set(&gpu.queue, tokens, position, ENDLESS)?;
        self.last.set(&gpu.queue, 1, 0, ENDLESS)?;
        gpu.queue.write_buffer(&self.tokens, 0, bytemuck::cast_slice(ids));
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()))?;
        let row = 4 * u64::from(self.config.width);
        let first = u64::from(tokens - 1) * row;
        encoder.copy_buffer_to_buffer(&self.normed, first, &self.last_normed, 0, row);
        self.last_head.encode(
            &mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()),
            &self.last.batch,
        )?;
        gpu.queue.submit([encoder.finish()]);
        Ok(gpu.read_part(&self.logits, 0..self.config.vocabulary as usize).await?)
    }
}

/// The cosine and the sine of every pair of a head at every place.
fn turns(config: &Config, context: u32) -> Vec<f32> {
    let pairs = config.head_width / 2;
    let angle = |place: u32, pair: u32| {
        let rate = f64::from(config.rope_base).powf(-f64::from(pair) / f64::from(pairs));
        f64::from(place) * rate
    };
    let turn = |place, pair| [angle(place, pair).cos() as f32, angle(place, pair).sin() as f32];
    (0..context).flat_map(|place| (0..pairs).flat_map(move |pair| turn(place, pair))).collect()
}

/// The index of the largest number.
pub fn largest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(index, _)| index as u32)
}
