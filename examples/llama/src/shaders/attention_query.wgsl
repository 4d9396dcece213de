// attention_query: the gradient of the query, and each row's product of what attention gave with its gradient, from the
// weights exp(product - log_sum). Of sequences that begin at place 0.
//
// Bindings: 0 span (batch.wgsl), 1 query, 2 keys, 3 values, 4 result, 5 d_result, 6 log_sums (as in attention.wgsl),
//   7 d_query (as the query), 8 deltas (as log_sums)
// Grid: x = tokens, y = heads. Workgroup: HEAD_WIDTH threads, each with a key of the chunk, then with an element of a head.
// Workgroup memory: `own`, the query and the result's gradient; `slopes`, the chunk's gradients of products.
@group(0) @binding(1) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> result: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> d_result: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> log_sums: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_query: array<f32>;
@group(0) @binding(8) var<storage, read_write> deltas: array<f32>;

const VECS = HEAD_WIDTH / 4u;

var<workgroup> own: array<array<vec4<f32>, VECS>, 2>;
var<workgroup> slopes: array<f32, HEAD_WIDTH>;

@compute @workgroup_size(HEAD_WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let token = id.x;
    let head = id.y;
    if (token >= span.tokens) { return; }
    let row = token * HEADS + head;
    if (local < VECS) {
        own[0][local] = query[row * VECS + local];
        own[1][local] = d_result[row * VECS + local];
    }
    workgroupBarrier();
    var delta = 0.0;
    for (var c = 0u; c < VECS; c++) { delta += dot(own[1][c], result[row * VECS + c]); }
    let key_head = head / (HEADS / KEY_HEADS);
    let end = token + 1u;
    var sum = 0.0;
    for (var chunk = token / span.sequence * span.sequence; chunk < end; chunk += HEAD_WIDTH) {
        let count = min(end - chunk, HEAD_WIDTH);
        var slope = 0.0;
        if (local < count) {
            let key = ((chunk + local) * KEY_HEADS + key_head) * VECS;
            var product = 0.0;
            var d_weight = 0.0;
            for (var c = 0u; c < VECS; c++) {
                product += dot(own[0][c], keys[key + c]);
                d_weight += dot(own[1][c], values[key + c]);
            }
            slope = SCALE * exp(SCALE * product - log_sums[row]) * (d_weight - delta);
        }
        slopes[local] = slope;
        workgroupBarrier();
        for (var i = 0u; i < count; i++) {
            sum += slopes[i] * keys[((chunk + i) * KEY_HEADS + key_head) * VECS + local / 4u][local % 4u];
        }
        workgroupBarrier();
    }
    d_query[row * HEAD_WIDTH + local] = sum;
    if (local == 0u) { deltas[row] = delta; }
}
