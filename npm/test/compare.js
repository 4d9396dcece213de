/** Training steps through the package, compared with the float64 twin: for Node and for pages. */

/**
 * A case of `cargo run --example npm_reference`.
 *
 * @typedef {object} Case
 * @property {string} name
 * @property {import("hydralora").Config} config
 * @property {number} tokens
 * @property {number} capacity
 * @property {import("hydralora").AdamWHyper} hyper
 * @property {number} learningRate
 * @property {{ seed: string, step: number }} random
 * @property {Record<string, number[]>} given
 * @property {Record<string, { values: number[], bounds: number[] }>} expected
 */

/** `GPUBufferUsage.STORAGE | COPY_SRC | COPY_DST`, and `MAP_READ | COPY_DST`; Node has these under other names. */
export const STORAGE = 0x80 | 0x4 | 0x8;
const STAGING = 0x1 | 0x8;

/**
 * A buffer of f32, with room for more than it has.
 *
 * @param {GPUDevice} device
 * @param {ArrayLike<number>} numbers
 * @param {number} [room]
 */
export function upload(device, numbers, room = numbers.length) {
  const buffer = device.createBuffer({ size: 4 * room, usage: STORAGE });
  device.queue.writeBuffer(buffer, 0, Float32Array.from(numbers));
  return buffer;
}

/**
 * What a buffer holds.
 *
 * @param {GPUDevice} device
 * @param {GPUBuffer} buffer
 */
export async function read(device, buffer) {
  const staging = device.createBuffer({ size: buffer.size, usage: STAGING });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, 0, staging, 0, buffer.size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(1);
  const numbers = new Float32Array(staging.getMappedRange().slice(0));
  staging.destroy();
  return numbers;
}

/**
 * The largest error over its bound. Throws at the first number beyond it.
 *
 * @param {string} name
 * @param {Float32Array} actual
 * @param {{ values: number[], bounds: number[] }} expected
 */
export function worstRatio(name, actual, { values, bounds }) {
  if (values.length === 0 || bounds.length !== values.length || actual.length < values.length) {
    throw new Error(`${name}: ${actual.length} numbers, ${values.length} expected`);
  }
  let worst = 0;
  for (const [at, value] of values.entries()) {
    const error = Math.abs(actual[at] - value);
    const ratio = error === 0 ? 0 : error / bounds[at];
    if (!(ratio <= 1)) {
      throw new Error(`${name}[${at}] is ${actual[at]}, expected ${value} within ${bounds[at]}`);
    }
    worst = Math.max(worst, ratio);
  }
  return worst;
}

/**
 * Runs a training step of a case, and compares everything that it leaves with the twin.
 *
 * @param {typeof import("hydralora")} hydralora
 * @param {GPUDevice} device
 * @param {Case} reference
 * @param {boolean} [pooled] whether all tensors lie in one buffer
 * @returns {Promise<Record<string, number>>} for each tensor the largest error over its bound
 */
export async function compare({ Kernels, Layout, Batch, AdamW }, device, reference, pooled = false) {
  const { config, tokens, capacity, hyper, learningRate, random, given, expected } = reference;
  const kernels = await Kernels.create(device, { pooled });
  const layout = await Layout.create(config);
  // Every plan has pipelines of its own, which software takes seconds to compile.
  const most = /** @type {const} */ ({ tokens: capacity, plans: "one" });
  const mask = given.mask !== undefined;
  const state = capacity * layout.stateLength;
  const [x, g] = [capacity * config.dIn, capacity * config.dOut];
  const sizes = {
    x,
    g,
    y: g,
    dx: x,
    parameters: layout.elements,
    gradients: layout.elements,
    moments: 2 * layout.elements,
    saved: state,
    dstate: state,
    mask: capacity,
    status: 2,
  };
  const buffers = place(device, sizes, given, pooled);
  /** @type {(...names: (keyof typeof sizes)[]) => Record<string, import("hydralora").Tensor>} */
  const take = (...names) =>
    Object.fromEntries(names.filter((name) => name !== "mask" || mask).map((name) => [name, buffers[name]]));

  const write = /** @type {const} */ ("accumulate");
  const [forward, backwardInput, backwardParams] = await Promise.all([
    kernels.prepare({ forward: { write, save: true, mask } }, config, most),
    kernels.prepare({ backwardInput: { dx: { write }, mask } }, config, most),
    kernels.prepare({ backwardParams: { mask } }, config, most),
  ]);
  const operations = [
    await forward.bind(take("x", "parameters", "y", "saved", "mask")),
    await backwardInput.bind(take("g", "parameters", "saved", "dstate", "dx", "mask")),
    await backwardParams.bind(take("x", "g", "saved", "dstate", "gradients", "mask")),
  ];
  const { elements } = layout;
  const { parameters, gradients, moments } = buffers;
  const adamw = await AdamW.create(kernels, {
    buffers: [{ elements, parameters, gradients, moments }],
    hyper,
    ...(hyper.maxNorm && { status: buffers.status }),
    adapters: [{ config }],
  });
  const batch = new Batch(kernels, capacity);
  batch.set(tokens);
  batch.setRandom(BigInt(random.seed), random.step);
  adamw.setStep(1, learningRate);

  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  for (const operation of operations) operation.encode(pass, batch);
  adamw.encode(pass);
  pass.end();
  device.queue.submit([encoder.finish()]);

  /** @type {Record<string, number>} */
  const ratios = {};
  for (const [name, numbers] of Object.entries(expected)) {
    const { buffer, offset } = buffers[/** @type {keyof typeof sizes} */ (name)];
    const actual = (await read(device, buffer)).subarray(offset / 4);
    ratios[name] = worstRatio(`${reference.name}: ${name}`, actual, numbers);
  }
  return ratios;
}

/**
 * Tensors in buffers of their own, or all in one, with NaN wherever nothing is given.
 *
 * @template {string} Name
 * @param {GPUDevice} device
 * @param {Record<Name, number>} sizes
 * @param {Record<string, number[]>} given
 * @param {boolean} pooled
 */
function place(device, sizes, given, pooled) {
  const names = /** @type {Name[]} */ (Object.keys(sizes));
  const zeros = ["moments", "status"];
  const contents = names.map((name) => {
    const numbers = new Float32Array(sizes[name]).fill(zeros.includes(name) ? 0 : NaN);
    if (given[name]) numbers.set(given[name]);
    return numbers;
  });
  let end = 0;
  const offsets = contents.map(({ byteLength }) => {
    const offset = pooled ? Math.ceil(end / 256) * 256 : 0;
    end = offset + byteLength;
    return offset;
  });
  const pool = pooled && device.createBuffer({ size: end, usage: STORAGE });
  const placed = names.map((name, at) => {
    const { byteLength: size } = contents[at];
    const buffer = pool || device.createBuffer({ size, usage: STORAGE });
    device.queue.writeBuffer(buffer, offsets[at], contents[at]);
    return [name, { buffer, offset: offsets[at], size }];
  });
  return /** @type {Record<Name, { buffer: GPUBuffer, offset: number, size: number }>} */ (Object.fromEntries(placed));
}
