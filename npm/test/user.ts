// A user of the package in TypeScript. It is checked, and never run.

import { AdamW, Batch, HydraloraError, Kernels, Layout, type Config, type Operation, type Prepared } from "hydralora";

const config: Config = { dIn: 16, dOut: 8, rank: 2, experts: 3, weighting: { topK: { k: 2, renormalise: true } } };
const operation: Operation = { forward: { write: "accumulate", save: true } };

export async function train(device: GPUDevice, pass: GPUComputePassEncoder, x: GPUBuffer, y: GPUBuffer): Promise<number> {
  const layout: Layout = await Layout.create(config);
  const fresh: Float32Array<ArrayBuffer> = layout.initialise(42n, { heads: 0.1 });
  const parameters = device.createBuffer({ size: layout.bytes, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
  device.queue.writeBuffer(parameters, 0, fresh);
  const kernels = await Kernels.create(device, { pooled: true });
  const forward: Prepared = await kernels.prepare(operation, config, { tokens: 4, plans: "one" });
  const bound = await forward.bind({ x: { buffer: x, offset: 256, element: "f16" }, parameters, y });
  bound.encode(pass, new Batch(kernels, 4));
  const adamw = await AdamW.create(kernels, {
    buffers: [{ elements: layout.elements, parameters, gradients: x, moments: y }],
    hyper: { maxNorm: 1, groups: { b: { rate: 16 } } },
    adapters: [{ config }],
  });
  adamw.setStep(1, 1e-3);
  return forward.tensors.reduce((sum, { bytes }) => sum + bytes, 0);
}

export const mistake = (error: unknown): string | undefined => (error instanceof HydraloraError ? error.code : undefined);

// The types refuse mistakes, which types that are missing would not.

// @ts-expect-error A layer has a rank.
export const incomplete: Config = { dIn: 16, dOut: 8 };

// @ts-expect-error No operation has this name.
export const unknown: Operation = { backward: {} };

// @ts-expect-error A batch has a number of tokens.
export const batch = (kernels: Kernels) => new Batch(kernels, "4");
