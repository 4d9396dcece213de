// The worker behind `library.js`: loads the module, and calls what it exports.

import "./older.js";
import load, * as module from "./hydralora_web.js";

const loaded = load();

onmessage = async ({ data: { id, name, values } }) => {
    try {
        await loaded;
        const value = await module[name](...values, (report) => postMessage({ id, report }));
        postMessage({ id, value });
    } catch (error) {
        // After a panic, what it said counts, not the instruction that it ended with.
        const failure = error?.kind ? error : { kind: "other", message: String(self.panicked ?? error) };
        postMessage({ id, failure });
    }
};
