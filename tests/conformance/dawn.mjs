// Runs or only validates shaders on Dawn, Chromium's WebGPU, for the conformance tests.
//
// HYDRALORA_DAWN is the node_modules folder that holds the npm package `webgpu`, and
// HYDRALORA_DAWN_BACKEND is `vulkan` or `null`, which validates and executes nothing. The first line
// printed describes the device. Then every line read is a request, answered by one line,
// {"ok": true} or {"error": message}:
//   {"run": {"directory", "buffers": [{"name", "file", "read"}],
//            "dispatches": [{"label", "wgsl", "uniform", "grid",
//                            "bindings": [{"buffer", "offset", "size", "write"}]}]}}
//   {"validate": {"label", "wgsl", "bindings": ["read" | "write"]}}
// Files of `run` lie in its directory. Binding 0 is the uniform buffer, the storage buffers follow.

import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const backend = process.env.HYDRALORA_DAWN_BACKEND ?? "vulkan";
const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

// A device opened again after a loss starts without pipelines.
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
  // The limits are getters of the prototype, so no spread copies them.
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

/** The pipeline of a shader and of "read" or "write" for each of its storage buffers. */
async function pipelineOf(label, code, kinds) {
  const key = `${kinds.join()}\n${code}`;
  if (!pipelines.has(key)) {
    pipelines.set(key, await checked(() => createPipeline(label, code, kinds)));
  }
  return pipelines.get(key);
}

async function createPipeline(label, code, kinds) {
  const { COMPUTE } = globals.GPUShaderStage;
  const types = ["uniform", ...kinds.map((kind) => (kind === "write" ? "storage" : "read-only-storage"))];
  const entries = types.map((type, binding) => ({ binding, visibility: COMPUTE, buffer: { type } }));
  const layout = device.createBindGroupLayout({ label, entries });
  const module = device.createShaderModule({ label, code });
  const { messages } = await module.getCompilationInfo();
  for (const { type, lineNum, linePos, message } of messages) {
    console.error(`${label}:${lineNum}:${linePos}: ${type}: ${message}`);
  }
  const pipeline = device.createComputePipeline({
    label,
    layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: "main" },
  });
  return { pipeline, layout };
}

async function validate({ label, wgsl, bindings }) {
  await pipelineOf(label, readFileSync(wgsl, "utf8"), bindings);
}

async function run({ directory, buffers, dispatches }) {
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
    for (const { label, wgsl, bindings } of dispatches) {
      const kinds = bindings.map(({ write }) => (write ? "write" : "read"));
      prepared.push(await pipelineOf(label, file(wgsl).toString("utf8"), kinds));
    }
    const reads = await checked(() => {
      const storage = buffers.map((buffer) => upload(buffer.name, file(buffer.file), STORAGE | COPY_SRC));
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      dispatches.forEach(({ label, uniform, bindings, grid }, index) => {
        const { pipeline, layout } = prepared[index];
        const resources = [
          { buffer: upload(label, file(uniform), UNIFORM) },
          ...bindings.map(({ buffer, offset, size }) => ({ buffer: storage[buffer], offset, size })),
        ];
        const entries = resources.map((resource, binding) => ({ binding, resource }));
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, device.createBindGroup({ label, layout, entries }));
        pass.dispatchWorkgroups(...grid);
      });
      pass.end();
      const reads = [];
      buffers.forEach(({ name, read }, index) => {
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
// Dawn keeps the event loop alive for as long as its objects exist.
process.exit(0);
