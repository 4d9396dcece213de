// The conformance page: runs the suite's trials in a worker, and goes on with the next one whatever one of them does.

import { checked, query, unexpected } from "./check.js";
import { table } from "./draw.js";
import { Library } from "./library.js";
import { copy, download } from "./share.js";
import { explain, forget } from "./trouble.js";

// Trials at the same time: while the device works for one, the processor computes what another one should give.
const LANES = Number(query.get("lanes") ?? 2);
// Seconds, more than any trial takes in software.
const PATIENCE = 180;
// Milliseconds between two looks at the storage, which holds all records.
const SAVING = 5000;

const find = (id) => document.getElementById(id);
const storage = `hydralora conformance ${location.search}`;

let library;
let opened;
let goldens;
let browser;
// What has run, by the trial's number.
let records = new Map();
let milliseconds = 0;
let running = false;
let stopped = false;
// How often a trial took the worker or the device with it.
let replaced = 0;
let saved = 0;

checked(async () => {
    for (const field of ["filter", "replay", "part"]) find("choice").elements[field].value = query.get(field) ?? "";
    await open();
    restore();
    showDevice();
    showProgress();
    if (query.has("check")) {
        await busy(run);
        const { passed, failed, unsupported } = counts();
        const all = [...records.values()];
        const failures = all.filter(({ status }) => status === "failed");
        // Of every operation, router and element type that the suite has a trial passes, unless others were chosen.
        const chosen = ["filter", "replay", "part"].some((name) => query.get(name));
        const lacking = chosen ? [] : await library.call("conformance_lacking", [JSON.stringify(all)]);
        const message = [`${passed} passed, ${failed} failed, ${unsupported} unsupported`, ...lacking.map((kind) => `none of ${kind} passed`)];
        const ok = passed > 0 && failed === 0 && lacking.length === 0;
        return { ok, message: message.join("; "), data: { ...counts(), failures, lacking, replaced } };
    }
    return { ok: opened.trials.length > 0, message: find("status").textContent };
});

// Opens the devices in a new worker.
async function open() {
    library = new Library();
    browser = navigator.userAgent;
    const wanted = {
        // The module learns less of it than the page does.
        adapter: (await library.device()) || "unnamed adapter",
        browser,
        filter: query.get("filter"),
        replay: query.get("replay"),
        part: query.get("part"),
        quick: query.has("check"),
    };
    // An empty field of the form is none.
    for (const name of ["filter", "replay", "part"]) wanted[name] ||= null;
    goldens ??= await fetchGoldens();
    opened = await library.call("conformance_open", [JSON.stringify(wanted), goldens]);
}

// What the released code gave: names and contents of files.
async function fetchGoldens() {
    const get = async (name) => {
        const response = await fetch(`goldens/${name}`);
        if (!response.ok) throw { kind: "other", message: `goldens/${name} is missing beside this page: ${response.status}` };
        return response;
    };
    const names = await (await get("index.json")).json();
    return Promise.all(names.map(async (name) => [name, new Uint8Array(await (await get(`${name}.safetensors`)).arrayBuffer())]));
}

// Does what nothing else may be started beside.
async function busy(work) {
    running = true;
    showProgress();
    try {
        await work();
    } finally {
        running = false;
        showProgress();
    }
}

// Runs what has not run yet.
async function run() {
    stopped = false;
    forget();
    const begin = performance.now() - milliseconds;
    const waiting = [...opened.trials.keys()].filter((index) => !records.has(index));
    // Trials in whose company the worker or the device ended. Each runs again, alone.
    const suspects = [];
    while (!stopped && (suspects.length > 0 || waiting.length > 0)) {
        const alone = suspects.length > 0;
        const queue = alone ? suspects.splice(0, 1) : waiting;
        const broken = await together(queue, alone ? 1 : LANES, () => (milliseconds = performance.now() - begin));
        if (broken.length === 0) continue;
        library.end();
        // One that was stopped ran into no trouble.
        if (stopped) continue;
        replaced += 1;
        await open();
        if (broken.length > 1) {
            suspects.push(...broken.map(({ index }) => index));
            continue;
        }
        const [{ index, record, message }] = broken;
        keep(index, record ?? (await library.call("conformance_fail", [index, message])));
    }
    if (stopped) await open();
    save();
}

// Runs trials of a queue in so many lanes, until it is empty or one of them breaks the worker or the device. Gives those.
async function together(queue, lanes, tick) {
    const broken = [];
    const lane = async () => {
        while (!stopped && broken.length === 0 && queue.length > 0) {
            const index = queue.shift();
            find("current").textContent = opened.trials[index];
            let panic;
            try {
                const hear = (report) => (panic = report.panic);
                const { record, lost } = await inTime(library.call("conformance_run", [index], hear));
                if (lost) broken.push({ index, record });
                else keep(index, record);
            } catch (failure) {
                broken.push({ index, message: panic ? `panic: ${panic}` : failure.message });
            }
            tick();
        }
    };
    await Promise.all(Array.from({ length: lanes }, lane));
    return broken;
}

// What is promised, unless it takes too long. Then the worker ends. Ticks are counted, because a page that is put to sleep
// has fewer.
function inTime(promise) {
    let ticks = 0;
    const timer = setInterval(() => {
        ticks += 1;
        if (ticks === PATIENCE) library.end(`still running after ${PATIENCE} s`);
    }, 1000);
    return promise.finally(() => clearInterval(timer));
}

function keep(index, record) {
    records.set(index, record);
    showRecord(record);
    showProgress();
    if (performance.now() - saved > SAVING) save();
}

function counts() {
    const counts = { passed: 0, failed: 0, unsupported: 0, known: 0 };
    for (const { status } of records.values()) counts[status] += 1;
    return counts;
}

// Records survive when the page is loaded again, as long as its tab does.
function save() {
    saved = performance.now();
    const state = { browser, identities: opened.identities, trials: opened.trials.length, milliseconds, records: [...records] };
    try {
        sessionStorage.setItem(storage, JSON.stringify(state));
    } catch {
        // Without storage, only resuming after a reload is lost.
    }
}

function restore() {
    if (query.has("check")) return;
    try {
        const state = JSON.parse(sessionStorage.getItem(storage));
        const same = (name, now) => JSON.stringify(state?.[name]) === JSON.stringify(now);
        const here = same("browser", browser) && same("identities", opened.identities);
        if (!here || !same("trials", opened.trials.length)) return;
        milliseconds = state.milliseconds;
        for (const [index, record] of state.records) {
            records.set(index, record);
            showRecord(record);
        }
    } catch {
        // As above.
    }
}

function showDevice() {
    const [first] = opened.identities;
    find("device").textContent = `${first.adapter}, ${first.kind === "Cpu" ? "software" : "hardware"}, ${first.driver}`;
    const rows = first.limits.map(([name], at) => [
        name,
        ...opened.identities.map((identity) => identity.limits[at][1].toLocaleString("en")),
    ]);
    find("limits").replaceChildren(table(["Limit", ...opened.identities.map((identity) => identity.limits_of)], rows));
}

function showProgress() {
    const { passed, failed, unsupported, known } = counts();
    const [done, all] = [records.size, opened.trials.length];
    find("progress").max = Math.max(all, 1);
    find("progress").value = done;
    const time = milliseconds > 0 ? `, ${(milliseconds / 1000).toFixed(0)} s` : "";
    const counted = `${passed} passed, ${failed} failed, ${unsupported} unsupported, ${known} known failures`;
    find("status").textContent =
        all === 0
            ? "No trial of this device has such a name, seed or part: choose another."
            : `${done} of ${all} trials: ${counted}${time}`;
    find("start").disabled = running || done === all;
    find("start").textContent = done > 0 && done < all ? "Resume" : "Start";
    find("stop").disabled = !running;
    find("over").disabled = running || done === 0;
    for (const id of ["copy", "markdown", "json"]) find(id).disabled = done === 0;
    if (!running) find("current").textContent = "\u00a0";
}

function showRecord({ device, case: name, status, message, seed, distribution, milliseconds }) {
    const full = `[${device}] ${name}`;
    if (status === "failed") {
        const item = find("failures").appendChild(document.createElement("li"));
        item.append(full, document.createElement("br"));
        item.appendChild(document.createElement("code")).textContent = message;
        if (seed) {
            const link = item.appendChild(document.createElement("a"));
            link.href = `?replay=${seed}`;
            link.textContent = `replay ${seed}`;
            link.before(document.createElement("br"));
        }
        find("failed").hidden = false;
    }
    const row = find("trials").insertRow(0);
    const worst = distribution ? distribution.worst.toFixed(3) : "";
    [full, status, worst, milliseconds.toFixed(0)].forEach((text, at) => {
        const cell = row.insertCell();
        cell.textContent = text;
        if (at > 1) cell.className = "number";
    });
    if (message) row.title = message;
}

// The report as Markdown and as JSON.
function report() {
    const inOrder = [...records].sort(([a], [b]) => a - b).map(([, record]) => record);
    return library.call("conformance_report", [JSON.stringify(inOrder), milliseconds / 1000]);
}

// A name for the report's file, of the adapter's name.
function fileName(ending) {
    const words = opened.identities[0].adapter.split(/[^\p{L}\p{N}.]+/u).filter(Boolean);
    return `${words.join("-")}.${ending}`;
}

// What a button does, with whatever goes wrong explained.
function on(id, act) {
    find(id).addEventListener("click", () => {
        Promise.resolve(act()).catch((error) => explain(unexpected(error)));
    });
}

on("start", () => busy(run));
on("stop", () => {
    stopped = true;
    find("stop").disabled = true;
    library.end("stopped");
});
on("over", () => {
    records = new Map();
    milliseconds = 0;
    for (const id of ["failures", "trials"]) find(id).replaceChildren();
    find("failed").hidden = true;
    save();
    // Trials that have run are gone from the module.
    library.end("started over");
    return busy(open);
});
on("copy", async () => {
    const [markdown] = await report();
    await copy(markdown);
    find("copied").textContent = "Copied.";
});
on("markdown", async () => download(fileName("md"), (await report())[0], "text/markdown"));
on("json", async () => download(fileName("json"), (await report())[1], "application/json"));
addEventListener("pagehide", save);
