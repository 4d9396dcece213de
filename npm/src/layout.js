import { json, planned } from "./error.js";
import { loaded } from "./wasm.js";

/**
 * A row-major block of the packed buffer. All numbers count f32 elements; rows start `stride` apart, which is `columns`
 * rounded up to a multiple of four.
 *
 * @typedef {object} Block
 * @property {number} offset
 * @property {number} rows
 * @property {number} columns
 * @property {number} stride
 */

/**
 * Where each parameter of a layer lies in its packed buffer. Parameters, gradients and each of the optimiser's two moments
 * are packed alike.
 */
export class Layout {
  #planner;
  #config;

  /**
   * The layout of a layer.
   *
   * @param {import("./types.js").Config} config
   */
  static async create(config) {
    return new Layout(await loaded(), json(config));
  }

  /**
   * Use `Layout.create`.
   *
   * @private
   * @param {typeof import("./planner.js")} planner
   * @param {string} config
   */
  constructor(planner, config) {
    this.#planner = planner;
    this.#config = config;
    const described = this.#with((packing) => JSON.parse(packing.describe()));
    /** Elements in the packed buffer, with the padding of its rows. @type {number} */
    this.elements = described.elements;
    /** Bytes of parameters, of gradients, or of one of the two moments. */
    this.bytes = 4 * this.elements;
    /** Trainable parameters, without padding. @type {number} */
    this.parameterCount = described.parameterCount;
    /** Numbers per token in `saved` and in `dstate`. @type {number} */
    this.stateLength = described.stateLength;
    /** Rows of A: the rank, or with an A for each expert experts x rank. @type {number} */
    this.aRows = described.aRows;
    /** A, and below it for the input router `W_g`: rows x dIn. @type {Block} */
    this.shrink = described.shrink;
    /** Row `i * rank + j` is column j of `B_i`: (experts x rank) x dOut. @type {Block} */
    this.expand = described.expand;
    /** The latent router's `W_g` and then the router's bias, a row for each expert; null without either. @type {Block | null} */
    this.gate = described.gate;
  }

  /**
   * A fresh adapter, packed: A and `W_g` uniform in +-1/sqrt(fan in), every `B_i` zero. The same seed gives the same adapter
   * everywhere, also in the Rust library.
   *
   * With `heads`, every `B_i` is uniform in `+-heads / sqrt(rank)`, each anew: R-LoRA's random heads.
   *
   * @param {number | bigint} seed
   * @param {{ heads?: number }} [options]
   * @returns {Float32Array<ArrayBuffer>}
   */
  initialise(seed, { heads } = {}) {
    return own(this.#with((packing) => packing.initialise(BigInt.asUintN(64, BigInt(seed)), heads)));
  }

  /**
   * Packs an adapter's matrices, with zeros for padding.
   *
   * @param {import("./types.js").Matrices} matrices
   * @returns {Float32Array<ArrayBuffer>}
   */
  pack({ a, router = new Float32Array(), routerBias = new Float32Array(), b }) {
    const matrices = new this.#planner.Matrices(a, router, routerBias);
    try {
      for (const matrix of b) matrices.push(matrix);
      return own(this.#with((packing) => packing.pack(matrices)));
    } finally {
      matrices.free();
    }
  }

  /**
   * Unpacks the matrices of a packed buffer: parameters, or gradients.
   *
   * @param {Float32Array} packed
   * @returns {Required<import("./types.js").Matrices>}
   */
  unpack(packed) {
    const matrices = this.#with((packing) => packing.unpack(packed));
    try {
      const b = [];
      for (let last = matrices.pop(); last; last = matrices.pop()) b.unshift(last);
      return { a: matrices.a(), router: matrices.router(), routerBias: matrices.router_bias(), b };
    } finally {
      matrices.free();
    }
  }

  /**
   * @template T
   * @param {(packing: import("./planner.js").Packing) => T} work
   */
  #with(work) {
    const packing = planned(() => new this.#planner.Packing(this.#config));
    try {
      return planned(() => work(packing));
    } finally {
      packing.free();
    }
  }
}

/**
 * The planner's arrays are copies in memory of their own.
 *
 * @param {Float32Array} numbers
 */
function own(numbers) {
  return /** @type {Float32Array<ArrayBuffer>} */ (numbers);
}
