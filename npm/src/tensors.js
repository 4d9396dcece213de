/** Tensors: ranges of the page's buffers, and their checks before binding. */

import { HydraloraError, camelCase } from "./error.js";

/** `GPUBufferUsage.STORAGE`, which Node has under another name. */
export const STORAGE = 0x80;

/** The most bytes of a binding that kernels can count. */
const MOST_BYTES = 2 ** 32;

/**
 * A tensor as an operation has it in its recording.
 *
 * @typedef {object} Operand
 * @property {string} name
 * @property {"Read" | "Write"} kind
 * @property {"F32" | "F16" | "Bf16"} element
 * @property {number} rows
 * @property {number} columns
 * @property {number} stride
 * @property {number} bytes
 * @property {string} fix
 */

/**
 * A range of a buffer, and what the operation says of it.
 *
 * @typedef {object} Given
 * @property {string} name
 * @property {Operand} operand
 * @property {GPUBuffer} buffer
 * @property {number} offset
 * @property {number} size
 * @property {import("./types.js").Element} element
 */

/**
 * @param {Operand} operand
 * @param {import("./types.js").Tensor} tensor
 * @returns {Given}
 */
export function given(operand, tensor) {
  const { buffer, offset = 0, size, element = "f32" } = "buffer" in tensor ? tensor : { buffer: tensor };
  const rest = Math.max(0, buffer.size - offset);
  return { name: camelCase(operand.name), operand, buffer, offset, size: size ?? rest, element };
}

/**
 * The shape of a tensor in words.
 *
 * @param {Operand} operand
 */
function shape({ rows, columns, stride, element }) {
  const type = element.toLowerCase();
  if (rows === 1) return `${columns} ${type}`;
  return `${rows} x ${columns} ${type}${stride === columns ? "" : `, rows ${stride} apart`}`;
}

/**
 * Checks every tensor by itself, and that no written tensor covers bytes of another one. In pools all tensors count as
 * written, because their shaders declare them so.
 *
 * @param {Given[]} tensors
 * @param {boolean} pooled
 * @param {GPUSupportedLimits} limits
 */
export function check(tensors, pooled, limits) {
  for (const tensor of tensors) checkOne(tensor, limits);
  for (const [first, second] of pairsInABuffer(tensors)) {
    const ranges = [first, second].map(({ offset, operand }) => ({ start: offset, end: offset + operand.bytes }));
    const overlap = ranges[0].start < ranges[1].end && ranges[1].start < ranges[0].end;
    if (overlap && (pooled || isWritten(first))) {
      const [written, other] = [first.name, second.name];
      const message =
        `${written} covers bytes ${ranges[0].start}..${ranges[0].end} of a buffer and ${other} bytes ` +
        `${ranges[1].start}..${ranges[1].end}, and shaders write there, or in pools declare that they do: put them in ` +
        "ranges that do not overlap. The range of a strided tensor has what lies between its rows";
      throw new HydraloraError("Overlap", message, { written, other, ranges });
    }
  }
}

/**
 * Checks that no buffer is written as one tensor and only read as another, which WebGPU forbids in a dispatch.
 *
 * @param {Given[]} tensors
 */
export function checkBuffers(tensors) {
  for (const [first, second] of pairsInABuffer(tensors)) {
    if (isWritten(first) && !isWritten(second)) throw aliased(first.name, second.name);
  }
}

/**
 * @param {string} written
 * @param {string} other
 */
export function aliased(written, other) {
  const message =
    `${written} and ${other} lie in the same buffer, which one dispatch would both write and only read: put them in two ` +
    "buffers, or create the kernels with { pooled: true }";
  return new HydraloraError("Aliased", message, { written, other });
}

/**
 * @param {Given} tensor
 * @param {GPUSupportedLimits} limits
 */
function checkOne({ name: tensor, operand, buffer, offset, size, element }, limits) {
  const needed = operand.bytes;
  /** @type {(code: string, message: string, details: object) => never} */
  const refuse = (code, message, details) => {
    throw new HydraloraError(code, message, { tensor, ...details });
  };
  const type = operand.element.toLowerCase();
  if (element !== type) {
    const fix = `say element: "${type}", or plan the operation for ${element} where its options have it`;
    refuse("WrongElement", `${tensor} is ${element}, but the operation takes it as ${type}: ${fix}`, {
      given: element,
      needed: type,
    });
  }
  if ((buffer.usage & STORAGE) === 0) {
    const message = `the buffer of ${tensor} was created without GPUBufferUsage.STORAGE: add the flag`;
    refuse("MissingUsage", message, { missing: "STORAGE" });
  }
  const alignment = limits.minStorageBufferOffsetAlignment;
  if (offset % alignment !== 0) {
    const message =
      `${tensor} starts at byte ${offset} of its buffer, but this device needs a multiple of ${alignment}: place tensors ` +
      "at multiples of minStorageBufferOffsetAlignment";
    refuse("Misaligned", message, { offset, alignment });
  }
  if (offset + size > buffer.size) {
    const message =
      `${tensor} covers bytes ${offset}..${offset + size} of a buffer of ${buffer.size} bytes: shorten the range or ` +
      "enlarge the buffer";
    refuse("OutOfBuffer", message, { offset, size, bufferSize: buffer.size });
  }
  if (!(size >= needed)) {
    const message = `${tensor} needs ${needed} bytes (${shape(operand)}), but its range has ${size}`;
    refuse("TooSmall", message, { shape: shape(operand), needed, given: size });
  }
  const allowed = Math.min(limits.maxStorageBufferBindingSize, MOST_BYTES);
  if (needed > allowed) {
    const message =
      `${tensor} (${shape(operand)}) needs ${needed}, over the device's maxStorageBufferBindingSize of ${allowed}: ` +
      operand.fix;
    refuse("OverLimit", message, { limit: "StorageBufferBindingSize", needed, allowed, fix: operand.fix });
  }
}

/** @param {Given} tensor */
function isWritten({ operand }) {
  return operand.kind === "Write";
}

/**
 * All pairs of tensors in one buffer. If one of them is written, the first is.
 *
 * @param {Given[]} tensors
 * @returns {[Given, Given][]}
 */
function pairsInABuffer(tensors) {
  const pairs = tensors.flatMap((first, at) =>
    tensors.slice(at + 1).map((second) => /** @type {[Given, Given]} */ ([first, second])),
  );
  const shared = pairs.filter(([first, second]) => first.buffer === second.buffer);
  return shared.map(([first, second]) => (isWritten(first) ? [first, second] : [second, first]));
}
