// attention: for every token and head, the softmax of the query's products with the keys before it, times the values.
// Keys and values are shared by HEADS / KEY_HEADS heads. In chunks of as many keys as a head has elements, with sums that are
// rescaled when the largest product grows.
//
// Bindings: 0 span (batch.wgsl), 1 query (tokens x HEADS * HEAD_WIDTH), 2 keys, 3 values (rows x KEY_HEADS * HEAD_WIDTH),
//   4 result (as the query), 5 log_sums (tokens x HEADS; the logarithm of each softmax's sum)
// Grid: x = tokens, y = heads. Workgroup: HEAD_WIDTH threads, each with a key of the chunk, then with an element of a head.
// Workgroup memory: `own`, the query; `weights`, the chunk's products and then their exponentials.
@group(0) @binding(1) var<storage, read> query: array<f32>;
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> values: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
@group(0) @binding(5) var<storage, read_write> log_sums: array<f32>;

const VECS = HEAD_WIDTH / 4u;

var<workgroup> own: array<vec4<f32>, VECS>;
var<workgroup> weights: array<f32, HEAD_WIDTH>;

@compute @workgroup_size(HEAD_WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let token = id.x;
    let head = id.y;
    if (token >= span.tokens) { return; }
    let at = (token * HEADS + head) * HEAD_WIDTH;
    if (local < VECS) {
        let q = at + 4u * local;
        own[local] = SCALE * vec4<f32>(query[q], query[q + 1u], query[q + 2u], query[q + 3u]);
    }
    workgroupBarrier();
    let key_head = head / (HEADS / KEY_HEADS);
    let first = token / span.sequence * span.sequence;
    let end = span.position + token + 1u;
    var most = -1e30;
    var total = 0.0;
    var sum = 0.0;
    for (var chunk = first; chunk < end; chunk += HEAD_WIDTH) {
        let count = min(end - chunk, HEAD_WIDTH);
        var product = -1e30;
        if (local < count) {
            let key = ((chunk + local) * KEY_HEADS + key_head) * VECS;
            product = 0.0;
            for (var c = 0u; c < VECS; c++) { product += dot(own[c], keys[key + c]); }
        }
        weights[local] = product;
        workgroupBarrier();
        var largest = most;
        for (var i = 0u; i < count; i++) { largest = max(largest, weights[i]); }
        workgroupBarrier();
        weights[local] = exp(product - largest);
        workgroupBarrier();
        let rescale = exp(most - largest);
        most = largest;
        total *= rescale;
        sum *= rescale;
        for (var i = 0u; i < count; i++) {
            total += weights[i];
            sum += weights[i] * values[((chunk + i) * KEY_HEADS + key_head) * HEAD_WIDTH + local];
        }
        workgroupBarrier();
    }
    result[at + local] = sum / total;
    if (local == 0u) { log_sums[token * HEADS + head] = most + log(total); }
}
