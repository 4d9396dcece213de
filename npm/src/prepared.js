import { HydraloraError, camelCase, scoped } from "./error.js";
import { STORAGE, aliased, check, checkBuffers, given } from "./tensors.js";

/** @typedef {import("./tensors.js").Given} Given */
/** @typedef {import("./tensors.js").Operand} Operand */

/**
 * A recording with its pipelines and uniforms.
 *
 * @typedef {object} Variant
 * @property {import("./kernels.js").Recording} recording
 * @property {import("./kernels.js").Pipeline[]} pipelines
 * @property {GPUBuffer[]} uniforms
 */

/**
 * A dispatch of a bound operation.
 *
 * @typedef {object} Dispatch
 * @property {import("./kernels.js").Pipeline} pipeline
 * @property {GPUBindGroup} bindGroup
 * @property {import("./kernels.js").Grid} grid
 */

/** The name under which a page may give scratch memory. */
const SCRATCH = "scratch";

/**
 * An operation on a layer, planned and compiled for batches of up to its capacity. It can be bound to the tensors of any
 * number of layers with this configuration.
 */
export class Prepared {
  #kernels;
  #variants;
  /** @type {{ starts: number[], end: number }[]} */
  #scratch;

  /**
   * Use `Kernels.prepare`.
   *
   * @internal
   * @param {import("./kernels.js").Kernels} kernels
   * @param {Variant[]} variants for different numbers of tokens, the smallest first
   */
  constructor(kernels, variants) {
    this.#kernels = kernels;
    this.#variants = variants;
    const alignment = kernels.device.limits.minStorageBufferOffsetAlignment;
    this.#scratch = variants.map(({ recording }) => places(recording.scratch, alignment));
    const { operation, capacity, tensors } = variants[variants.length - 1].recording;
    /** @internal */
    this.operands = tensors;
    /** Its name. */
    this.operation = camelCase(operation);
    /** The most tokens of a batch. */
    this.capacity = capacity;
    /**
     * The tensors that it binds, with room for that many tokens.
     *
     * @type {import("./types.js").TensorShape[]}
     */
    this.tensors = tensors.map(({ name, kind, element, rows, columns, stride, bytes }) => ({
      name: camelCase(name),
      written: kind === "Write",
      element: /** @type {import("./types.js").Element} */ (element.toLowerCase()),
      rows,
      columns,
      stride,
      bytes,
    }));
    /** Bytes of scratch memory that it needs while it runs; 0 if it needs none. */
    this.scratchBytes = Math.max(...this.#scratch.map(({ end }) => end));
  }

  /**
   * Binds tensors by their names, which the operation's options list. Tensors have room for the full capacity; a batch may
   * have fewer tokens.
   *
   * This allocates scratch memory, unless a tensor `scratch` of `scratchBytes` is given, in a buffer of its own. Operations
   * that do not run at the same time may share that tensor, such as all operations in the passes of one queue.
   *
   * @param {Record<string, import("./types.js").Tensor>} tensors
   * @returns {Promise<Bound>}
   */
  async bind(tensors) {
    const kernels = this.#kernels;
    kernels.checkAlive();
    const { operation } = this;
    const { device, pooled } = kernels;
    for (const tensor of Object.keys(tensors)) {
      if (tensor === SCRATCH || this.tensors.some(({ name }) => name === tensor)) continue;
      const names = [...this.tensors.map(({ name }) => name), SCRATCH].join(", ");
      const message = `${operation} has no tensor ${JSON.stringify(tensor)}: it has ${names}`;
      throw new HydraloraError("UnknownTensor", message, { operation, tensor });
    }
    const bound = this.operands.map((operand, at) => {
      const tensor = this.tensors[at].name;
      if (tensors[tensor]) return given(operand, tensors[tensor]);
      const message = `${operation} needs the tensor ${tensor}, which was not given`;
      throw new HydraloraError("MissingTensor", message, { operation, tensor });
    });
    let scratch = tensors[SCRATCH] && given(scratchOperand(this.scratchBytes), tensors[SCRATCH]);
    // Checked together, so that the answer does not depend on the plan.
    check(scratch ? [...bound, scratch] : bound, pooled, device.limits);
    if (!pooled) {
      checkBuffers(bound);
      const beside = bound.find(({ buffer }) => buffer === scratch?.buffer);
      if (beside) throw aliased(SCRATCH, beside.name);
    }
    if (!scratch && this.scratchBytes > 0) {
      const label = "hydralora scratch";
      const size = this.scratchBytes;
      const buffer = await scoped(device, `creating the buffer ${label}`, () =>
        device.createBuffer({ label, size, usage: STORAGE }),
      );
      scratch = given(scratchOperand(size), buffer);
    }
    const variants = await scoped(device, `binding the tensors of ${operation}`, () =>
      this.#variants.map((variant, at) => ({
        capacity: variant.recording.capacity,
        dispatches: dispatches(device, variant, bound, scratch, this.#scratch[at].starts),
      })),
    );
    const optimiser = this.#variants.some(({ recording }) => recording.steps.some(({ varying }) => varying === "Hyper"));
    return new Bound(operation, variants, optimiser);
  }
}

/** An operation bound to tensors. It can be encoded any number of times. */
export class Bound {
  #variants;
  #optimiser;

  /**
   * Use `Prepared.bind`.
   *
   * @internal
   * @param {string} operation
   * @param {{ capacity: number, dispatches: Dispatch[] }[]} variants
   * @param {boolean} optimiser whether its constants are those of an optimiser's step
   */
  constructor(operation, variants, optimiser) {
    /** Its name. */
    this.operation = operation;
    this.#variants = variants;
    this.#optimiser = optimiser;
  }

  /**
   * Number of dispatches for a batch of so many tokens.
   *
   * @param {number} tokens
   */
  dispatches(tokens) {
    return this.#variants.find(({ capacity }) => tokens <= capacity)?.dispatches.length ?? 0;
  }

  /**
   * Encodes the operation for the tokens of `batch`. It submits nothing.
   *
   * @param {GPUComputePassEncoder} pass
   * @param {import("./batch.js").Batch} batch
   */
  encode(pass, batch) {
    const { operation } = this;
    if (this.#optimiser) {
      const message = `${operation} takes no batch, but the constants of an optimiser's step: run it with AdamW`;
      throw new HydraloraError("NoBatch", message, { operation });
    }
    const { tokens } = batch;
    const variant = this.#variants.find(({ capacity }) => tokens <= capacity);
    if (!variant) {
      const { capacity } = this.#variants[this.#variants.length - 1];
      const message =
        `${operation} was prepared for up to ${capacity} tokens, and the batch has ${tokens}: prepare it for more`;
      throw new HydraloraError("OverCapacity", message, { operation, capacity, tokens });
    }
    encode(pass, variant.dispatches, tokens, batch.bindGroup);
  }

  /**
   * Encodes an operation without tokens.
   *
   * @internal
   * @param {GPUComputePassEncoder} pass
   * @param {GPUBindGroup} varying its uniform in group 1, if it has one
   */
  encodeWith(pass, varying) {
    for (const { dispatches } of this.#variants) encode(pass, dispatches, 1, varying);
  }
}

/**
 * @param {GPUComputePassEncoder} pass
 * @param {Dispatch[]} dispatches
 * @param {number} tokens
 * @param {GPUBindGroup} varying
 */
function encode(pass, dispatches, tokens, varying) {
  for (const { pipeline, bindGroup, grid } of dispatches) {
    const [x, y, z] = gridAt(grid, tokens);
    if (x === 0) continue;
    pass.setPipeline(pipeline.compute);
    pass.setBindGroup(0, bindGroup);
    if (pipeline.varies) pass.setBindGroup(1, varying);
    pass.dispatchWorkgroups(x, y, z);
  }
}

/**
 * The workgroups of a step for so many tokens. None if its first tile is past the last token.
 *
 * @param {import("./kernels.js").Grid} grid
 * @param {number} tokens
 */
function gridAt(grid, tokens) {
  if ("Fixed" in grid) return grid.Fixed;
  const { x, tile, most, first, count } = grid.Tiles;
  const tiles = Math.min(Math.ceil(tokens / tile) - first, count);
  if (tiles <= 0) return [0, 0, 0];
  const z = Math.ceil(tiles / most);
  return [x, Math.ceil(tiles / z), z];
}

/**
 * @param {GPUDevice} device
 * @param {Variant} variant
 * @param {Given[]} bound
 * @param {Given | undefined} scratch
 * @param {number[]} starts of each piece of scratch memory
 * @returns {Dispatch[]}
 */
function dispatches(device, { recording, pipelines, uniforms }, bound, scratch, starts) {
  /** @type {(slot: import("./kernels.js").Step["slots"][number]) => GPUBufferBinding} */
  const resource = (slot) => {
    if ("Tensor" in slot) {
      const { buffer, offset, operand } = /** @type {Given} */ (bound.find(({ operand }) => operand.name === slot.Tensor));
      // Exactly the bytes that the shape needs, so that the rest of the buffer is out of reach.
      return { buffer, offset, size: operand.bytes };
    }
    const { buffer, offset } = /** @type {Given} */ (scratch);
    return { buffer, offset: offset + starts[slot.Scratch], size: recording.scratch[slot.Scratch] };
  };
  return recording.steps.map(({ slots, grid }, at) => {
    const resources = [{ buffer: uniforms[at] }, ...slots.map(resource)];
    const entries = resources.map((resource, binding) => ({ binding, resource }));
    const { layout } = pipelines[at];
    const bindGroup = device.createBindGroup({ label: "hydralora", layout, entries });
    return { pipeline: pipelines[at], bindGroup, grid };
  });
}

/**
 * The start of each piece of scratch memory in one buffer, and the bytes of that buffer.
 *
 * @param {number[]} sizes
 * @param {number} alignment
 */
function places(sizes, alignment) {
  let end = 0;
  const starts = sizes.map((bytes) => {
    const start = Math.ceil(end / alignment) * alignment;
    end = start + bytes;
    return start;
  });
  return { starts, end: Math.ceil(end / 4) * 4 };
}

/**
 * @param {number} bytes
 * @returns {Operand}
 */
function scratchOperand(bytes) {
  const elements = bytes / 4;
  const fix = "request a device with the adapter's limit, or process fewer tokens at a time";
  return { name: SCRATCH, kind: "Write", element: "F32", rows: 1, columns: elements, stride: elements, bytes, fix };
}
