//! What can go wrong on a stranger's device, made to happen: each page has a sentence for it.

use serde::Serialize;

/// How a page's surroundings are spoilt, and what the page has to say then. `browser.mjs` does it.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Trouble {
    /// Run before everything else, in the page and in its worker.
    script: Option<&'static str>,
    /// The browser's GPU process ends when the page's status contains this.
    crash_at: Option<&'static str>,
    /// Whether the page goes out of sight before that.
    hidden: bool,
    /// What the page's sentence begins with.
    sentence: &'static str,
}

pub(super) const NO_WEBGPU: Trouble = Trouble {
    script: Some("Object.defineProperty(Object.getPrototypeOf(navigator), 'gpu', { get() {} });"),
    crash_at: None,
    hidden: false,
    sentence: "This browser does not offer WebGPU here.",
};

pub(super) const NO_ADAPTER: Trouble = Trouble {
    script: Some("GPU.prototype.requestAdapter = async () => null;"),
    crash_at: None,
    hidden: false,
    sentence: "The browser has WebGPU, but found no GPU that it trusts.",
};

/// Buffers find no memory, as a browser tells it: by the scope around what makes them.
pub(super) const NO_MEMORY: Trouble = Trouble {
    script: Some(
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
    crash_at: None,
    hidden: false,
    sentence: "The device has too little memory left for that.",
};

/// The device is lost while the page's status contains `crash_at`.
pub(super) const fn lost(crash_at: &'static str) -> Trouble {
    Trouble {
        script: None,
        crash_at: Some(crash_at),
        hidden: false,
        sentence: "The browser lost the device: its driver stopped, or something else needed it.",
    }
}

/// As [`lost`], while the page is out of sight.
pub(super) const fn asleep(crash_at: &'static str) -> Trouble {
    Trouble {
        hidden: true,
        sentence: "The device was lost while this page was out of sight: browsers put such pages to sleep.",
        ..lost(crash_at)
    }
}
