// gate_losses: losses of a router, their gradient, and what a log shows, from gate_sums.wgsl's sums.
//
//   balance = N * sum_i f_i P_i           f_i the expert's share of the loads, P_i its mean importance (Switch Transformer)
//   spread  = var(I) / (mean(I)^2 + 1e-10)  of the experts' importances I_i, with N - 1 in the variance (cv squared)
//   z-loss  = sum_t z_t^2 / T               of the logits' logsumexp (ST-MoE)
//   dL/dp_i = balance_scale * N f_i / T + spread_scale * dspread/dI_i, the same for all tokens, where p is what the
//             importance sums: the weights, with top-k the softmax before experts were chosen
//   dz-loss/dl_i = factor * z_t p_i, with the factor 2 z_scale / T
//
// Bindings:
//   0  dims           uniform
//   1  sums           experts vec4s: importance, load, entropy, 0; then tokens, sum_t z_t^2, 0, 0
//   2  gate_gradient  experts numbers, dL/dp; then the z-loss's factor, if there are more; written
//   3  report         tokens, balance, spread, mean entropy, z-loss, each expert's load, then its mean importance; written
// Grid: one workgroup of one thread.
// Workgroup memory: none.

struct Dims {
    experts: u32,
    balance_scale: f32,
    spread_scale: f32,
    z_scale: f32,
    gradients: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> gate_gradient: array<f32>;
@group(0) @binding(3) var<storage, read_write> report: array<f32>;

@compute @workgroup_size(1)
fn main() {
    let experts = f32(dims.experts);
    // Without any token, nothing is divided by zero.
    let of_batch = sums[dims.experts];
    let tokens = max(of_batch.x, 1.0);
    var total = vec4<f32>(0.0);
    for (var expert = 0u; expert < dims.experts; expert++) {
        total += sums[expert];
    }
    let mean = total.x / experts;
    let loads = max(total.y, 1.0);
    var balance = 0.0;
    var squares = 0.0;
    for (var expert = 0u; expert < dims.experts; expert++) {
        let importance = sums[expert].x;
        balance += sums[expert].y / loads * (importance / tokens);
        squares += (importance - mean) * (importance - mean);
    }
    let freedoms = max(experts - 1.0, 1.0);
    let variance = squares / freedoms;
    let square = mean * mean + 1e-10;
    for (var expert = 0u; expert < dims.experts; expert++) {
        let load = sums[expert].y / loads;
        let of_spread = 2.0 * (sums[expert].x - mean) / freedoms / square
            - 2.0 * variance / square * (mean / square) / experts;
        gate_gradient[expert] = dims.balance_scale * experts * load / tokens + dims.spread_scale * of_spread;
        report[5u + expert] = load;
        report[5u + dims.experts + expert] = sums[expert].x / tokens;
    }
    if (dims.gradients > dims.experts) {
        gate_gradient[dims.experts] = 2.0 * dims.z_scale / tokens;
    }
    report[0] = of_batch.x;
    report[1] = experts * balance;
    report[2] = variance / square;
    report[3] = total.z / tokens;
    report[4] = of_batch.y / tokens;
}
