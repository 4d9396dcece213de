import { HydraloraError, json, planned, scoped } from "./error.js";
import { STORAGE, check, given } from "./tensors.js";
import { loaded } from "./wasm.js";

/** @typedef {import("./types.js").Tensor} Tensor */

/** `GPUBufferUsage.COPY_DST` */
const COPY_DST = 0x8;

/**
 * One buffer of parameters, with their gradients and moments, all in the same packed layout.
 *
 * @typedef {object} AdamWBuffers
 * @property {number} elements a multiple of four: `Layout.elements` for one adapter. Several adapters may lie in one buffer,
 *   with zeros between them.
 * @property {Tensor} parameters f32; updated
 * @property {Tensor} gradients f32
 * @property {Tensor} moments both moments, f32, 2 x `elements`; zeros before the first step, then updated
 */

/**
 * An adapter in AdamW's buffers, for groups of parameters that differ.
 *
 * @typedef {object} AdamWAdapter
 * @property {number} [buffer] the index of its buffer; by default 0
 * @property {number} [first] its first element there; by default 0
 * @property {import("./types.js").Config} config
 */

/**
 * AdamW over packed parameters, in the order of operations of PyTorch's: one dispatch for each buffer. With clipping, one
 * more for each buffer, and one for the norm.
 */
export class AdamW {
  #planner;
  #hyper;
  #bound;
  #queue;
  #step;

  /**
   * Checks the tensors, compiles the shaders if they were not, and binds everything.
   *
   * @param {import("./kernels.js").Kernels} kernels
   * @param {object} options
   * @param {AdamWBuffers[]} options.buffers one norm covers the gradients of all of them
   * @param {import("./types.js").AdamWHyper} [options.hyper]
   * @param {Tensor} [options.status] with `maxNorm`, receives after each step the norm of its gradients before clipping (f32)
   *   and the number of steps that were skipped because it was not finite (u32): 8 bytes, zeros before the first step
   * @param {AdamWAdapter[]} [options.adapters] the adapters in the buffers, if `hyper.groups` differ
   */
  static async create(kernels, { buffers, hyper = {}, status, adapters = [] }) {
    const { device, pooled } = kernels;
    const clip = hyper.maxNorm != null;
    if (status && !clip) {
      const reason = "without maxNorm there is no norm, and no step is skipped";
      const message = `status was given, but ${reason}: leave it out`;
      throw new HydraloraError("UnusedTensor", message, { tensor: "status", reason });
    }
    const planner = await loaded();
    const prepared = await kernels.prepareAdamW(buffers.map(({ elements }) => elements), hyper);
    const updates = prepared.slice(-buffers.length);
    const takes = (/** @type {string} */ name) => updates[0].tensors.some((tensor) => tensor.name === name);
    const groups = takes("groups") ? await groupBuffers(planner, device, buffers, adapters) : [];
    const tensors = buffers.map(({ parameters, gradients, moments }, at) => ({
      parameters,
      gradients,
      moments,
      ...(groups[at] && { groups: groups[at] }),
    }));
    /** @type {import("./prepared.js").Bound[]} */
    const bound = [];
    if (clip) {
      const norms = prepared.slice(0, buffers.length);
      const reduce = prepared[buffers.length];
      const [squaresBytes, statusBytes] = reduce.tensors.map(({ bytes }) => bytes);
      // Checked together, because a dispatch writes the status before later ones read the other tensors.
      const all = updates.flatMap(({ operands }, at) =>
        operands.filter(({ name }) => name in buffers[at]).map((operand) =>
          given(operand, tensors[at][/** @type {"parameters"} */ (operand.name)]),
        ),
      );
      check(status ? [...all, given(reduce.operands[1], status)] : all, pooled, device.limits);
      const squares = await storage(device, "hydralora squares", squaresBytes);
      status ??= await storage(device, "hydralora status", statusBytes);
      for (const [at, norm] of norms.entries()) {
        bound.push(await norm.bind({ gradients: buffers[at].gradients, squares }));
      }
      bound.push(await reduce.bind({ squares, status }));
    }
    for (const [at, update] of updates.entries()) {
      bound.push(await update.bind(clip && status ? { ...tensors[at], status } : tensors[at]));
    }
    const adamw = new AdamW(kernels, planner, json(hyper), bound);
    adamw.setStep(1, 0);
    return adamw;
  }

  /**
   * Use `AdamW.create`.
   *
   * @private
   * @param {import("./kernels.js").Kernels} kernels
   * @param {typeof import("./planner.js")} planner
   * @param {string} hyper
   * @param {import("./prepared.js").Bound[]} bound
   */
  constructor(kernels, planner, hyper, bound) {
    this.#planner = planner;
    this.#hyper = hyper;
    this.#bound = bound;
    this.#queue = kernels.device.queue;
    this.#step = kernels.varied("hydralora adamw step", 64);
  }

  /**
   * Sets the number of the next step (the first is 1), its learning rate, and a factor of the gradients, which comes before
   * everything else: 1 / the number of batches whose gradients were added, over the scale of the loss.
   *
   * It takes effect before the next submission: encode at most one step of this optimiser for each.
   *
   * @param {number} step
   * @param {number} learningRate
   * @param {number} [gradientScale]
   */
  setStep(step, learningRate, gradientScale = 1) {
    const bytes = planned(() => this.#planner.adamw_uniform(this.#hyper, step, learningRate, gradientScale));
    this.#queue.writeBuffer(this.#step.buffer, 0, /** @type {Uint8Array<ArrayBuffer>} */ (bytes));
  }

  /** Number of dispatches of one step. */
  get dispatches() {
    return this.#bound.reduce((sum, bound) => sum + bound.dispatches(1), 0);
  }

  /**
   * Encodes one step. It submits nothing.
   *
   * @param {GPUComputePassEncoder} pass
   */
  encode(pass) {
    for (const bound of this.#bound) bound.encodeWith(pass, this.#step.bindGroup);
  }
}

/**
 * @param {GPUDevice} device
 * @param {string} label
 * @param {number} size
 */
function storage(device, label, size) {
  return scoped(device, `creating the buffer ${label}`, () =>
    device.createBuffer({ label, size, usage: STORAGE | COPY_DST }),
  );
}

/**
 * Writes the groups of all parameters to buffers of their own.
 *
 * @param {typeof import("./planner.js")} planner
 * @param {GPUDevice} device
 * @param {AdamWBuffers[]} buffers
 * @param {AdamWAdapter[]} adapters
 */
async function groupBuffers(planner, device, buffers, adapters) {
  if (adapters.length === 0) {
    const dimension = "the number of adapters, whose groups differ,";
    throw new HydraloraError("ZeroDimension", `${dimension} is 0: say where they lie, in adapters`, { dimension });
  }
  const writing = buffers.map(async ({ elements }, at) => {
    const here = adapters.filter(({ buffer = 0 }) => buffer === at);
    const request = json(here.map(({ first = 0, config }) => ({ first, config })));
    const words = planned(() => planner.parameter_groups(elements, request));
    const buffer = await storage(device, "hydralora groups", words.byteLength);
    device.queue.writeBuffer(buffer, 0, /** @type {Uint32Array<ArrayBuffer>} */ (words));
    return buffer;
  });
  return Promise.all(writing);
}
