// A sentence for whatever can go wrong on a stranger's device, and a way on. A page has a place for it: an element with
// the id `trouble`.

const SENTENCES = {
    "no-webgpu": [
        "This browser does not offer WebGPU here.",
        "Chrome and Edge 113, Safari 26 and Firefox 141 and later have it; on Linux, Chrome may want chrome://flags/#enable-unsafe-webgpu. " +
            "It is there only on pages from https or localhost.",
    ],
    "no-adapter": [
        "The browser has WebGPU, but found no GPU that it trusts.",
        "Turn on hardware acceleration in the browser's settings, update the GPU's driver, or see what chrome://gpu says.",
    ],
    refused: [
        "The browser found a GPU, but gives this page no device of it.",
        "Close other pages that use the GPU, and load this one again; if it stays, start the browser anew.",
    ],
    limit: ["This device allows less than that takes.", "Choose smaller numbers, and try again."],
    lost: [
        "The browser lost the device: its driver stopped, or something else needed it.",
        "Load the page again to go on with a new one.",
    ],
    asleep: [
        "The device was lost while this page was out of sight: browsers put such pages to sleep.",
        "Load the page again, and keep it in sight while it works.",
    ],
    memory: [
        "The device has too little memory left for that.",
        "Close other pages and programs that use the GPU, or choose smaller numbers, and try again.",
    ],
    file: ["This file is no adapter that the page can use.", "Choose one that was saved by this page or by the demo."],
    text: ["This text is of no use as it is.", "Change it, and try again."],
    shape: ["A line is no shape.", "Write five whole numbers with commas: tokens, inputs, outputs, rank, experts."],
    clipboard: ["The browser lets this page copy nothing.", "Download it instead, or mark it and copy it by hand."],
    other: ["Something went wrong that should not have.", "Load the page again; if it stays, please report it with the words below."],
};

export const NO_WEBGPU = { kind: "no-webgpu", message: "navigator.gpu is missing." };

// Whether the page was out of sight while it worked.
let slept = false;
document.addEventListener("visibilitychange", () => {
    slept ||= document.hidden;
});

// Shows what went wrong, `{ kind, message }`. The first cause stays: what follows is its consequence.
export function explain({ kind, message }) {
    const place = document.querySelector("#trouble");
    if (!place || !place.hidden) return;
    const [sentence, way] = SENTENCES[kind === "lost" && slept ? "asleep" : kind] ?? SENTENCES.other;
    const title = document.createElement("strong");
    title.textContent = sentence;
    const detail = document.createElement("small");
    detail.textContent = message;
    place.replaceChildren(title, ` ${way} `, detail);
    place.hidden = false;
    // Whoever has scrolled away, as on a phone, is to see it.
    place.scrollIntoView({ block: "nearest" });
}

// Takes the sentence away, when something else is tried.
export function forget() {
    const place = document.querySelector("#trouble");
    if (place) place.hidden = true;
}
