// Drives Chromium for browser.rs: node browser.mjs PLAYWRIGHT CHROMIUM PICTURES. Reads a page to visit from each line,
// and writes a line of what came of it.

import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, executablePath, pictures] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(modules);

const args = [
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    // Its software GPU must not be held back because its window cannot be seen.
    "--disable-backgrounding-occluded-windows",
];

const NO_ADAPTER =
    "The browser offered no WebGPU adapter. Chromium's own software adapter, SwiftShader, should always be there: see that " +
    "the package chromium has libvk_swiftshader.so, and what chrome://gpu says under WebGPU Status.";

const launch = () =>
    chromium.launch({
        executablePath,
        args: ["--headless=new", ...args],
        ignoreDefaultArgs: ["--headless", "--disable-gpu"],
        chromiumSandbox: false,
    });

const browser = await launch();
say({ version: `Chromium ${browser.version()}` });

const screens = {
    "desktop-dark": { viewport: { width: 1100, height: 800 }, colorScheme: "dark" },
    "phone-light": { viewport: { width: 390, height: 844 }, colorScheme: "light" },
};

for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    if (request === null) break;
    say(await visit(request).catch((error) => ({ ok: false, message: String(error) })));
}
await browser.close();
// Its end of the pipe would keep it.
process.exit();

function say(value) {
    process.stdout.write(`${JSON.stringify(value)}\n`);
}

// Opens a page, spoilt or not, and waits until it has checked itself or, if a sentence is given, until it explains that.
async function visit({ name, url, seconds, spoilt, sentence }) {
    const timeout = 1000 * seconds;
    // A browser whose GPU process has ended may trust its GPU no more.
    const own = spoilt?.crash_at ? await launch() : browser;
    const context = await own.newContext(screens["desktop-dark"]);
    // No page asks anything of another machine.
    const strangers = [];
    await context.route("**/*", (route) => {
        if (new URL(route.request().url()).host === new URL(url).host) return route.continue();
        strangers.push(route.request().url());
        return route.abort();
    });
    try {
        const page = await context.newPage();
        const said = [];
        page.on("console", (message) => {
            if (message.type() === "error") said.push(message.text());
        });
        page.on("pageerror", (error) => said.push(String(error)));
        if (spoilt?.script) await spoil(context, page, spoilt.script);
        await page.goto(url);
        if (spoilt?.crash_at) await crash(own, page, spoilt, timeout);
        const heard = sentence
            ? page.waitForSelector("#trouble:not([hidden])", { timeout })
            : page.waitForFunction(() => globalThis.hydralora?.done, undefined, { timeout });
        const done = await heard.then(() => true, () => false);
        for (const [screen, { viewport, colorScheme }] of Object.entries(screens)) {
            await page.setViewportSize(viewport);
            await page.emulateMedia({ colorScheme });
            await page.screenshot({ path: join(pictures, `${name}-${screen}.png`), fullPage: true });
        }
        if (!done) return { ok: false, message: [`nothing was heard for ${seconds} s`, ...said].join("; ") };
        if (strangers.length > 0) return { ok: false, message: `it asked for ${strangers.join(", ")}` };
        if (sentence) {
            const explained = (await page.innerText("#trouble")).replaceAll("\n", " ");
            return { ok: explained.startsWith(sentence), message: explained };
        }
        const result = await page.evaluate(() => globalThis.hydralora);
        if (result.kind === "no-adapter" || result.kind === "no-webgpu") {
            return { ok: false, message: `${NO_ADAPTER} It said: ${result.message}` };
        }
        return { ok: result.ok, message: [result.message, ...said].join("; "), data: result.data ?? null };
    } finally {
        await (own === browser ? context : own).close();
    }
}

// Runs a script before everything else, in the page and in its worker.
async function spoil(context, page, script) {
    await page.addInitScript(script);
    await context.route("**/worker.js", async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, body: `${script}\n${await response.text()}` });
    });
}

// Ends the browser's GPU process when the page's status contains a text, out of sight or not.
async function crash(own, page, { crash_at, hidden }, timeout) {
    const reached = (status) => document.querySelector("#status").textContent.includes(status);
    await page.waitForFunction(reached, crash_at, { timeout });
    if (hidden) {
        await page.evaluate(() => {
            Object.defineProperty(document, "hidden", { get: () => true });
            document.dispatchEvent(new Event("visibilitychange"));
        });
    }
    const devtools = await own.newBrowserCDPSession();
    await devtools.send("Browser.crashGpuProcess");
}
