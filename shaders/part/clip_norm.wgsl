// Global-norm clipping: gradients are scaled by min(1, max_norm / (norm + 1e-6)). Every workgroup
// adds up gradient_norm's partial sums itself, in the same order.

@group(0) @binding(4) var<storage, read> squares: array<f32>;

var<workgroup> group_squares: array<f32, WORKGROUP>;

fn clip_factor(local: u32) -> f32 {
    group_squares[local] = squares[local];
    workgroupBarrier();
    var total = 0.0;
    for (var group = 0u; group < WORKGROUP; group++) {
        total += group_squares[group];
    }
    return min(1.0, hyper.max_norm / (sqrt(total) + 1e-6));
}
