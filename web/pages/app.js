// An application of its own with the npm package `hydralora`: a device, buffers, a shader for the loss, and a layer that
// learns a small regression.

import { checked, query, unexpected } from "./check.js";
import { lines, table } from "./draw.js";
import { AdamW, Batch, Kernels, Layout } from "./npm/index.js";
import { NO_WEBGPU, explain, forget } from "./trouble.js";

const KINDS = 3;
const TOKENS = 64 * KINDS;
const CONFIG = { dIn: 32, dOut: 16, rank: 4, experts: KINDS, scaling: 2 };
// Steps between two looks at the loss.
const LOOK = 10;

const at = (id) => document.getElementById(id);

// The application's own shader: the mean squared error, and its gradient. It reads the number of tokens where the package's
// kernels read it.
const LOSS = /* wgsl */ `
struct Batch { tokens: u32, seed_low: u32, seed_high: u32, step: u32 }
@group(0) @binding(0) var<uniform> batch: Batch;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read> wanted: array<f32>;
@group(0) @binding(3) var<storage, read_write> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> loss: array<f32>;
var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    let count = batch.tokens * ${CONFIG.dOut}u;
    var sum = 0.0;
    for (var i = lane; i < count; i += 64u) {
        let error = y[i] - wanted[i];
        g[i] = 2.0 * error / f32(count);
        sum += error * error;
    }
    sums[lane] = sum;
    workgroupBarrier();
    if (lane == 0u) {
        for (var i = 1u; i < 64u; i += 1u) { sum += sums[i]; }
        loss[0] = sum / f32(count);
    }
}`;

async function openDevice() {
    if (!navigator.gpu) throw NO_WEBGPU;
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter) throw { kind: "no-adapter", message: "requestAdapter gave none." };
    return adapter.requestDevice().catch(({ message }) => {
        throw { kind: "refused", message };
    });
}

// Uniform in -1..1, the same each time (mulberry32).
function random(seed) {
    return () => {
        seed = (seed + 0x6d2b79f5) | 0;
        let bits = Math.imul(seed ^ (seed >>> 15), seed | 1);
        bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
        return (((bits ^ (bits >>> 14)) >>> 0) / 2 ** 31) - 1;
    };
}

// Inputs of three kinds, a frozen W0, and outputs that differ from W0 x by another matrix for each kind.
function regression() {
    const { dIn, dOut } = CONFIG;
    const next = random(1);
    const numbers = (length, scale) => Float32Array.from({ length }, () => scale * next());
    const times = (matrix, x, o) => x.reduce((sum, x, i) => sum + x * matrix[o * dIn + i], 0);
    const weight = numbers(dOut * dIn, 0.3);
    const kinds = Array.from({ length: KINDS }, () => ({ centre: numbers(dIn, 1), apart: numbers(dOut * dIn, 0.3) }));
    const x = new Float32Array(TOKENS * dIn);
    const wanted = new Float32Array(TOKENS * dOut);
    for (let token = 0; token < TOKENS; token++) {
        const { centre, apart } = kinds[token % KINDS];
        const input = centre.map((c) => c + 0.1 * next());
        x.set(input, token * dIn);
        wanted.set(Float32Array.from({ length: dOut }, (_, o) => times(weight, input, o) + times(apart, input, o)), token * dOut);
    }
    return { weight, x, wanted };
}

class Application {
    static async open(device) {
        const { weight, x, wanted } = regression();
        const layout = await Layout.create(CONFIG);
        const [y, state] = [TOKENS * CONFIG.dOut, TOKENS * layout.stateLength];
        const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
        const buffer = (label, numbers) =>
            device.createBuffer({ label, size: 4 * numbers, usage: STORAGE | COPY_SRC | COPY_DST });
        const upload = (label, numbers) => {
            const made = buffer(label, numbers.length);
            device.queue.writeBuffer(made, 0, numbers);
            return made;
        };
        const buffers = {
            x: upload("x", x),
            weight: upload("W0", weight),
            wanted: upload("wanted", wanted),
            y: buffer("y", y),
            g: buffer("g", y),
            loss: buffer("loss", 1),
            saved: buffer("saved", state),
            dstate: buffer("dstate", state),
            parameters: upload("parameters", layout.initialise(42)),
            gradients: buffer("gradients", layout.elements),
            moments: buffer("moments", 2 * layout.elements),
        };
        const take = (...names) => Object.fromEntries(names.map((name) => [name, buffers[name]]));

        // Plan and compile, all at the same time; then bind.
        const kernels = await Kernels.create(device);
        const prepare = (operation) => kernels.prepare(operation, CONFIG, { tokens: TOKENS, plans: "one" });
        const [linear, forward, backwardInput, backwardParams] = await Promise.all([
            prepare({ linear: {} }),
            prepare({ forward: { write: "accumulate", save: true } }),
            prepare({ backwardInput: { dx: null } }),
            prepare({ backwardParams: {} }),
        ]);
        const before = [await linear.bind(take("x", "weight", "y")), await forward.bind(take("x", "parameters", "y", "saved"))];
        const after = [
            await backwardInput.bind(take("g", "parameters", "saved", "dstate")),
            await backwardParams.bind(take("x", "g", "saved", "dstate", "gradients")),
        ];
        const { parameters, gradients, moments } = buffers;
        const adamw = await AdamW.create(kernels, {
            buffers: [{ elements: layout.elements, parameters, gradients, moments }],
            hyper: { weightDecay: 0 },
        });
        const batch = new Batch(kernels, TOKENS);

        const module = device.createShaderModule({ label: "loss", code: LOSS });
        const loss = await device.createComputePipelineAsync({ label: "loss", layout: "auto", compute: { module } });
        const bound = [batch.buffer, buffers.y, buffers.wanted, buffers.g, buffers.loss];
        const entries = bound.map((buffer, binding) => ({ binding, resource: { buffer } }));
        const lossGroup = device.createBindGroup({ layout: loss.getBindGroupLayout(0), entries });
        return Object.assign(new Application(), { device, buffers, before, after, adamw, batch, loss, lossGroup, wanted });
    }

    // One step, in one pass and one submission.
    step(number, learningRate) {
        this.adamw.setStep(number, learningRate);
        const encoder = this.device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        for (const operation of this.before) operation.encode(pass, this.batch);
        pass.setPipeline(this.loss);
        pass.setBindGroup(0, this.lossGroup);
        pass.dispatchWorkgroups(1);
        for (const operation of this.after) operation.encode(pass, this.batch);
        this.adamw.encode(pass);
        pass.end();
        this.device.queue.submit([encoder.finish()]);
    }

    async read(name) {
        const { size } = this.buffers[name];
        const staging = this.device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
        const encoder = this.device.createCommandEncoder();
        encoder.copyBufferToBuffer(this.buffers[name], 0, staging, 0, size);
        this.device.queue.submit([encoder.finish()]);
        await staging.mapAsync(GPUMapMode.READ);
        const numbers = new Float32Array(staging.getMappedRange().slice(0));
        staging.destroy();
        return numbers;
    }

    // Trains, and resolves to the losses that it looked at.
    async train(steps) {
        const losses = [];
        let frozen;
        const begin = performance.now();
        for (let step = 1; step <= steps; step++) {
            this.step(step, 0.01);
            if (step > 1 && step % LOOK !== 0 && step < steps) continue;
            const [loss] = await this.read("loss");
            losses.push([step, loss]);
            const y = await this.read("y");
            // B starts at zero, so the first y is the frozen layer's.
            frozen ??= y;
            const milliseconds = ((performance.now() - begin) / step).toFixed(1);
            at("status").textContent =
                `Step ${step} of ${steps}: loss ${loss.toFixed(4)}, ${milliseconds} ms a step with reading back.`;
            lines(at("loss"), [{ name: "HydraLoRA", points: losses }], { x: "step", y: "loss", last: steps });
            at("y").replaceChildren(this.#outputs(frozen, y));
        }
        return losses;
    }

    #outputs(frozen, y) {
        const head = ["", ...Array.from({ length: 6 }, (_, o) => `y[${o}]`)];
        const row = (name, numbers, token) => {
            const first = numbers.subarray(token * CONFIG.dOut, token * CONFIG.dOut + 6);
            return [`${name}, kind ${token + 1}`, ...Array.from(first, (number) => number.toFixed(3))];
        };
        const rows = Array.from({ length: KINDS }, (_, token) => [
            row("frozen", frozen, token),
            row("now", y, token),
            row("wanted", this.wanted, token),
        ]);
        return table(head, rows.flat());
    }
}

// An error of the package or of the browser, as the page explains it. The package's have the browser's as their cause.
function failure(error) {
    if (error?.code === "OverLimit") return { kind: "limit", message: error.message };
    const memory = [error, error?.cause].some((error) => error instanceof GPUOutOfMemoryError);
    return memory ? { kind: "memory", message: error.message } : unexpected(error);
}

async function run(steps) {
    forget();
    at("start").disabled = true;
    at("status").textContent = "Compiling.";
    let device;
    try {
        device = await openDevice();
        device.onuncapturederror = ({ error }) => explain(failure(error));
        return { device, losses: await (await Application.open(device)).train(steps) };
    } catch (error) {
        at("status").textContent = "It stopped.";
        // A loss may be told of later than its consequences.
        const lost = await Promise.race([device?.lost, new Promise((resolve) => setTimeout(resolve, 100))]);
        throw lost ? { kind: "lost", message: lost.message } : failure(error);
    } finally {
        at("start").disabled = false;
        // The check goes on with it.
        if (!query.has("check")) device?.destroy();
    }
}

if (!navigator.gpu) explain(NO_WEBGPU);
at("start").onclick = () => run(100).catch(explain);

if (query.has("check")) {
    checked(async () => {
        const { device, losses } = await run(100);
        const [first, last] = [losses[0][1], losses.at(-1)[1]];
        // The same numbers as the library's float64 twin has, within its bounds.
        const { compare } = await import("./npm/compare.js");
        const { cases } = await (await fetch("npm/reference.json")).json();
        const ratios = await compare(await import("./npm/index.js"), device, cases[0]);
        const worst = Math.max(...Object.values(ratios));
        const { hidden, textContent } = at("trouble");
        const ok = last < 0.1 * first && worst > 0 && hidden;
        const message = `loss ${first.toFixed(4)} to ${last.toFixed(4)}, largest error ${worst.toFixed(2)} of its bound`;
        return { ok, message: hidden ? message : `${message}; ${textContent}`, data: { losses, ratios } };
    });
}
