// Runs shaders on Dawn, Chromium's WebGPU, for the conformance suite, or only validates them.
//
// HYDRALORA_DAWN is the node_modules folder that contains the npm package `webgpu`.
// HYDRALORA_DAWN_BACKEND is `vulkan`, or `null`, which validates and runs nothing. The first printed
// line describes the device. Then each line of input is a request, and the answer is one line,
// {"ok": true} or {"error": message}:
//   {"run": {"directory", "buffers": [{"file", "read"}], "times",
//            "runs": [{"recording", "tensors": {name: {"buffer", "offset", "size"}}, "tokens", "varying"}]}}
//   {"validate": {"label", "wgsl", "bindings": ["read" | "write"], "varying"}}
// Files of `run` are in its directory. A `recording` is hydralora's, serialised by its feature `serde`.

import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const backend = process.env.HYDRALORA_DAWN_BACKEND ?? "vulkan";
const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

// A device that is opened again after a loss has no pipelines yet.
let gpu, version, globals, device, lost, pipelines;

async function load() {
  if (!process.env.HYDRALORA_DAWN) throw new Error("HYDRALORA_DAWN is not set");
  const folder = resolve(process.env.HYDRALORA_DAWN, "webgpu");
  const dawn = await import(pathToFileURL(join(folder, "index.js")));
  version = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).version;
  globals = dawn.globals;
  gpu = dawn.create([`backend=${backend}`, "enable-dawn-features=allow_unsafe_apis"]);
}

/** Opens a device with all that the adapter has, as the Rust side does. */
async function open() {
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error(`Dawn accepts no adapter of backend ${backend}`);
  // Limits are getters of the prototype, so a spread would not copy them.
  const requiredLimits = {};
  for (const name in adapter.limits) {
    if (typeof adapter.limits[name] === "number") requiredLimits[name] = adapter.limits[name];
  }
  const requiredFeatures = ["shader-f16", "subgroups"].filter((name) => adapter.features.has(name));
  device = await adapter.requestDevice({ requiredFeatures, requiredLimits });
  device.onuncapturederror = (event) => console.error(event.error.message);
  lost = undefined;
  device.lost.then((info) => (lost = info));
  pipelines = new Map();
  const { description, device: name } = adapter.info;
  return {
    name: description || name || backend,
    backend,
    version,
    limits: requiredLimits,
    features: [...device.features],
  };
}

/** What `work` resolves to; throws whatever the device has to say against it. */
async function checked(work) {
  const filters = ["validation", "out-of-memory", "internal"];
  for (const filter of filters) device.pushErrorScope(filter);
  let result, thrown;
  try {
    result = await work();
  } catch (error) {
    thrown = error;
  }
  const errors = await Promise.all(filters.map(() => device.popErrorScope().catch((error) => error)));
  if (lost) errors.unshift({ message: `the device was lost: ${lost.message}` });
  if (thrown) errors.push(thrown);
  const messages = errors.filter(Boolean).map((error) => error.message ?? String(error));
  if (messages.length > 0) throw new Error(messages.join("\n"));
  return result;
}

/** The pipeline of a shader, of "read" or "write" for each of its storage buffers, and of what group 1 has. */
async function pipelineOf(label, code, kinds, varying) {
  const key = `${kinds.join()}\n${code}`;
  if (!pipelines.has(key)) {
    pipelines.set(key, await checked(() => createPipeline(label, code, kinds, varying)));
  }
  return pipelines.get(key);
}

async function createPipeline(label, code, kinds, varying) {
  const { COMPUTE } = globals.GPUShaderStage;
  const group = (types) => {
    const entries = types.map((type, binding) => ({ binding, visibility: COMPUTE, buffer: { type } }));
    return device.createBindGroupLayout({ label, entries });
  };
  const storage = { read: "read-only-storage", write: "storage" };
  const layouts = [group(["uniform", ...kinds.map((kind) => storage[kind])])];
  if (varying !== "Nothing") layouts.push(group(["uniform"]));
  const module = device.createShaderModule({ label, code });
  const { messages } = await module.getCompilationInfo();
  for (const { type, lineNum, linePos, message } of messages) {
    console.error(`${label}:${lineNum}:${linePos}: ${type}: ${message}`);
  }
  const pipeline = device.createComputePipeline({
    label,
    layout: device.createPipelineLayout({ label, bindGroupLayouts: layouts }),
    compute: { module, entryPoint: "main" },
  });
  return { pipeline, layouts };
}

async function validate({ label, wgsl, bindings, varying }) {
  await pipelineOf(label, readFileSync(wgsl, "utf8"), bindings, varying);
}

/** The workgroups of a step for so many tokens. */
function gridAt(grid, tokens) {
  if (grid.Fixed) return grid.Fixed;
  const { x, tile, most, first, count } = grid.Tiles;
  const tiles = Math.min(Math.ceil(tokens / tile) - first, count);
  if (tiles <= 0) return [0, 0, 0];
  const z = Math.max(1, Math.ceil(tiles / most));
  return [x, Math.max(1, Math.ceil(tiles / z)), z];
}

/** Bytes, filled up to whole units of 16, as uniform buffers are. */
function padded(bytes) {
  const whole = new Uint8Array(Math.ceil(bytes.length / 16) * 16);
  whole.set(bytes);
  return whole;
}

async function run({ directory, buffers, runs, times }) {
  const { COPY_SRC, COPY_DST, MAP_READ, STORAGE, UNIFORM } = globals.GPUBufferUsage;
  const file = (name) => readFileSync(join(directory, name));
  const created = [];
  const createBuffer = (descriptor) => {
    const buffer = device.createBuffer(descriptor);
    created.push(buffer);
    return buffer;
  };
  const upload = (label, bytes, usage) => {
    const buffer = createBuffer({ label, size: bytes.length, usage: usage | COPY_DST });
    device.queue.writeBuffer(buffer, 0, bytes);
    return buffer;
  };
  try {
    const prepared = [];
    for (const { recording } of runs) {
      const steps = [];
      for (const { label, wgsl, bindings, varying } of recording.steps) {
        const kinds = bindings.map((kind) => kind.toLowerCase());
        steps.push(await pipelineOf(label, wgsl, kinds, varying));
      }
      prepared.push(steps);
    }
    const reads = await checked(() => {
      const storage = buffers.map(({ file: name }) => upload(name, file(name), STORAGE | COPY_SRC));
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      const bound = runs.map(({ recording, tensors, tokens, varying }, at) => {
        const label = recording.operation;
        const scratch = recording.scratch.map((size) => createBuffer({ label, size, usage: STORAGE }));
        const resource = (slot) => {
          if (slot.Tensor === undefined) return { buffer: scratch[slot.Scratch] };
          const { buffer, offset } = tensors[slot.Tensor];
          const { bytes } = recording.tensors.find(({ name }) => name === slot.Tensor);
          return { buffer: storage[buffer], offset, size: bytes };
        };
        const changing = upload(label, padded(varying), UNIFORM);
        return recording.steps.map(({ uniform, slots, grid }, step) => {
          const { pipeline, layouts } = prepared[at][step];
          const group = (layout, resources) => {
            const entries = resources.map((resource, binding) => ({ binding, resource }));
            return device.createBindGroup({ label, layout, entries });
          };
          const uniforms = { buffer: upload(label, padded(uniform), UNIFORM) };
          const groups = [group(layouts[0], [uniforms, ...slots.map(resource)])];
          if (layouts.length > 1) groups.push(group(layouts[1], [{ buffer: changing }]));
          return { pipeline, groups, grid: gridAt(grid, tokens) };
        });
      });
      for (let time = 0; time < times; time++) {
        for (const { pipeline, groups, grid } of bound.flat()) {
          pass.setPipeline(pipeline);
          groups.forEach((group, index) => pass.setBindGroup(index, group));
          pass.dispatchWorkgroups(...grid);
        }
      }
      pass.end();
      const reads = [];
      buffers.forEach(({ file: name, read }, index) => {
        if (!read) return;
        const { size } = storage[index];
        const staging = createBuffer({ label: name, size, usage: MAP_READ | COPY_DST });
        encoder.copyBufferToBuffer(storage[index], 0, staging, 0, size);
        reads.push({ read, staging });
      });
      device.queue.submit([encoder.finish()]);
      return reads;
    });
    await checked(async () => {
      for (const { read, staging } of reads) {
        await staging.mapAsync(globals.GPUMapMode.READ);
        writeFileSync(join(directory, read), new Uint8Array(staging.getMappedRange()));
        staging.unmap();
      }
    });
  } finally {
    for (const buffer of created) buffer.destroy();
  }
}

async function answer(line) {
  try {
    const request = JSON.parse(line);
    if (lost) await open();
    if (request?.run) await run(request.run);
    else if (request?.validate) await validate(request.validate);
    else throw new Error("a request is either run or validate");
    return { ok: true };
  } catch (error) {
    return { error: error?.message || String(error) };
  }
}

try {
  await load();
  print(await open());
} catch (error) {
  print({ error: error.message });
  process.exit(1);
}
for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim() !== "") print(await answer(line));
}
// Dawn's objects would keep the event loop alive.
process.exit(0);
