/** The planner, which is WebAssembly. */

import init, * as planner from "./planner.js";

/** Where the planner lies. @internal */
export const WASM = new URL("./planner_bg.wasm", import.meta.url);

/** @type {Promise<typeof planner> | undefined} */
let loading;

/**
 * Loads the planner, once. Everything else does that by itself; call it to load the planner early, or from a place of
 * your own.
 *
 * @param {RequestInfo | URL | Response | BufferSource | WebAssembly.Module} [source] by default the file beside this one
 * @returns {Promise<unknown>}
 */
export function load(source = WASM) {
  return loaded(source);
}

/**
 * The planner.
 *
 * @internal
 * @param {RequestInfo | URL | Response | BufferSource | WebAssembly.Module} [source]
 */
export function loaded(source = WASM) {
  loading ??= init({ module_or_path: source }).then(
    () => planner,
    (error) => {
      // The next call tries again.
      loading = undefined;
      throw error;
    },
  );
  return loading;
}
