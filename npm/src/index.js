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
export { load } from "./wasm.js";

/** @typedef {import("./adamw.js").AdamWAdapter} AdamWAdapter */
/** @typedef {import("./adamw.js").AdamWBuffers} AdamWBuffers */
/** @typedef {import("./layout.js").Block} Block */
/** @typedef {import("./prepared.js").Bound} Bound */
/** @typedef {import("./prepared.js").Prepared} Prepared */
/** @typedef {import("./types.js").AdamWHyper} AdamWHyper */
/** @typedef {import("./types.js").Capacity} Capacity */
/** @typedef {import("./types.js").Config} Config */
/** @typedef {import("./types.js").Element} Element */
/** @typedef {import("./types.js").Matrices} Matrices */
/** @typedef {import("./types.js").Operation} Operation */
/** @typedef {import("./types.js").Tensor} Tensor */
/** @typedef {import("./types.js").TensorShape} TensorShape */
