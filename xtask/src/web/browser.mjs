// Drives Chromium for browser.rs: node browser.mjs PLAYWRIGHT CHROMIUM PICTURES PROJECT SITE. Reads a page to visit from each
// line, and writes a line of what came of it.

import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, executablePath, pictures, project, site] = process.argv.slice(2);
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

// Visits a page, spoilt or not, does there what is to be done, and waits until it has checked itself or explains what is wrong.
async function visit({ name, page: path, seconds, spoilt, hands, until }) {
    const timeout = 1000 * seconds;
    const { explained: sentence } = until;
    // A browser whose GPU process has ended may trust its GPU no more.
    const own = spoilt?.crash_at ? await launch() : browser;
    // Where something is wrong, the page has to say so on a phone.
    const context = await own.newContext(screens[sentence ? "phone-light" : "desktop-dark"]);
    // No page asks anything of another machine.
    const [loaded, strangers] = [new Set(), []];
    await context.route("**/*", (route) => {
        const url = new URL(route.request().url());
        if (url.host === new URL(site).host) {
            loaded.add(url.pathname.slice(1));
            return route.continue();
        }
        strangers.push(String(url));
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
        await page.goto(site + path);
        // Whoever looks at something else is to see what is wrong all the same.
        if (sentence) await page.evaluate(() => document.querySelector("#trouble").hidden && scrollTo(0, 1e6));
        if (spoilt?.crash_at) await crash(own, page, spoilt, timeout);
        for (const hand of hands) await act(page, hand, timeout);
        let heard = Promise.resolve();
        if (sentence) heard = page.waitForSelector("#trouble:not([hidden])", { timeout });
        else if (until === "checked") heard = page.waitForFunction(() => globalThis.hydralora?.done, undefined, { timeout });
        const done = await heard.then(() => true, () => false);
        const seen = !sentence || !done || (await page.evaluate(inSight, "#trouble"));
        const faults = new Set();
        for (const [screen, { viewport, colorScheme }] of Object.entries(screens)) {
            await page.setViewportSize(viewport);
            await page.emulateMedia({ colorScheme });
            await page.screenshot({ path: join(pictures, `${name}-${screen}.png`), fullPage: true });
            for (const fault of await page.evaluate(faultsOf)) faults.add(fault);
        }
        if (!done) return { ok: false, message: [`nothing was heard for ${seconds} s`, ...said].join("; ") };
        if (strangers.length > 0) return { ok: false, message: `it asked for ${strangers.join(", ")}` };
        if (faults.size > 0) return { ok: false, message: [...faults].join("; ") };
        if (sentence) {
            const explained = (await page.innerText("#trouble")).replaceAll("\n", " ");
            return { ok: seen && explained.startsWith(sentence), message: seen ? explained : `out of sight: ${explained}` };
        }
        if (until === "done") return { ok: true, message: await page.innerText("#status"), loaded: [...loaded] };
        const result = await page.evaluate(() => globalThis.hydralora);
        if (result.kind === "no-adapter" || result.kind === "no-webgpu") {
            return { ok: false, message: `${NO_ADAPTER} It said: ${result.message}` };
        }
        const message = [result.message, ...said].join("; ");
        return { ok: result.ok, message, data: result.data ?? null, loaded: [...loaded] };
    } finally {
        await (own === browser ? context : own).close();
    }
}

// Whether an element can be seen without scrolling. Runs in the page.
function inSight(selector) {
    const { top, bottom } = document.querySelector(selector).getBoundingClientRect();
    return top >= 0 && bottom <= innerHeight;
}

// What is wrong with a page on its screen, whatever it shows. Runs in the page.
function faultsOf() {
    const faults = [];
    const { scrollWidth } = document.documentElement;
    if (scrollWidth > innerWidth) faults.push(`it is ${scrollWidth} pixels wide on a screen of ${innerWidth}`);
    for (const element of document.querySelectorAll("*")) {
        const scrolls = ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
        if (!scrolls || element.matches("textarea, input") || element.scrollWidth <= element.clientWidth) continue;
        if (element.tabIndex < 0 || !element.matches("[aria-label], [aria-labelledby]")) {
            faults.push(`no key scrolls ${element.outerHTML.slice(0, 60)}, or it has no label`);
        }
    }
    return faults;
}

// Does what somebody does by keyboard alone.
async function act(page, hand, timeout) {
    const [[what, of]] = Object.entries(hand);
    const [selector, text] = [of].flat();
    switch (what) {
        case "press":
            await reach(page, selector, timeout);
            return page.keyboard.press("Enter");
        case "type":
            await reach(page, selector, timeout);
            await page.keyboard.press("Control+A");
            return page.keyboard.type(text);
        case "scroll":
            return reach(page, selector, timeout);
        case "choose":
            return page.setInputFiles(selector, join(project, text));
        case "see": {
            const reached = ([selector, text]) => document.querySelector(selector).textContent.includes(text);
            return page.waitForFunction(reached, [selector, text], { timeout });
        }
        default:
            throw new Error(`nobody can ${what}`);
    }
}

// Presses Tab until an element has the focus, which has to show.
async function reach(page, selector, timeout) {
    // It may not be possible yet.
    await page.waitForSelector(`${selector}:not(:disabled)`, { timeout });
    for (let presses = 0; presses < 100; presses++) {
        const focus = await page.evaluate((selector) => {
            const { activeElement } = document;
            return activeElement.matches(selector) && getComputedStyle(activeElement).outlineStyle;
        }, selector);
        if (focus === "none") throw new Error(`nobody sees that ${selector} has the focus`);
        if (focus) return;
        await page.keyboard.press("Tab");
    }
    throw new Error(`Tab does not reach ${selector}`);
}

// Runs a script before everything else, in the page and in its worker.
async function spoil(context, page, script) {
    await page.addInitScript(script);
    // The first module of the worker's.
    await context.route("**/older.js", async (route) => {
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
