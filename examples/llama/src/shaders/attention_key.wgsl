// attention_key: the gradients of a key and a value, from all tokens of its sequence that come after it and all heads
// that share it, in this order.
//
// Bindings: 0 span (batch.wgsl), 1 query, 2 keys, 3 values, 4 d_result, 5 log_sums, 6 deltas (as in attention_query.wgsl),
//   7 d_keys, 8 d_values (as the keys)
// Grid: x = tokens, y = heads of keys. Workgroup: HEAD_WIDTH threads, each with a token of the chunk, then an element.
// Workgroup memory: `own`, the key and the value; `weights` and `slopes` of the chunk.
@group(0) @binding(1) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> d_result: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> log_sums: array<f32>;
@group(0) @binding(6) var<storage, read> deltas: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_keys: array<f32>;
@group(0) @binding(8) var<storage, read_write> d_values: array<f32>;

const VECS = HEAD_WIDTH / 4u;

var<workgroup> own: array<array<vec4<f32>, VECS>, 2>;
var<workgroup> weights: array<f32, HEAD_WIDTH>;
var<workgroup> slopes: array<f32, HEAD_WIDTH>;

@compute @workgroup_size(HEAD_WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let place = id.x;
    let key_head = id.y;
    if (place >= span.tokens) { return; }
    let row = place * KEY_HEADS + key_head;
    if (local < VECS) {
        own[0][local] = keys[row * VECS + local];
        own[1][local] = values[row * VECS + local];
    }
    workgroupBarrier();
    let end = min((place / span.sequence + 1u) * span.sequence, span.tokens);
    var d_key = 0.0;
    var d_value = 0.0;
    for (var member = 0u; member < HEADS / KEY_HEADS; member++) {
        let head = key_head * (HEADS / KEY_HEADS) + member;
        for (var chunk = place; chunk < end; chunk += HEAD_WIDTH) {
            let count = min(end - chunk, HEAD_WIDTH);
            var weight = 0.0;
            var slope = 0.0;
            if (local < count) {
                let at = (chunk + local) * HEADS + head;
                var product = 0.0;
                var d_weight = 0.0;
                for (var c = 0u; c < VECS; c++) {
                    product += dot(own[0][c], query[at * VECS + c]);
                    d_weight += dot(own[1][c], d_result[at * VECS + c]);
                }
                weight = exp(SCALE * product - log_sums[at]);
                slope = SCALE * weight * (d_weight - deltas[at]);
            }
            weights[local] = weight;
            slopes[local] = slope;
            workgroupBarrier();
            for (var i = 0u; i < count; i++) {
                let at = ((chunk + i) * HEADS + head) * VECS + local / 4u;
                d_value += weights[i] * d_result[at][local % 4u];
                d_key += slopes[i] * query[at][local % 4u];
            }
            workgroupBarrier();
        }
    }
    d_keys[row * HEAD_WIDTH + local] = d_key;
    d_values[row * HEAD_WIDTH + local] = d_value;
}
