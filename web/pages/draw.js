// Plots and tables, drawn by the page itself. Colours come from style.css.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 640;
const HEIGHT = 300;
const MARGIN = { left: 76, right: 24, top: 12, bottom: 40 };

// Nodes of SVG, with attributes.
function node(name, attributes, ...children) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
}

// A scale from numbers to places, and where it has ticks.
function linear([low, high], [from, to]) {
    const step = 10 ** Math.floor(Math.log10((high - low) / 4 || 1));
    const width = [1, 2, 5, 10].map((factor) => factor * step).find((width) => (high - low) / width <= 6) ?? step;
    const ticks = [];
    for (let tick = Math.ceil(low / width) * width; tick <= high + width / 1e6; tick += width) ticks.push(Number(tick.toPrecision(12)));
    return { place: (number) => from + ((number - low) / (high - low || 1)) * (to - from), ticks };
}

function logarithmic([low, high], [from, to]) {
    const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const ticks = Array.from({ length: last - first + 1 }, (_, at) => 10 ** (first + at));
    return { place: (number) => from + ((Math.log10(number) - first) / (last - first || 1)) * (to - from), ticks };
}

function frame(x, y, names, write) {
    const [left, right, top, bottom] = [MARGIN.left, WIDTH - MARGIN.right, MARGIN.top, HEIGHT - MARGIN.bottom];
    const parts = [];
    for (const tick of x.ticks) {
        const at = x.place(tick);
        parts.push(node("line", { class: "grid", x1: at, x2: at, y1: top, y2: bottom }));
        parts.push(node("text", { x: at, y: bottom + 16, "text-anchor": "middle" }, write(tick)));
    }
    for (const tick of y.ticks) {
        const at = y.place(tick);
        parts.push(node("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }));
        parts.push(node("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, write(tick)));
    }
    parts.push(node("text", { x: (left + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, names.x));
    parts.push(node("text", { x: 12, y: top + 6, transform: `rotate(-90 12 ${top + 6})`, "text-anchor": "end" }, names.y));
    return parts;
}

function picture(place, label, parts) {
    place.replaceChildren(node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, ...parts));
}

const SCALES = {
    x: [MARGIN.left, WIDTH - MARGIN.right],
    y: [HEIGHT - MARGIN.bottom, MARGIN.top],
};

// Curves through points, `{ name, points: [[x, y], ...] }`, the second one dashed for those who tell no colours.
export function lines(place, curves, { x: xName, y: yName, last }) {
    const all = curves.flatMap(({ points }) => points);
    if (all.length === 0) return place.replaceChildren();
    const ys = all.map(([, y]) => y);
    const x = linear([0, Math.max(last, 1)], SCALES.x);
    const [low, high] = [Math.min(...ys), Math.max(...ys)];
    const room = Math.max((high - low) * 0.05, 0.05);
    const y = linear([low - room, high + room], SCALES.y);
    const parts = frame(x, y, { x: xName, y: yName }, (tick) => tick.toLocaleString("en"));
    curves.forEach(({ name, points }, which) => {
        const path = points.map(([px, py]) => `${x.place(px).toFixed(1)},${y.place(py).toFixed(1)}`).join(" ");
        parts.push(node("polyline", { class: `curve curve-${which}`, points: path }));
        const key = MARGIN.top + 18 * (which + 1);
        parts.push(node("line", { class: `curve curve-${which}`, x1: WIDTH - 62, x2: WIDTH - 32, y1: key - 4, y2: key - 4 }));
        parts.push(node("text", { x: WIDTH - 70, y: key, "text-anchor": "end" }, name));
    });
    const ends = curves.map(({ name, points }) => `${name} ${points.at(-1)?.[1].toFixed(3)}`);
    picture(place, `${yName}: ${ends.join(", ")}`, parts);
}

// Points under a roof: `points` are `{ name, x, y }`, and `roof` gives y for an x. Both axes are logarithmic.
export function roofline(place, points, roof, { x: xName, y: yName }) {
    const xs = points.map((point) => point.x);
    const [low, high] = [Math.min(...xs) / 2, Math.max(...xs) * 2];
    const x = logarithmic([low, high], SCALES.x);
    const ends = [x.ticks[0], x.ticks.at(-1)];
    const y = logarithmic([Math.min(...points.map((point) => point.y)) / 2, Math.max(...ends.map(roof))], SCALES.y);
    const parts = frame(x, y, { x: xName, y: yName }, (tick) => tick.toLocaleString("en", { maximumSignificantDigits: 2, notation: "compact" }));
    const path = Array.from({ length: 65 }, (_, at) => {
        const at_x = ends[0] * (ends[1] / ends[0]) ** (at / 64);
        return `${x.place(at_x).toFixed(1)},${y.place(roof(at_x)).toFixed(1)}`;
    });
    parts.push(node("polyline", { class: "curve curve-0", points: path.join(" ") }));
    for (const { name, x: px, y: py, mark } of points) {
        const circle = node("circle", { class: `mark mark-${mark}`, cx: x.place(px), cy: y.place(py), r: 5 });
        circle.append(node("title", {}, name));
        parts.push(circle);
    }
    picture(place, `${yName} over ${xName}: ${points.length} points`, parts);
}

// A table whose first column is text, and the others numbers.
export function table(head, rows) {
    const element = document.createElement("table");
    const header = element.createTHead().insertRow();
    head.forEach((name, column) => {
        const cell = document.createElement("th");
        cell.textContent = name;
        cell.scope = "col";
        if (column > 0) cell.className = "number";
        header.append(cell);
    });
    const body = element.createTBody();
    for (const row of rows) {
        const line = body.insertRow();
        row.forEach((text, column) => {
            const cell = line.insertCell();
            cell.textContent = text;
            if (column > 0) cell.className = "number";
        });
    }
    return element;
}

// A table of shares as a heat map, which can be read as numbers too.
export function heat(title, columns, rows) {
    const element = table([title, ...columns], rows.map(([name, shares]) => [name, ...shares.map((share) => share.toFixed(2))]));
    element.className = "heat";
    rows.forEach(([, shares], row) => {
        shares.forEach((share, column) => {
            element.tBodies[0].rows[row].cells[column + 1].style.setProperty("--share", `${Math.round(100 * share)}%`);
        });
    });
    return element;
}
