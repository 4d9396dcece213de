// Adds a bias of target_width elements to each finished output. Its binding follows that of the target.
//@ kernel: dims
//@ host: TARGET_BINDING

@group(0) @binding(TARGET_BINDING + 1u) var<storage, read> bias: array<f32>;

fn epilogue(row: u32, c: u32, value: vec4<f32>) -> vec4<f32> {
    let last = dims.target_width - 1u;
    return value + vec4<f32>(
        bias[4u * c],
        bias[min(4u * c + 1u, last)],
        bias[min(4u * c + 2u, last)],
        bias[min(4u * c + 3u, last)],
    );
}
