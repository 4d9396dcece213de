// loss: the negative log-likelihood of every token's target. Where TRAINING, the logits become their gradients:
// (softmax - one-hot) * weight, with the weight of the token in the loss.
//
// Bindings: 0 span (batch.wgsl), 1 targets (numbers), 2 weights (of each token), 3 logits (tokens x VOCABULARY), 4 losses
// Grid: x = tokens. Workgroup: LOSS_THREADS threads along a row. Workgroup memory: `partial`, a number of each.
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> logits: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;

var<workgroup> partial: array<f32, LOSS_THREADS>;

@compute @workgroup_size(LOSS_THREADS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if (id.x >= span.tokens) { return; }
    let row = id.x * (VOCABULARY / 4u);
    var largest = vec4<f32>(-1e30);
    for (var c = local; c < VOCABULARY / 4u; c += LOSS_THREADS) { largest = max(largest, logits[row + c]); }
    partial[local] = max(max(largest.x, largest.y), max(largest.z, largest.w));
    workgroupBarrier();
    var most = -1e30;
    for (var i = 0u; i < LOSS_THREADS; i++) { most = max(most, partial[i]); }
    workgroupBarrier();
    var powers = 0.0;
    for (var c = local; c < VOCABULARY / 4u; c += LOSS_THREADS) { powers += dot(exp(logits[row + c] - most), vec4<f32>(1.0)); }
    partial[local] = powers;
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < LOSS_THREADS; i++) { total += partial[i]; }
    let target_token = min(targets[id.x], VOCABULARY - 1u);
    if (local == 0u) {
        losses[id.x] = most + log(total) - logits[row + target_token / 4u][target_token % 4u];
    }
    if (TRAINING) {
        storageBarrier();
        workgroupBarrier();
        let weight = weights[id.x];
        for (var c = local; c < VOCABULARY / 4u; c += LOSS_THREADS) {
            let lanes = vec4<u32>(0u, 1u, 2u, 3u) + 4u * c;
            let hit = select(vec4<f32>(0.0), vec4<f32>(1.0), lanes == vec4<u32>(target_token));
            logits[row + c] = weight * (exp(logits[row + c] - most) / total - hit);
        }
    }
}
