// A page's own check, for `cargo xtask web --check`, which opens it with `?check` and waits for `window.hydralora`.

import { explain } from "./trouble.js";

export const query = new URLSearchParams(location.search);

window.hydralora = { done: false };

// Runs what the page does, shows what goes wrong, and leaves the outcome, `{ ok, message, data }`, where the check looks.
export async function checked(run) {
    try {
        window.hydralora = { done: true, ...(await run()) };
    } catch (error) {
        const failure = unexpected(error);
        explain(failure);
        window.hydralora = { done: true, ok: false, ...failure };
    }
}

// Whatever was thrown, as a failure.
export function unexpected(error) {
    if (error?.kind) return error;
    return { kind: "other", message: String(error?.stack ?? error) };
}
