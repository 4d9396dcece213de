// Plots and tables, drawn by the page itself. Colours come from style.css.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 640;
const HEIGHT = 320;
const MARGIN = { left: 76, right: 24, top: 12, bottom: 62 };
// From line to line of a key.
const LINE = 23;

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
        parts.push(node("text", { x: at, y: bottom + 27, "text-anchor": "middle" }, write(tick)));
    }
    for (const tick of y.ticks) {
        const at = y.place(tick);
        parts.push(node("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }));
        parts.push(node("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, write(tick)));
    }
    parts.push(node("text", { x: (left + right) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, names.x));
    parts.push(node("text", { x: 18, y: top + 6, transform: `rotate(-90 18 ${top + 6})`, "text-anchor": "end" }, names.y));
    return parts;
}

function picture(place, label, parts) {
    place.replaceChildren(node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, ...parts));
}

// What style.css gives the nodes of a picture.
const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-family"];

// A picture that was drawn, as a file of its own: with its colours, and the page's ground.
export function image(place) {
    const drawn = place.querySelector("svg");
    const copy = drawn.cloneNode(true);
    const nodes = copy.querySelectorAll("*");
    drawn.querySelectorAll("*").forEach((original, at) => {
        const style = getComputedStyle(original);
        for (const name of STYLES) nodes[at].setAttribute(name, style.getPropertyValue(name));
        nodes[at].removeAttribute("class");
    });
    copy.prepend(node("rect", { width: WIDTH, height: HEIGHT, fill: getComputedStyle(drawn).backgroundColor }));
    copy.setAttribute("xmlns", SVG);
    return `${copy.outerHTML}\n`;
}

const SCALES = {
    x: [MARGIN.left, WIDTH - MARGIN.right],
    y: [HEIGHT - MARGIN.bottom, MARGIN.top],
};

// Curves through points, `{ name, points: [[x, y], ...] }`, one or two. The last one is solid, for those who tell no colours.
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
        const kind = `curve curve-${which + 2 - curves.length}`;
        parts.push(node("polyline", { class: kind, points: path }));
        const key = MARGIN.top + LINE * (which + 1);
        parts.push(node("line", { class: kind, x1: WIDTH - 62, x2: WIDTH - 32, y1: key - 4, y2: key - 4 }));
        parts.push(node("text", { x: WIDTH - 70, y: key, "text-anchor": "end" }, name));
    });
    const ends = curves.map(({ name, points }) => `${name} ${points.at(-1)?.[1].toFixed(3)}`);
    picture(place, `${yName}: ${ends.join(", ")}`, parts);
}

// Marks that are told apart by shape and colour: paths around 0.
const MARKS = [
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0",
    "M-4.5,-4.5h9v9h-9z",
    "M0,-5.5l5.5,10h-11z",
    "M0,-6.5l6.5,6.5l-6.5,6.5l-6.5,-6.5z",
    "M0,5.5l5.5,-10h-11z",
];

function mark(which, x, y) {
    return node("path", { class: `mark mark-${which}`, d: MARKS[which % MARKS.length], transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
}

// Points under a roof: `points` are `{ name, series, x, y }`, and `roof` gives y for an x. Both axes are logarithmic.
export function roofline(place, points, roof, { x: xName, y: yName, roof: roofName }) {
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
    const series = [...new Set(points.map(({ series }) => series))];
    for (const { name, series: of, x: px, y: py } of points) {
        const point = mark(series.indexOf(of), x.place(px), y.place(py));
        point.append(node("title", {}, name));
        parts.push(point);
    }
    // Where nothing is: above the roof, which rises.
    const key = (which) => MARGIN.top + LINE * (which + 1);
    const left = MARGIN.left + 12;
    parts.push(node("line", { class: "curve curve-0", x1: left, x2: left + 20, y1: key(0) - 5, y2: key(0) - 5 }));
    series.forEach((_, which) => parts.push(mark(which, left + 10, key(which + 1) - 5)));
    [roofName, ...series].forEach((name, which) => parts.push(node("text", { x: left + 28, y: key(which) }, name)));
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
            if (column > 0) {
                cell.textContent = text;
                cell.className = "number";
            } else {
                // Names of limits are one long word each, for which a phone has no room beside the numbers.
                text.split(/(?<=_)/).forEach((part) => cell.append(part, document.createElement("wbr")));
            }
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
