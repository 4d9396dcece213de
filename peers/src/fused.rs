//! hydralora's kernels.

use hydralora::device::Gpu;
use hydralora::{Adapter, Forward, ForwardDescriptor, Kernels, Layout, WriteMode, wgpu};

use crate::contest::{Outcome, Pass, Problem};
use crate::layer::{Layer, Tensors, Writes};

type Recording = Box<dyn Fn(&mut wgpu::ComputePass<'_>)>;

struct Fused {
    gpu: Gpu,
    /// One for each input.
    recordings: Vec<Recording>,
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
    let kernels = Kernels::new(&gpu.device);
    let rows = |label, columns| gpu.zeroed(label, (tokens * columns) as usize);
    let (y, dx) = (rows("y", config.d_out)?, rows("dx", config.d_in)?);
    let (saved, dstate) = (rows("saved", config.state_len())?, rows("dstate", config.state_len())?);
    let g = gpu.upload("g", &vec![1.0; (tokens * config.d_out) as usize])?;
    let parameters = gpu.upload("parameters", &layout.pack(adapter)?)?;
    let packed = gpu.zeroed("gradients", layout.len())?;

    let record = |x: &Vec<f32>| -> Outcome<Recording> {
        let (x, write) = (gpu.upload("x", x)?, WriteMode::Overwrite);
        let (x, parameters, y) = ((&x).into(), (&parameters).into(), (&y).into());
        if !training {
            let descriptor = ForwardDescriptor { config, tokens, x, parameters, y, write, saved: None };
            let forward = Forward::prepare(&kernels, &descriptor)?;
            return Ok(Box::new(move |pass| forward.encode(pass)));
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
        let layer = Layer::prepare(&kernels, config, tokens, &tensors, Writes::all(write))?;
        Ok(Box::new(move |pass| layer.encode(pass)))
    };
    let recordings = inputs.iter().map(record).collect::<Outcome<_>>()?;
    let gradients = training.then_some(Gradients { dx, packed, layout });
    Ok(Box::new(Fused { gpu: gpu.clone(), recordings, y, gradients }))
}

impl Pass for Fused {
    fn run(&mut self, input: usize) -> Outcome<()> {
        self.gpu.submit(&self.recordings[input])?;
        Ok(self.gpu.wait()?)
    }

    fn read(&self) -> Outcome<Vec<Vec<f32>>> {
        let mut results = vec![self.gpu.read_blocking(&self.y)?];
        if let Some(Gradients { dx, packed, layout }) = &self.gradients {
            let Adapter { a, router, b } = layout.unpack(&self.gpu.read_blocking(packed)?)?;
            results.extend([self.gpu.read_blocking(dx)?, a, router, b.concat()]);
        }
        Ok(results)
    }
}
