/**
 * HydraLoRA's kernels on a page's own GPUDevice.
 *
 * @module hydralora
 */

export { AdamW } from "./adamw.js";
export { Batch } from "./batch.js";
export { HydraloraError } from "./error.js";
export { Kernels } from "./kernels.js";
export { Layout } from "./layout.js";
export { Bound, Prepared } from "./prepared.js";
export { load } from "./wasm.js";

/** @typedef {import("./types.js").AdamWHyper} AdamWHyper */
/** @typedef {import("./types.js").Capacity} Capacity */
/** @typedef {import("./types.js").Config} Config */
/** @typedef {import("./types.js").Element} Element */
/** @typedef {import("./types.js").Matrices} Matrices */
/** @typedef {import("./types.js").Operation} Operation */
/** @typedef {import("./types.js").Tensor} Tensor */
/** @typedef {import("./types.js").TensorShape} TensorShape */
