// The training page.

import { checked, query, unexpected } from "./check.js";
import { heat, lines, table } from "./draw.js";
import { Library } from "./library.js";
import { explain, forget } from "./trouble.js";

const TEXTS = [
    ["prose", "data/prose.txt"],
    ["code", "data/code.c"],
    ["legal", "data/legal"],
    ["tables", "data/tables.zi"],
];
const LAYERS = ["fc1", "fc2"];
// Held-out windows of each text that the page's own check scores; all otherwise.
const WINDOWS = query.has("check") ? 128 : null;
// Steps whose losses make a point of a curve.
const SMOOTH = 10;

const library = new Library();
const at = (id) => document.getElementById(id);
const form = at("form");

for (const [name] of TEXTS) {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", name: "text", value: name, checked: true });
    label.append(box, ` ${name}`);
    at("texts").append(label);
}

const files = new Map();

// A file of the page's own, as bytes, loaded once.
async function file(path) {
    if (!files.has(path)) {
        const response = await fetch(path);
        if (!response.ok) throw { kind: "other", message: `${path}: ${response.status}` };
        files.set(path, new Uint8Array(await response.arrayBuffer()));
    }
    return files.get(path);
}

// The texts that are ticked, and the user's own.
async function texts() {
    // Not FormData, which leaves out what is disabled.
    const boxes = [...form.querySelectorAll("input[name=text]")];
    const ticked = TEXTS.filter((_, which) => boxes[which].checked);
    const chosen = await Promise.all(ticked.map(async ([name, path]) => [name, await file(path)]));
    const own = new TextEncoder().encode(at("own").value);
    if (own.length > 0) chosen.push(["yours", own]);
    if (chosen.length === 0) throw { kind: "text", message: "No text is ticked, and the field is empty." };
    return chosen;
}

function busy(running) {
    for (const control of form.elements) control.disabled = running;
    at("stop").disabled = !running;
}

const curves = [];
let names = ["LoRA", "HydraLoRA"];
let base = null;

function hear(report) {
    if (report.event === "began") {
        names = report.names;
        at("status").textContent = `${report.device}: compiling, and scoring the frozen base`;
    } else if (report.event === "base") {
        base = report.scores;
        showScores([]);
    } else if (report.event === "losses") {
        report.losses.forEach((losses, which) => (curves[which] ??= []).push(...losses));
        at("progress").value = report.step;
        at("status").textContent = `Step ${report.step} of ${at("progress").max}`;
        drawCurves();
    } else if (report.event === "routing") {
        showRouting(report.scores);
    }
}

function drawCurves() {
    const smooth = (losses) =>
        losses.map((_, end) => {
            const recent = losses.slice(Math.max(0, end + 1 - SMOOTH), end + 1);
            return [end + 1, recent.reduce((sum, loss) => sum + loss, 0) / recent.length];
        });
    lines(at("loss"), curves.map((losses, which) => ({ name: names[which], points: smooth(losses) })), {
        x: "step",
        y: "bits per byte",
        last: at("progress").max,
    });
}

function showRouting(scores) {
    const experts = scores[0].gates[0].length;
    const columns = Array.from({ length: experts }, (_, expert) => `expert ${expert + 1}`);
    const maps = LAYERS.map((layer, which) =>
        heat(layer, columns, scores.map((score) => [score.text, score.gates[which]])),
    );
    at("routing").replaceChildren(...maps);
}

function showScores(entries) {
    const rows = [...(base ? [["frozen base", base]] : []), ...entries].map(([name, scores]) => {
        const bits = scores.map((score) => score.bitsPerByte);
        const mean = bits.reduce((sum, bit) => sum + bit, 0) / bits.length;
        return [name, ...[...bits, mean].map((bit) => bit.toFixed(3))];
    });
    const of = entries[0]?.[1] ?? base;
    at("scores").replaceChildren(table(["", ...of.map((score) => score.text), "mean"], rows));
}

async function train(steps) {
    forget();
    busy(true);
    curves.length = 0;
    base = null;
    at("save").hidden = true;
    at("routing").replaceChildren();
    at("progress").max = steps;
    at("progress").value = 0;
    at("status").textContent = "Loading";
    try {
        const number = (name) => form.elements[name].valueAsNumber;
        const options = { steps, rank: number("rank"), experts: number("experts"), seed: number("seed"), windows: WINDOWS };
        const chosen = await texts();
        const outcome = await library.call("train", [options, await file("data/base.safetensors"), chosen], hear);
        showScores(outcome.scores.map((scores, which) => [names[which], scores]));
        showRouting(outcome.scores[1]);
        const adapter = new Blob([outcome.adapter], { type: "application/octet-stream" });
        URL.revokeObjectURL(at("save").href);
        at("save").href = URL.createObjectURL(adapter);
        at("save").hidden = false;
        at("status").textContent = `${outcome.steps} steps of both in ${outcome.seconds.toFixed(1)} s.`;
        return outcome;
    } catch (failure) {
        at("status").textContent = "It was not finished.";
        throw failure;
    } finally {
        busy(false);
    }
}

async function load(name, bytes) {
    forget();
    busy(true);
    at("status").textContent = `Scoring ${name}`;
    try {
        const [described, scores] = await library.call("score", [name, bytes, await file("data/base.safetensors"), await texts(), WINDOWS ?? undefined]);
        showScores([[name, scores]]);
        if (scores[0].gates[0].length > 1) showRouting(scores);
        at("status").textContent = `${name}: ${described}.`;
        return scores;
    } catch (failure) {
        at("status").textContent = "It was not loaded.";
        throw failure;
    } finally {
        busy(false);
    }
}

form.addEventListener("submit", (event) => {
    event.preventDefault();
    train(form.elements.steps.valueAsNumber).catch((failure) => explain(unexpected(failure)));
});
at("stop").addEventListener("click", () => {
    at("stop").disabled = true;
    at("status").textContent = "Stopping";
    library.call("stop");
});
at("load").addEventListener("change", async ({ target }) => {
    const [chosen] = target.files;
    target.value = "";
    if (!chosen) return;
    const bytes = new Uint8Array(await chosen.arrayBuffer());
    load(chosen.name, bytes).catch((failure) => explain(unexpected(failure)));
});

// The page's own check: so many steps, after which the adapter that it would save scores as the trained one did, and a
// file that is none is refused with its sentence.
const steps = Number(query.get("check"));
if (query.has("check")) {
    checked(async () => {
        const refused = await load("broken.safetensors", new Uint8Array(100)).then(() => null, (failure) => failure);
        if (refused?.kind !== "file") throw refused ?? { kind: "other", message: "a broken file was loaded" };
        const { adapter, ...outcome } = await train(steps);
        const again = await load("adapter_model.safetensors", adapter);
        showScores([...outcome.scores.map((scores, which) => [names[which], scores]), ["loaded again", again]]);
        const same = JSON.stringify(again) === JSON.stringify(outcome.scores[1]);
        if (!same) return { ok: false, message: "the adapter that was saved scores otherwise when it is loaded" };
        const fell = outcome.curves.every((losses) => losses.at(-1) < losses[0]);
        const ends = outcome.curves.map((losses) => `${losses[0].toFixed(3)} to ${losses.at(-1).toFixed(3)}`);
        return {
            ok: fell,
            message: `${outcome.steps} steps in ${outcome.seconds.toFixed(1)} s, LoRA ${ends[0]}, HydraLoRA ${ends[1]}, ${adapter.length} bytes loaded again`,
            data: outcome,
        };
    });
}
