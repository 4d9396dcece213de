/** The same for Node, which fetches no files. */

import { readFile } from "node:fs/promises";

import { WASM, load } from "./wasm.js";

await load(await readFile(WASM));

export * from "./index.js";
