//! hydralora's kernels.

use hydralora::device::Gpu;
use hydralora::{
    Adapter, Batch, Capacity, Error, ForwardOptions, Kernels, Layout, Operation, Plans, WriteMode, wgpu,
};
use hydralora_benches::layer::{Layer, Tensors};

use crate::contest::{Outcome, Pass, Problem};

type Encode = Box<dyn Fn(&mut wgpu::ComputePass<'_>, &Batch) -> Result<(), Error>>;

struct Fused {
    gpu: Gpu,
    batch: Batch,
    /// One for each input.
    encodes: Vec<Encode>,
    y: wgpu::Buffer,
    gradients: Option<Gradients>,
}

struct Gradients {
    dx: wgpu::Buffer,
    packed: wgpu::Buffer,
    layout: Layout,
}

/// A forward, which keeps nothing for a backward; or, in training, a forward and backward.
pub fn prepare(gpu: &Gpu, problem: &Problem, training: bool) -> Outcome<Box<dyn Pass>> {
    let Problem { config, tokens, ref adapter, ref inputs } = *problem;
    let layout = config.layout()?;
    let kernels = Kernels::new(&gpu.device, &gpu.queue);
    let rows = |label, columns| gpu.zeroed(label, (tokens * columns) as usize);
    let (y, dx) = (rows("y", config.d_out)?, rows("dx", config.d_in)?);
    let (saved, dstate) = (rows("saved", config.state_len())?, rows("dstate", config.state_len())?);
    let g = gpu.upload("g", &vec![1.0; (tokens * config.d_out) as usize])?;
    let parameters = gpu.upload("parameters", &layout.pack(adapter)?)?;
    let packed = gpu.zeroed("gradients", layout.len())?;

    let bind = |x: &Vec<f32>| -> Outcome<Encode> {
        let x = gpu.upload("x", x)?;
        let (x, parameters, y) = ((&x).into(), (&parameters).into(), (&y).into());
        if !training {
            let operation = Operation::Forward(ForwardOptions::default());
            let capacity = Capacity { tokens, plans: Plans::One };
            let forward = kernels.prepare(&operation, &config, capacity)?;
            let forward = forward.bind(&[("x", x), ("parameters", parameters), ("y", y)])?;
            return Ok(Box::new(move |pass, batch| forward.encode(pass, batch)));
        }
        let tensors = Tensors {
            x,
            g: (&g).into(),
            parameters,
            y,
            dx: (&dx).into(),
            saved: (&saved).into(),
            dstate: (&dstate).into(),
            gradients: (&packed).into(),
        };
        let layer = Layer::bind(&kernels, &config, tokens, WriteMode::Overwrite, &tensors)?;
        Ok(Box::new(move |pass, batch| layer.encode(pass, batch)))
    };
    let encodes = inputs.iter().map(bind).collect::<Outcome<_>>()?;
    let batch = Batch::new(&kernels, tokens)?;
    let gradients = training.then_some(Gradients { dx, packed, layout });
    Ok(Box::new(Fused { gpu: gpu.clone(), batch, encodes, y, gradients }))
}

impl Pass for Fused {
    fn queue(&mut self, input: usize) -> Outcome<()> {
        self.gpu.submit(|pass| self.encodes[input](pass, &self.batch))?;
        Ok(())
    }

    fn wait(&self) -> Outcome<()> {
        Ok(self.gpu.wait()?)
    }

    fn read(&self) -> Outcome<Vec<Vec<f32>>> {
        let mut results = vec![self.gpu.read_blocking(&self.y)?];
        if let Some(Gradients { dx, packed, layout }) = &self.gradients {
            let Adapter { a, router, b, .. } = layout.unpack(&self.gpu.read_blocking(packed)?)?;
            results.extend([self.gpu.read_blocking(dx)?, a, router, b.concat()]);
        }
        Ok(results)
    }

    /// Its tensors are its own.
    fn clear(&mut self) {}
}
