//! Adds a HydraLoRA adapter to the output of a frozen layer, in an application that owns a device.

use hydralora::{Adapter, Batch, Config, ForwardOptions, Kernels, Operation, WriteMode, device::Gpu, wgpu};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Your own wgpu device and queue; `Gpu` bundles them for the upload and read helpers below.
    let Gpu { device, queue } = pollster::block_on(Gpu::from_env())?;
    let gpu = Gpu { device: device.clone(), queue: queue.clone() };

    let (d_in, d_out, most_tokens) = (512, 1024, 32);
    let config = Config { d_in, d_out, rank: 8, experts: 4, scaling: 2.0, ..Config::default() };
    let mut adapter = Adapter::initialise(&config, 42)?;
    adapter.b.iter_mut().flatten().for_each(|b| *b = 0.01);

    // Your tensors: the layer's input, and the frozen layer's output.
    let x = gpu.upload("x", &vec![0.1; (most_tokens * d_in) as usize])?;
    let y = gpu.upload("y", &vec![1.0; (most_tokens * d_out) as usize])?;
    let parameters = gpu.upload("adapter", &config.layout()?.pack(&adapter)?)?;

    // Once for each shape: plan and compile. Once for each layer: bind its tensors.
    let kernels = Kernels::new(&device, &queue);
    let forward = Operation::Forward(ForwardOptions { write: WriteMode::Accumulate, ..Default::default() });
    let forward = kernels.prepare(&forward, &config, most_tokens)?.bind(&[
        ("x", (&x).into()),
        ("parameters", (&parameters).into()),
        ("y", (&y).into()),
    ])?;
    // One for the whole model: the number of tokens.
    let mut batch = Batch::new(&kernels, most_tokens)?;

    // For each batch: record into your own encoder.
    for tokens in [most_tokens, 3] {
        batch.set(&queue, tokens)?;
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        forward.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), &batch)?;
        queue.submit([encoder.finish()]);
    }

    println!("{}: y[0] went from 1 to {}", gpu.describe(), gpu.read_blocking(&y)?[0]);
    Ok(())
}
