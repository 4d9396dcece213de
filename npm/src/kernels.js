import { HydraloraError, json, planned, refused, scoped } from "./error.js";
import { Prepared } from "./prepared.js";
import { loaded } from "./wasm.js";

/**
 * One dispatch, as the planner records it.
 *
 * @typedef {object} Step
 * @property {string} label
 * @property {string} wgsl
 * @property {number[]} uniform
 * @property {({ Tensor: string } | { Scratch: number })[]} slots
 * @property {("Read" | "Write")[]} bindings
 * @property {"Nothing" | "Batch" | "Hyper"} varying
 * @property {Grid} grid
 */

/**
 * @typedef {{ Fixed: [number, number, number] } | { Tiles: { x: number, tile: number, most: number, first: number, count:
 *   number } }} Grid
 */

/**
 * An operation planned for up to a number of tokens.
 *
 * @typedef {object} Recording
 * @property {string} operation
 * @property {number} capacity
 * @property {import("./tensors.js").Operand[]} tensors
 * @property {number[]} scratch
 * @property {Step[]} steps
 */

/**
 * A compiled step.
 *
 * @typedef {object} Pipeline
 * @property {GPUComputePipeline} compute
 * @property {GPUBindGroupLayout} layout
 * @property {boolean} varies whether there is a group 1
 */

/** `GPUShaderStage.COMPUTE` and `GPUBufferUsage.COPY_DST | GPUBufferUsage.UNIFORM`, which Node has under other names. */
const COMPUTE = 0x4;
const UNIFORM = 0x8 | 0x40;

/**
 * The kernels on one of the page's devices. It prepares operations.
 *
 * Pipelines compile on first use and are kept; so are plans and uniforms. Make one for each device and share it. It
 * submits nothing; its queue writes constants.
 */
export class Kernels {
  /** @type {Map<string, Promise<Prepared>>} */
  #prepared = new Map();
  /** @type {Map<string, Promise<Pipeline>>} */
  #pipelines = new Map();
  /** @type {Map<string, GPUBuffer>} */
  #uniforms = new Map();
  #planner;
  #varying;
  /** @type {GPUDeviceLostInfo | undefined} */
  #lost;

  /**
   * The kernels on a device, planned for its limits and for the class of its adapter.
   *
   * With `pooled`, shaders declare read-only tensors as written too, so that the tensors that an operation reads and those
   * that it writes may lie in one buffer, in ranges that do not overlap.
   *
   * @param {GPUDevice} device
   * @param {{ info?: GPUAdapterInfo, pooled?: boolean }} [options] `info` is by default the device's
   */
  static async create(device, { info = device.adapterInfo, pooled = false } = {}) {
    const { Planner } = await loaded();
    // Older browsers have the info at the adapter alone.
    const unknown = { vendor: "", architecture: "", description: "" };
    const request = json({ limits: copied(device.limits), info: { ...unknown, ...copied(info ?? {}) } });
    return new Kernels(device, planned(() => new Planner(request)), pooled);
  }

  /**
   * Use `Kernels.create`.
   *
   * @private
   * @param {GPUDevice} device
   * @param {import("./planner.js").Planner} planner
   * @param {boolean} pooled
   */
  constructor(device, planner, pooled) {
    /** The page's device. */
    this.device = device;
    /** Whether all tensors of an operation may lie in one buffer. */
    this.pooled = pooled;
    this.#planner = planner;
    this.#varying = device.createBindGroupLayout({ label: "hydralora varying", entries: [entry(0, "uniform")] });
    device.lost.then((info) => {
      this.#lost = info;
    });
  }

  /** Number of pipelines compiled so far, or being compiled. */
  get compiled() {
    return this.#pipelines.size;
  }

  /**
   * Plans and compiles an operation on a layer for batches of up to `capacity` tokens. The result is kept, so asking again,
   * such as for the next layer with the same configuration, costs only a look-up. Failures are not kept.
   *
   * @param {import("./types.js").Operation} operation
   * @param {import("./types.js").Config} config
   * @param {number | import("./types.js").Capacity} capacity
   * @returns {Promise<Prepared>}
   */
  prepare(operation, config, capacity) {
    const request = json({
      operation,
      config,
      capacity: typeof capacity === "object" ? capacity : { tokens: capacity },
    });
    const kept = this.#prepared.get(request);
    if (kept) return kept;
    const preparing = this.prepareRecordings(() => this.#planner.plan(request));
    return keep(this.#prepared, request, preparing);
  }

  /**
   * AdamW's recordings, each prepared.
   *
   * @internal
   * @param {number[]} elements
   * @param {import("./types.js").AdamWHyper} hyper
   * @returns {Promise<Prepared[]>}
   */
  async prepareAdamW(elements, hyper) {
    const request = json({ elements, hyper });
    /** @type {Recording[]} */
    const recordings = JSON.parse(planned(() => this.#planner.adamw(request)));
    return Promise.all(recordings.map((recording) => this.prepareRecordings(() => JSON.stringify([recording]))));
  }

  /**
   * @internal
   * @param {() => string} plan
   * @returns {Promise<Prepared>}
   */
  async prepareRecordings(plan) {
    this.checkAlive();
    /** @type {Recording[]} */
    const recordings = JSON.parse(planned(plan));
    const variants = recordings.map(async (recording) => {
      const pipelines = await Promise.all(recording.steps.map((step) => this.#pipeline(step)));
      const uniforms = await Promise.all(recording.steps.map(({ uniform }) => this.#uniform(uniform)));
      return { recording, pipelines, uniforms };
    });
    return new Prepared(this, await Promise.all(variants));
  }

  /** Throws if the device was lost. @internal */
  checkAlive() {
    if (!this.#lost) return;
    const { message, reason } = this.#lost;
    const advice = "request another device, and create the kernels and all buffers anew";
    throw new HydraloraError("DeviceLost", `the device was lost (${message || reason}): ${advice}`, { reason });
  }

  /**
   * A uniform that changes, and the group 1 that binds it.
   *
   * @internal
   * @param {string} label
   * @param {number} size
   */
  varied(label, size) {
    this.checkAlive();
    const buffer = this.device.createBuffer({ label, size, usage: UNIFORM });
    const entries = [{ binding: 0, resource: { buffer } }];
    return { buffer, bindGroup: this.device.createBindGroup({ label, layout: this.#varying, entries }) };
  }

  /** @param {Step} step */
  #pipeline({ label, wgsl, bindings, varying }) {
    const code = this.pooled ? wgsl.replaceAll("var<storage, read>", "var<storage, read_write>") : wgsl;
    const kept = this.#pipelines.get(code);
    return kept ?? keep(this.#pipelines, code, this.#compile(label, code, bindings, varying !== "Nothing"));
  }

  /**
   * @param {string} label
   * @param {string} code
   * @param {("Read" | "Write")[]} bindings
   * @param {boolean} varies
   * @returns {Promise<Pipeline>}
   */
  async #compile(label, code, bindings, varies) {
    const { device, pooled } = this;
    const action = `compiling ${label}`;
    const storage = bindings.map((kind) => (kind === "Read" && !pooled ? "read-only-storage" : "storage"));
    const entries = [entry(0, "uniform"), ...storage.map((type, at) => entry(at + 1, type))];
    const made = scoped(device, action, () => {
      const layout = device.createBindGroupLayout({ label, entries });
      const bindGroupLayouts = varies ? [layout, this.#varying] : [layout];
      const compute = device.createComputePipelineAsync({
        label,
        layout: device.createPipelineLayout({ label, bindGroupLayouts }),
        compute: { module: device.createShaderModule({ label, code }), entryPoint: "main" },
      });
      // Awaited below; a rejection is not unhandled meanwhile.
      compute.catch(() => {});
      return { layout, compute };
    });
    const { layout, compute } = await made;
    try {
      return { compute: await compute, layout, varies };
    } catch (error) {
      this.checkAlive();
      throw refused(action, /** @type {Error} */ (error));
    }
  }

  /**
   * A uniform buffer with these contents, shared by all steps that need the same contents.
   *
   * @param {number[]} bytes
   */
  async #uniform(bytes) {
    const key = bytes.join();
    const kept = this.#uniforms.get(key);
    if (kept) return kept;
    const { device } = this;
    const contents = new Uint8Array(Math.ceil(bytes.length / 16) * 16);
    contents.set(bytes);
    const made = await scoped(device, "creating a uniform buffer", () => {
      const buffer = device.createBuffer({ label: "hydralora uniform", size: contents.length, usage: UNIFORM });
      device.queue.writeBuffer(buffer, 0, contents);
      return buffer;
    });
    this.#uniforms.set(key, made);
    return made;
  }
}

/**
 * Keeps what is being made, unless it fails.
 *
 * @template T
 * @param {Map<string, Promise<T>>} kept
 * @param {string} key
 * @param {Promise<T>} making
 */
function keep(kept, key, making) {
  kept.set(key, making);
  making.catch(() => kept.delete(key));
  return making;
}

/**
 * @param {number} binding
 * @param {string} type
 */
function entry(binding, type) {
  return { binding, visibility: COMPUTE, buffer: { type: /** @type {GPUBufferBindingType} */ (type) } };
}

/**
 * The properties of one of the browser's objects, whose getters lie in its prototype.
 *
 * @param {object} object
 */
function copied(object) {
  /** @type {Record<string, unknown>} */
  const copy = {};
  for (const name in object) copy[name] = /** @type {Record<string, unknown>} */ (object)[name];
  return copy;
}
