// The benchmark page.

import { checked, query, unexpected } from "./check.js";
import { image, roofline, table } from "./draw.js";
import { Library } from "./library.js";
import { copy, download } from "./share.js";
import { explain, forget } from "./trouble.js";

// Where the browser keeps what was measured of the device.
const KEPT = "hydralora.calibration";
const HEAD = ["shape", "kernel", "ms", "GB/s", "GFLOP/s", "of the limit"];

const library = new Library();
const at = (id) => document.getElementById(id);

let device = null;
let limits = null;
let rows = [];
let refused = [];

const peak = () => ({ bandwidth: limits.numbers.memory_bandwidth, arithmetic: 2 * limits.numbers.multiply_adds });

// The least seconds that the work can take.
const least = ({ bytes, flops }) => Math.max(bytes / peak().bandwidth, flops / peak().arithmetic);

const cells = (row) => [
    row.shape,
    row.kernel,
    (1e3 * row.seconds).toPrecision(3),
    (row.bytes / row.seconds / 1e9).toPrecision(3),
    (row.flops / row.seconds / 1e9).toPrecision(3),
    `${((100 * least(row)) / row.seconds).toFixed(0)} %`,
];

const facts = () => [
    ["memory", `${(peak().bandwidth / 1e9).toPrecision(3)} GB/s`],
    ["arithmetic", `${(peak().arithmetic / 1e9).toPrecision(3)} GFLOP/s`],
    ["a dispatch after another", `${(1e6 * limits.numbers.gap).toPrecision(3)} us`],
    ["workgroups at once", limits.numbers.cores.toLocaleString("en")],
];

function hear(report) {
    switch (report.event) {
        case "began":
            device = report;
            at("status").textContent = `${device.device}, ${device.clock}: measuring the device`;
            break;
        case "calibrated":
            limits = report.calibration;
            keep(report.kept);
            at("device").replaceChildren(table([device.device, device.clock], facts()));
            break;
        case "row":
            rows.push(report);
            break;
        case "refused":
            refused.push(`${report.shape}: ${report.reason}`);
            break;
    }
    if (report.event === "row" || report.event === "refused") show();
}

function show() {
    at("table").replaceChildren(table(HEAD, rows.map(cells)));
    at("refused").replaceChildren(...refused.map((reason) => Object.assign(document.createElement("li"), { textContent: reason })));
    const done = new Set([...rows.map((row) => row.shape), ...refused]).size;
    at("progress").value = done;
    at("status").textContent = `${device.device}, ${device.clock}: shape ${done} of ${at("progress").max}`;
    for (const id of ["copy", "image"]) at(id).disabled = rows.length === 0;
    if (rows.length === 0) return;
    const points = rows.map((row) => ({
        name: cells(row).join(", "),
        x: row.flops / row.bytes,
        y: row.flops / row.seconds / 1e9,
        series: row.kernel,
    }));
    const roof = (intensity) => Math.min(intensity * peak().bandwidth, peak().arithmetic) / 1e9;
    roofline(at("roof"), points, roof, { x: "operations per byte", y: "GFLOP/s", roof: "the device's limit" });
}

function markdown() {
    const line = (cells) => `| ${cells.join(" | ")} |`;
    const grid = (head, rows) => [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
    const parts = [`${device.device}, ${device.clock}, ${navigator.userAgent}`, grid(["limit", "value"], facts()), grid(HEAD, rows.map(cells))];
    if (refused.length > 0) parts.push(refused.map((reason) => `- ${reason}`).join("\n"));
    return `${parts.join("\n\n")}\n`;
}

// A browser may refuse to keep anything.
function kept() {
    try {
        return localStorage.getItem(KEPT);
    } catch {
        return null;
    }
}

function keep(text) {
    try {
        if (text === null) localStorage.removeItem(KEPT);
        else localStorage.setItem(KEPT, text);
    } catch {
        // It is measured again the next time.
    }
}

async function measure(shapes) {
    forget();
    [rows, refused] = [[], []];
    at("table").replaceChildren();
    at("refused").replaceChildren();
    at("roof").replaceChildren();
    at("progress").max = shapes.length;
    at("progress").value = 0;
    at("start").disabled = true;
    at("stop").disabled = false;
    at("status").textContent = "Loading";
    try {
        const told = await library.device();
        await library.call("measure", [{ shapes, kept: kept() }], (report) => {
            if (report.event === "began" && told) report.device += ` (${told})`;
            hear(report);
        });
        at("status").textContent = `${device.device}, ${device.clock}: ${rows.length} rows.`;
    } catch (failure) {
        at("status").textContent = "It was not finished.";
        throw failure;
    } finally {
        at("start").disabled = false;
        at("stop").disabled = true;
    }
}

at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const shapes = at("shapes").value.split("\n").map((line) => line.trim()).filter(Boolean);
    measure(shapes).catch((failure) => explain(unexpected(failure)));
});
at("stop").addEventListener("click", () => {
    at("stop").disabled = true;
    at("status").textContent = "Stopping after this shape";
    library.call("stop_measuring");
});
at("forget").addEventListener("click", () => {
    keep(null);
    at("status").textContent = "The device is measured anew at the next start.";
});
at("copy").addEventListener("click", async () => {
    try {
        await copy(markdown());
        at("status").textContent = "Copied.";
    } catch (failure) {
        explain(failure);
    }
});
at("image").addEventListener("click", () => download("roofline.svg", image(at("roof")), "image/svg+xml"));

// The page's own check: the shapes of the query, with the same kernels each; every number is finite and positive, and what was
// measured of the device is kept for the next time.
if (query.has("check")) {
    checked(async () => {
        keep(null);
        const shapes = query.getAll("shape");
        await measure(shapes);
        const numbers = [...rows.flatMap((row) => [row.seconds, row.bytes, row.flops]), ...Object.values(limits.numbers)];
        const kernels = new Set(rows.map((row) => row.kernel));
        const complete = kernels.size > 0 && rows.length === kernels.size * shapes.length && refused.length === 0;
        const good = numbers.every((number) => Number.isFinite(number) && number > 0);
        const [first, measured] = [JSON.stringify(limits), rows];
        await measure([]);
        const again = JSON.stringify(limits) === first;
        rows = measured;
        at("progress").max = shapes.length;
        show();
        return {
            ok: good && again && complete,
            message: `${device.device}, ${device.clock}: ${rows.length} kernels, ${numbers.length} numbers${again ? "" : ", measured twice"}`,
            data: { device, limits, rows, refused, markdown: markdown(), image: image(at("roof")) },
        };
    });
} else {
    library.call("shapes").then(
        (shapes) => (at("shapes").value = shapes.join("\n")),
        (failure) => explain(unexpected(failure)),
    );
}
