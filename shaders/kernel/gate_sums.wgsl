// gate_sums: what the losses of a router need of each expert, summed over the tokens of a batch. gate_losses.wgsl
// makes losses of it. Tokens with a number that is NaN or infinite do not count: they would make the losses' gradient NaN for all.
//
//   importance  sum_t w_i, with top-k the softmax before experts were chosen
//   load        tokens that chose the expert: with top-k those that gave it a weight, otherwise those that gave it the
//               largest, of equal ones the one with the lower index
//   entropy     sum_t -p_i log p_i, with p = w over the sum of a token's weights
//   squares     sum_t z_t^2, of the logsumexp that follows the weights
//
// Bindings (matrices row-major):
//   0  dims    uniform
//   1  saved   tokens x STATE, [h, w] as forward saved them
//   2  sums    EXPERTS vec4s: importance, load, entropy, 0; then tokens, squares, 0, 0; written
//   next  mask  tokens; only where some do not count (mask/given.wgsl)
//   group 1, 0  batch, uniform (uniform/batch.wgsl)
// Grid: x = experts + 1. Workgroup: WORKGROUP threads.
// Workgroup memory: `thread_sums`, WORKGROUP * 16 bytes.
//@ import mask: counts
//@ import uniform/batch: batch_tokens
//@ host: A_ROWS, EXPERTS, LOGSUMEXP, RENORMALISE, SIGNS, STATE, WORKGROUP

struct Dims {
    experts: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> saved: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<vec4<f32>>;

var<workgroup> thread_sums: array<vec4<f32>, WORKGROUP>;

// An expert that was not chosen has its softmax, with a minus.
fn weight(token: u32, expert: u32) -> f32 { return saved[token * STATE + A_ROWS + expert]; }

fn counts_and_is_finite(token: u32) -> bool {
    var is_finite = counts(token);
    for (var at = A_ROWS; at < STATE; at++) {
        is_finite = is_finite && (bitcast<u32>(saved[token * STATE + at]) & 0x7f800000u) != 0x7f800000u;
    }
    return is_finite;
}

// The part of a token in the sums of an expert.
fn token_sums(token: u32, expert: u32) -> vec4<f32> {
    let own = weight(token, expert);
    var is_largest = true;
    var total = 0.0;
    // The part of the softmax that the chosen have.
    var chosen = 1.0;
    for (var other = 0u; other < dims.experts; other++) {
        let others = weight(token, other);
        if (RENORMALISE) { chosen += min(others, 0.0); }
        is_largest = is_largest && !(others > own || (others == own && other < expert));
        total += max(others, 0.0);
    }
    let is_chosen = select(is_largest, own > 0.0, SIGNS);
    var importance = own;
    if (SIGNS) { importance = abs(own); }
    if (RENORMALISE && is_chosen) { importance = own * chosen; }
    var entropy = 0.0;
    if (own > 0.0) {
        let share = own / total;
        entropy = -share * log(share);
    }
    return vec4<f32>(importance, select(0.0, 1.0, is_chosen), entropy, 0.0);
}

// The part of a token in the sums that no expert has.
fn shared_sums(token: u32) -> vec4<f32> {
    var logsumexp = 0.0;
    if (LOGSUMEXP) { logsumexp = saved[token * STATE + A_ROWS + EXPERTS]; }
    return vec4<f32>(1.0, logsumexp * logsumexp, 0.0, 0.0);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    var sum = vec4<f32>(0.0);
    let tokens = batch_tokens();
    for (var token = local; token < tokens; token += WORKGROUP) {
        if (counts_and_is_finite(token)) {
            if (workgroup_id.x < dims.experts) {
                sum += token_sums(token, workgroup_id.x);
            } else {
                sum += shared_sums(token);
            }
        }
    }
    thread_sums[local] = sum;
    workgroupBarrier();
    if (local == 0u) {
        for (var other = 1u; other < WORKGROUP; other++) {
            sum += thread_sums[other];
        }
        sums[workgroup_id.x] = sum;
    }
}
