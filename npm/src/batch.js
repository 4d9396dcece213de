import { HydraloraError } from "./error.js";

/**
 * What changes from batch to batch, the number of tokens and what dropout drops: one small object that all operations of
 * a model share. Two batches in one submission need two such objects.
 */
export class Batch {
  #contents = new Uint32Array(4);
  #queue;

  /**
   * @param {import("./kernels.js").Kernels} kernels
   * @param {number} tokens
   */
  constructor(kernels, tokens) {
    this.#queue = kernels.device.queue;
    const varied = kernels.varied("hydralora batch", this.#contents.byteLength);
    /** The uniform buffer, for shaders of your own: the number of tokens, the seed's low and high half, and the step. */
    this.buffer = varied.buffer;
    /** @internal */
    this.bindGroup = varied.bindGroup;
    this.set(tokens);
  }

  /** The number of tokens. */
  get tokens() {
    return this.#contents[0];
  }

  /**
   * Sets the number of tokens of everything that is encoded and submitted afterwards. It takes effect before the next
   * submission: submit everything that was encoded with another number first.
   *
   * @param {number} tokens
   */
  set(tokens) {
    if (!(Number.isInteger(tokens) && tokens >= 1 && tokens < 2 ** 32)) {
      const expected = "a whole number, at least 1";
      throw new HydraloraError("InvalidNumber", `tokens is ${tokens}: it must be ${expected}`, {
        name: "tokens",
        value: tokens,
        expected,
      });
    }
    this.#contents[0] = tokens;
    this.#write();
  }

  /**
   * Sets what dropout drops in everything that is encoded and submitted afterwards: forward and backward of a batch take
   * the same seed and step, and each training step another.
   *
   * @param {number | bigint} seed
   * @param {number} step
   */
  setRandom(seed, step) {
    const bits = BigInt.asUintN(64, BigInt(seed));
    this.#contents.set([Number(bits & 0xffffffffn), Number(bits >> 32n), step], 1);
    this.#write();
  }

  #write() {
    this.#queue.writeBuffer(this.buffer, 0, this.#contents);
  }
}
