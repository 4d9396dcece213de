// A bias of target_width elements.

@group(0) @binding(4) var<storage, read> bias: array<f32>;

fn bias_quad(c: u32) -> vec4<f32> {
    let last = dims.target_width - 1u;
    return vec4<f32>(
        bias[4u * c],
        bias[min(4u * c + 1u, last)],
        bias[min(4u * c + 2u, last)],
        bias[min(4u * c + 3u, last)],
    );
}
