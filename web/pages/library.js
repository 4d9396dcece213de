// The library in a worker of its own, so that a page answers while it computes.

import { NO_WEBGPU, explain } from "./trouble.js";

export class Library {
    #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    #calls = new Map();
    #next = 0;

    constructor() {
        // Before anybody presses a button in vain.
        if (!navigator.gpu) explain(NO_WEBGPU);
        this.#worker.onmessage = ({ data }) => this.#hear(data);
        this.#worker.onerror = (event) => {
            const failure = { kind: "other", message: event.message ?? "The worker could not be loaded." };
            this.#calls.forEach(({ reject }) => reject(failure));
            this.#calls.clear();
        };
    }

    // Calls a function that the module exports, by its name. `report` hears what it reports meanwhile. The promise is of
    // what it returns, or rejected with `{ kind, message }`.
    async call(name, values = [], report = () => {}) {
        if (!navigator.gpu) throw NO_WEBGPU;
        const id = this.#next++;
        return new Promise((resolve, reject) => {
            this.#calls.set(id, { resolve, reject, report });
            this.#worker.postMessage({ id, name, values });
        });
    }

    // Ends the worker with all that it does. What was called is rejected.
    end(message) {
        this.#worker.terminate();
        this.#calls.forEach(({ reject }) => reject({ kind: "other", message }));
        this.#calls.clear();
    }

    // What the browser tells of the device, in words.
    async device() {
        const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
        const { vendor, architecture, device } = adapter?.info ?? {};
        return [vendor, architecture, device].filter(Boolean).join(" ");
    }

    #hear({ id, report, failure, value }) {
        const call = this.#calls.get(id);
        // What happens to the device is told at any time.
        if (report?.trouble) return explain(report.trouble);
        if (!call) return;
        if (report !== undefined) return call.report(report);
        this.#calls.delete(id);
        if (failure) call.reject(failure);
        else call.resolve(value);
    }
}
