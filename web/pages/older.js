// What the library asks of browsers, and came to them later than WebGPU. The worker loads it before the library.

const UNKNOWN = { vendor: "", architecture: "", device: "", description: "" };

// Chrome has had it since 127.
if (globalThis.GPUAdapter && !("info" in GPUAdapter.prototype)) {
    Object.defineProperty(GPUAdapter.prototype, "info", { value: UNKNOWN });
}

// Chrome has had it since 132. Until then only the adapter tells.
if (globalThis.GPUDevice && !("adapterInfo" in GPUDevice.prototype)) {
    const { requestDevice } = GPUAdapter.prototype;
    GPUAdapter.prototype.requestDevice = async function (...descriptor) {
        const device = await requestDevice.apply(this, descriptor);
        return Object.defineProperty(device, "adapterInfo", { value: this.info });
    };
}
