// attention: for every token and head, the softmax of the query's products with the keys before it, times the values.
// Keys and values are shared by HEADS / KEY_HEADS heads. In chunks of as many keys as a head has elements, with sums that are
// rescaled when the largest product grows. Four tokens at a time, so that a key and a value are loaded once for them: what is
// called by tokens has one component for each.
//
// Bindings: 0 span (batch.wgsl), 1 query (tokens x HEADS * HEAD_WIDTH), 2 keys, 3 values (rows x KEY_HEADS * HEAD_WIDTH),
//   4 result (as the query), 5 log_sums (tokens x HEADS; the logarithm of each softmax's sum)
// Grid: x = tokens / 4, y = heads. Workgroup: HEAD_WIDTH threads, each with a key of the chunk, then with an element of a head.
// Workgroup memory: `own`, the queries; `weights`, the chunk's products and then their exponentials.
@group(0) @binding(1) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> values: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
@group(0) @binding(5) var<storage, read_write> log_sums: array<f32>;

const VECS = HEAD_WIDTH / 4u;

var<workgroup> own: array<array<vec4<f32>, 4>, VECS>;
var<workgroup> weights: array<vec4<f32>, HEAD_WIDTH>;

@compute @workgroup_size(HEAD_WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let token = 4u * id.x;
    let head = id.y;
    if (token >= span.tokens) { return; }
    let present = min(span.tokens - token, 4u);
    let loaded = min(token + local / VECS, span.tokens - 1u);
    own[local % VECS][local / VECS] = SCALE * query[(loaded * HEADS + head) * VECS + local % VECS];
    workgroupBarrier();
    let key_head = head / (HEADS / KEY_HEADS);
    let tokens = token + vec4<u32>(0u, 1u, 2u, 3u);
    let first = tokens / span.sequence * span.sequence;
    let last = span.position + tokens;
    let end = span.position + token + present;
    var most = vec4<f32>(-1e30);
    var total = vec4<f32>();
    var sum = vec4<f32>();
    for (var chunk = first.x; chunk < end; chunk += HEAD_WIDTH) {
        let count = min(end - chunk, HEAD_WIDTH);
        let place = vec4<u32>(chunk + local);
        let seen = (place >= first) & (place <= last);
        var product = vec4<f32>();
        if (local < count) {
            let at = ((chunk + local) * KEY_HEADS + key_head) * VECS;
            for (var c = 0u; c < VECS; c++) {
                let key = keys[at + c];
                product += vec4<f32>(dot(own[c][0], key), dot(own[c][1], key), dot(own[c][2], key), dot(own[c][3], key));
            }
        }
        weights[local] = select(vec4<f32>(-1e30), product, seen);
        workgroupBarrier();
        var largest = most;
        for (var i = 0u; i < count; i++) { largest = max(largest, weights[i]); }
        workgroupBarrier();
        weights[local] = select(vec4<f32>(), exp(product - largest), seen);
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
    for (var t = 0u; t < present; t++) {
        result[((token + t) * HEADS + head) * HEAD_WIDTH + local] = sum[t] / total[t];
    }
    if (local < present) { log_sums[(token + local) * HEADS + head] = most[local] + log(total[local]); }
}
