// Global-norm clipping: gradients, after their scale, are scaled by min(1, max_norm / (norm + 1e-6)), and a step whose norm
// is not finite is skipped.
//@ import optimiser/norm: INFINITY, Status
//@ import uniform/hyper: hyper

@group(0) @binding(4) var<storage, read> status: Status;

fn skipped() -> bool { return status.norm >= INFINITY; }

fn clip(unscaled: vec4<f32>) -> vec4<f32> {
    let gradient = hyper.gradient_scale * unscaled;
    let norm = hyper.gradient_scale * bitcast<f32>(status.norm) + 1e-6;
    if (norm <= hyper.max_norm) {
        return gradient;
    }
    // A very large norm takes two steps, because a single factor could be too small for f32.
    let unit = select(1.0, 0x1p-64f, norm > 0x1p64f);
    return (hyper.max_norm / (norm * unit)) * (gradient * unit);
}
