//! What can go wrong on a stranger's device, made to happen: each page has a sentence for it.

use serde::Serialize;

/// How a page's surroundings are spoilt. `browser.mjs` does it.
#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
pub(super) enum Spoilt {
    /// By a script that runs before everything else, in the page and in its worker.
    Script { script: &'static str },
    /// The browser's GPU process ends when the page's status contains this, out of sight or not.
    Crash { crash_at: &'static str, hidden: bool },
}

/// What is spoilt, and what the page's sentence begins with.
pub(super) type Trouble = (Spoilt, &'static str);

const fn script(script: &'static str) -> Spoilt {
    Spoilt::Script { script }
}

/// No trouble, but another clock.
pub(super) const NO_TIMESTAMPS: Spoilt = script(
    "const { get } = Object.getOwnPropertyDescriptor(GPUAdapter.prototype, 'features');
     Object.defineProperty(GPUAdapter.prototype, 'features', {
         get() {
             const features = new Set(get.call(this));
             features.delete('timestamp-query');
             return features;
         },
     });",
);

pub(super) const NO_WEBGPU: Trouble = (
    script("Object.defineProperty(Object.getPrototypeOf(navigator), 'gpu', { get() {} });"),
    "This browser does not offer WebGPU here.",
);

pub(super) const NO_ADAPTER: Trouble = (
    script("GPU.prototype.requestAdapter = async () => null;"),
    "The browser has WebGPU, but found no GPU that it trusts.",
);

/// Buffers find no memory, as a browser tells it: by the scope around what makes them.
pub(super) const NO_MEMORY: Trouble = (
    script(
        "const create = GPUDevice.prototype.createBuffer, pop = GPUDevice.prototype.popErrorScope;
         const filters = [], push = GPUDevice.prototype.pushErrorScope;
         let made = 0;
         GPUDevice.prototype.createBuffer = function (...of) { made += 1; return create.apply(this, of); };
         GPUDevice.prototype.pushErrorScope = function (filter) { filters.push(filter); push.call(this, filter); };
         GPUDevice.prototype.popErrorScope = async function () {
             const filter = filters.pop(), error = await pop.call(this);
             return filter === 'out-of-memory' && made > 10 ? new GPUOutOfMemoryError('no room') : error;
         };",
    ),
    "The device has too little memory left for that.",
);

/// A browser as it was when WebGPU was new in it.
pub(super) const OLDER: Spoilt = script(
    "delete globalThis.GPUDevice?.prototype.adapterInfo;
     delete globalThis.GPUAdapter?.prototype.info;
     delete globalThis.Iterator;
     for (const made of [[].keys(), new Map().values()]) {
         const { prototype } = { prototype: Object.getPrototypeOf(Object.getPrototypeOf(made)) };
         for (const name of ['filter', 'map', 'toArray']) delete prototype[name];
     }",
);

pub(super) const REFUSED: Trouble = (
    script(
        "GPUAdapter.prototype.requestDevice = async () => { throw new DOMException('no', 'OperationError'); };",
    ),
    "The browser found a GPU, but gives this page no device of it.",
);

/// A device whose buffers have to be small.
pub(super) const SMALL: Trouble = (
    script(
        "for (const name of ['maxBufferSize', 'maxStorageBufferBindingSize'])
             Object.defineProperty(GPUSupportedLimits.prototype, name, { get: () => 4096 });",
    ),
    "This device allows less than that takes.",
);

/// The clipboard is shut.
pub(super) const NO_CLIPBOARD: Spoilt =
    script("Object.defineProperty(Object.getPrototypeOf(navigator), 'clipboard', { get() {} });");

/// The browser's GPU process ends while the page's status contains `crash_at`.
pub(super) const fn crash(crash_at: &'static str) -> Spoilt {
    Spoilt::Crash { crash_at, hidden: false }
}

/// What a page explains that goes on with no other device.
pub(super) const fn lost(crash_at: &'static str) -> Trouble {
    (crash(crash_at), "The browser lost the device: its driver stopped, or something else needed it.")
}

/// As [`lost`], while the page is out of sight.
pub(super) const fn asleep(crash_at: &'static str) -> Trouble {
    (
        Spoilt::Crash { crash_at, hidden: true },
        "The device was lost while this page was out of sight: browsers put such pages to sleep.",
    )
}
