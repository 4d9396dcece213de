/**
 * The package in Node on Dawn, as its users have it. `cargo xtask npm --check` copies this folder beside the package that
 * it installs there, runs it, and says where these lie:
 *
 * HYDRALORA_DAWN the folder of modules that has npm's `webgpu`, HYDRALORA_REFERENCE what `cargo run --example
 * npm_reference` writes.
 */

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { after, describe, test } from "node:test";
import { pathToFileURL } from "node:url";

import * as hydralora from "hydralora";

import { STORAGE, compare, read, upload } from "./compare.js";

const { HYDRALORA_DAWN, HYDRALORA_REFERENCE } = /** @type {Record<string, string>} */ (process.env);
const at = (/** @type {string[]} */ ...path) => pathToFileURL(resolve(join(...path))).href;

const dawn = await import(at(HYDRALORA_DAWN, "webgpu", "index.js"));
/** @type {{ cases: import("./compare.js").Case[] }} */
const reference = JSON.parse(await readFile(HYDRALORA_REFERENCE, "utf8"));
const { AdamW, Batch, HydraloraError, Kernels, Layout } = hydralora;

/** @type {GPU} */
const gpu = dawn.create(["backend=vulkan"]);
const adapter = await gpu.requestAdapter();
assert(adapter, "Dawn offers no adapter");
const device = await adapter.requestDevice();
/** @type {string[]} */
const uncaptured = [];
device.onuncapturederror = ({ error }) => uncaptured.push(error.message);

const config = { dIn: 12, dOut: 8, rank: 2, experts: 3, scaling: 2 };
const buffer = (/** @type {number} */ numbers) => device.createBuffer({ size: 4 * numbers, usage: STORAGE });

/** @param {() => unknown} work */
async function thrown(work) {
  try {
    await work();
  } catch (error) {
    assert(error instanceof HydraloraError, `not the package's: ${error}`);
    return error;
  }
  assert.fail("nothing was thrown");
}

describe("numbers", () => {
  const run = (/** @type {string} */ name, /** @type {import("./compare.js").Case} */ one, pooled = false) =>
    test(name, async (context) => {
      const ratios = await compare(hydralora, device, one, pooled);
      assert(["y", "dx", "gradients", "parameters", "moments"].every((name) => ratios[name] > 0));
      const worst = Object.entries(ratios).map(([name, ratio]) => `${name} ${ratio.toFixed(2)}`);
      context.diagnostic(`largest error over bound: ${worst.join(", ")}`);
    });
  for (const one of reference.cases) run(one.name, one);
  run(`${reference.cases[0].name}, in one buffer`, reference.cases[0], true);

  test("the README's example", async () => {
    const readme = await readFile(new URL("../README.md", import.meta.resolve("hydralora")), "utf8");
    const example = readme.match(/```js\n([^]*?)```/)?.[1] ?? assert.fail("there is none");
    // Beside the package, whose name it imports.
    const module = new URL("./readme.js", import.meta.url);
    await writeFile(module, `${example}\nexport { device, layout, parameters };\n`);
    Object.assign(globalThis, dawn.globals);
    Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });
    const { device, layout, parameters } = await import(module.href);
    const fresh = layout.initialise(42);
    const trained = await read(device, parameters);
    // Nothing is learned from zeros, so weights decay, three times: by a rounded factor, and rounded.
    const decayed = (/** @type {number} */ number) => number * (1 - 1e-5) ** 3;
    assert(trained.every((number, i) => Math.abs(number - decayed(fresh[i])) <= 6 * 2 ** -24 * Math.abs(fresh[i])));
    assert(trained.some((number, i) => number !== fresh[i]));
    device.destroy();
  });

  test("the frozen layer", async () => {
    const kernels = await Kernels.create(device);
    const linear = await kernels.prepare({ linear: { bias: true } }, config, 3);
    const weight = Float32Array.from({ length: 96 }, (_, at) => (at % 7) - 3);
    const x = Float32Array.from({ length: 36 }, (_, at) => (at % 5) - 2);
    const bias = Float32Array.from({ length: 8 }, (_, at) => at);
    const y = buffer(24);
    const bound = await linear.bind({
      x: upload(device, x),
      weight: upload(device, weight),
      bias: upload(device, bias),
      y,
    });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    bound.encode(pass, new Batch(kernels, 3));
    pass.end();
    device.queue.submit([encoder.finish()]);
    // Small whole numbers: f32 is exact.
    const row = (/** @type {number} */ t, /** @type {number} */ o) =>
      bias[o] + x.subarray(12 * t, 12 * t + 12).reduce((sum, x, i) => sum + x * weight[12 * o + i], 0);
    const expected = Array.from({ length: 24 }, (_, at) => row(Math.floor(at / 8), at % 8));
    assert.deepEqual([...(await read(device, y))], expected);
  });
});

describe("layouts", () => {
  test("matrices come back", async () => {
    const layout = await Layout.create({ ...config, router: "latent", routerBias: true });
    assert.equal(layout.parameterCount, 2 * 12 + 3 * 2 * 8 + 3 * 2 + 3);
    assert.deepEqual(layout.shrink, { offset: 0, rows: 2, columns: 12, stride: 12 });
    assert.deepEqual(layout.gate, { offset: 24 + 48, rows: 3, columns: 3, stride: 4 });
    const fill = (/** @type {number} */ length, /** @type {number} */ first) =>
      Float32Array.from({ length }, (_, at) => first + at);
    const matrices = {
      a: fill(24, 1),
      router: fill(6, 100),
      routerBias: fill(3, 200),
      b: [fill(16, 300), fill(16, 400), fill(16, 500)],
    };
    const packed = layout.pack(matrices);
    assert.equal(packed.length, layout.elements);
    // Column 1 of B_2, whose rows have two elements.
    const { offset, stride } = layout.expand;
    assert.deepEqual([...packed.subarray(offset + 5 * stride, offset + 5 * stride + 3)], [501, 503, 505]);
    assert.deepEqual(layout.unpack(packed), matrices);
    const error = await thrown(() => layout.pack({ ...matrices, a: fill(23, 0) }));
    assert.equal(error.code, "WrongLength");
    assert.deepEqual(error.details, { what: "A", needed: 24, given: 23 });
  });

  test("fresh adapters repeat", async () => {
    const layout = await Layout.create(config);
    const fresh = layout.initialise(7);
    assert.deepEqual(layout.initialise(7n), fresh);
    assert.notDeepEqual(layout.initialise(8), fresh);
    const { a, b } = layout.unpack(fresh);
    assert(a.every((number) => number !== 0 && Math.abs(number) <= Math.sqrt(1 / 12)));
    assert(b.flatMap((matrix) => [...matrix]).every((number) => number === 0));
    const heads = layout.unpack(layout.initialise(7, { heads: 0.1 })).b;
    assert(heads.every((matrix) => matrix.some((number) => number !== 0)));
  });
});

describe("mistakes", async () => {
  const kernels = await Kernels.create(device);
  const forward = await kernels.prepare({ forward: {} }, config, 4);
  const { elements } = await Layout.create(config);
  const tensors = { x: buffer(48), parameters: buffer(elements), y: buffer(32) };
  const pool = buffer(1024);
  /** @type {[string, () => unknown, string][]} */
  const binding = [
    ["MissingTensor", () => forward.bind({ x: tensors.x, y: tensors.y }), "forward needs the tensor parameters"],
    ["UnknownTensor", () => forward.bind({ ...tensors, z: tensors.x }), 'no tensor "z": it has x, parameters, y, scratch'],
    ["TooSmall", () => forward.bind({ ...tensors, x: buffer(47) }), "x needs 192 bytes (4 x 12 f32), but its range has 188"],
    ["WrongElement", () => forward.bind({ ...tensors, x: { buffer: tensors.x, element: "f16" } }), 'say element: "f32"'],
    ["Misaligned", () => forward.bind({ ...tensors, x: { buffer: buffer(99), offset: 4 } }), "multiple of 256"],
    ["OutOfBuffer", () => forward.bind({ ...tensors, x: { buffer: tensors.x, size: 196 } }), "bytes 0..196 of a buffer of 192"],
    [
      "MissingUsage",
      () => forward.bind({ ...tensors, x: device.createBuffer({ size: 192, usage: 0x8 }) }),
      "without GPUBufferUsage.STORAGE",
    ],
    ["Overlap", () => forward.bind({ ...tensors, x: pool, y: pool }), "y covers bytes 0..128"],
    ["Aliased", () => forward.bind({ ...tensors, x: pool, y: { buffer: pool, offset: 1024 } }), "{ pooled: true }"],
  ];
  /** @type {[string, () => unknown, string][]} */
  const planning = [
    ["ZeroDimension", () => kernels.prepare({ forward: {} }, { ...config, rank: 0 }, 4), "rank is 0"],
    ["ZeroDimension", () => kernels.prepare({ forward: {} }, /** @type {any} */ ({ rank: 2 }), 4), "dIn is 0"],
    ["ZeroDimension", () => kernels.prepare({ forward: {} }, config, 0), "tokens is 0"],
    ["InvalidOption", () => kernels.prepare({ forward: {} }, { ...config, rank: 2.5 }, 4), "2.5"],
    ["InvalidNumber", () => kernels.prepare({ forward: {} }, { ...config, scaling: NaN }, 4), "scaling is NaN"],
    ["InvalidOption", () => kernels.prepare(/** @type {any} */ ({ forward: { wirte: 1 } }), config, 4), "unknown field `wirte`"],
    ["InvalidOption", () => kernels.prepare(/** @type {any} */ ({ backward: {} }), config, 4), "unknown variant `backward`"],
    ["HalfRows", () => kernels.prepare({ forward: { x: "f16" } }, { ...config, dIn: 13 }, 4), "rows of 13 elements"],
    ["Stride", () => kernels.prepare({ forward: { xStride: 14 } }, config, 4), "14 apart"],
    ["Exclusive", () => kernels.prepare({ forward: {} }, { ...config, a: "separate", router: "latent" }, 4), "exclude"],
    ["OverLimit", () => kernels.prepare({ forward: {} }, { ...config, rank: 1 << 20 }, 4), "over the device's max"],
    ["InvalidNumber", () => new Batch(kernels, 0), "tokens is 0"],
    ["UnusedTensor", () => adamw({ status: buffer(2) }), "without maxNorm"],
    ["InvalidNumber", () => adamw({ hyper: { beta1: 1 } }), "beta1 is 1"],
    ["ZeroDimension", () => adamw({ hyper: { groups: { b: { rate: 16 } } } }), "say where they lie"],
  ];
  const adamw = (/** @type {object} */ options) =>
    AdamW.create(kernels, {
      buffers: [{ elements, parameters: tensors.parameters, gradients: buffer(elements), moments: buffer(2 * elements) }],
      ...options,
    });
  for (const [code, work, words] of [...binding, ...planning]) {
    test(`${code}: ${words}`, async () => {
      const { code: actual, message } = await thrown(work);
      assert.equal(actual, code, message);
      assert(message.includes(words), message);
    });
  }

  test("a batch over the capacity", async () => {
    const bound = await forward.bind(tensors);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    const { details } = await thrown(() => bound.encode(pass, new Batch(kernels, 5)));
    assert.deepEqual(details, { operation: "forward", capacity: 4, tokens: 5 });
    pass.end();
    encoder.finish();
  });

  test("a lost device", async () => {
    const other = await (await gpu.requestAdapter())?.requestDevice();
    assert(other);
    const kernels = await Kernels.create(other);
    const forward = await kernels.prepare({ forward: {} }, config, 4);
    other.destroy();
    await other.lost;
    assert.equal((await thrown(() => kernels.prepare({ forward: {} }, config, 5))).code, "DeviceLost");
    assert.equal((await thrown(() => forward.bind(tensors))).code, "DeviceLost");
  });

  test("a buffer of another device is refused while it is bound", async () => {
    const other = await (await gpu.requestAdapter())?.requestDevice();
    assert(other);
    const x = other.createBuffer({ size: 192, usage: STORAGE });
    const error = await thrown(() => forward.bind({ ...tensors, x }));
    assert.equal(error.code, "Device");
    assert(error.message.includes("binding the tensors of forward"), error.message);
    other.destroy();
  });
});

describe("kernels", () => {
  test("plans and pipelines are kept", async () => {
    const kernels = await Kernels.create(device);
    const [first, second] = await Promise.all([1, 2].map(() => kernels.prepare({ forward: {} }, config, 4)));
    assert.equal(first, second);
    const { compiled } = kernels;
    assert(compiled > 0);
    await kernels.prepare({ forward: {} }, config, { tokens: 4, plans: "one" });
    assert.equal(kernels.compiled, compiled);
    assert.deepEqual(
      first.tensors.map(({ name, written, rows, columns, bytes }) => [name, written, rows, columns, bytes]),
      [
        ["x", false, 4, 12, 192],
        ["parameters", false, 1, first.tensors[1].columns, first.tensors[1].bytes],
        ["y", true, 4, 8, 128],
      ],
    );
  });
});

after(() => {
  assert.deepEqual(uncaptured, [], "errors that nobody saw");
  device.destroy();
});
