// attention_query: the gradient of the query, and each row's product of what attention gave with its gradient, from the
// weights exp(product - log_sum). Of sequences that begin at place 0. Four tokens at a time, as in attention.wgsl.
//
// Bindings: 0 span (batch.wgsl), 1 query, 2 keys, 3 values, 4 result, 5 d_result, 6 log_sums (as in attention.wgsl),
//   7 d_query (as the query), 8 deltas (as log_sums)
// Grid: x = tokens / 4, y = heads. Workgroup: HEAD_WIDTH threads, each with a key of the chunk, then with an element of a head.
// Workgroup memory: `own`, the queries, and `gradients`, the results'; `parts` of the deltas; `slopes`, the chunk's gradients of
// products.
@group(0) @binding(1) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> result: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> d_result: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> log_sums: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_query: array<f32>;
@group(0) @binding(8) var<storage, read_write> deltas: array<f32>;

const VECS = HEAD_WIDTH / 4u;

var<workgroup> own: array<array<vec4<f32>, 4>, VECS>;
var<workgroup> gradients: array<array<vec4<f32>, 4>, VECS>;
var<workgroup> parts: array<f32, HEAD_WIDTH>;
var<workgroup> slopes: array<vec4<f32>, HEAD_WIDTH>;

@compute @workgroup_size(HEAD_WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let token = 4u * id.x;
    let head = id.y;
    if (token >= span.tokens) { return; }
    let present = min(span.tokens - token, 4u);
    let tokens = token + vec4<u32>(0u, 1u, 2u, 3u);
    let rows = min(tokens, vec4<u32>(span.tokens - 1u)) * HEADS + head;
    let loaded = rows[local / VECS] * VECS + local % VECS;
    own[local % VECS][local / VECS] = query[loaded];
    gradients[local % VECS][local / VECS] = d_result[loaded];
    parts[local] = dot(d_result[loaded], result[loaded]);
    workgroupBarrier();
    var delta = vec4<f32>();
    for (var c = 0u; c < VECS; c++) {
        delta += vec4<f32>(parts[c], parts[VECS + c], parts[2u * VECS + c], parts[3u * VECS + c]);
    }
    let log_sum = vec4<f32>(log_sums[rows.x], log_sums[rows.y], log_sums[rows.z], log_sums[rows.w]);
    let key_head = head / (HEADS / KEY_HEADS);
    let first = tokens / span.sequence * span.sequence;
    let end = token + present;
    var sum = vec4<f32>();
    for (var chunk = first.x; chunk < end; chunk += HEAD_WIDTH) {
        let count = min(end - chunk, HEAD_WIDTH);
        let place = vec4<u32>(chunk + local);
        let seen = (place >= first) & (place <= tokens);
        var slope = vec4<f32>();
        if (local < count) {
            let at = ((chunk + local) * KEY_HEADS + key_head) * VECS;
            var product = vec4<f32>();
            var d_weight = vec4<f32>();
            for (var c = 0u; c < VECS; c++) {
                let key = keys[at + c];
                let value = values[at + c];
                product += vec4<f32>(dot(own[c][0], key), dot(own[c][1], key), dot(own[c][2], key), dot(own[c][3], key));
                d_weight += vec4<f32>(
                    dot(gradients[c][0], value),
                    dot(gradients[c][1], value),
                    dot(gradients[c][2], value),
                    dot(gradients[c][3], value),
                );
            }
            slope = SCALE * exp(SCALE * product - log_sum) * (d_weight - delta);
        }
        slopes[local] = select(vec4<f32>(), slope, seen);
        workgroupBarrier();
        for (var i = 0u; i < count; i++) {
            sum += slopes[i] * keys[((chunk + i) * KEY_HEADS + key_head) * VECS + local / 4u][local % 4u];
        }
        workgroupBarrier();
    }
    for (var t = 0u; t < present; t++) { d_query[rows[t] * HEAD_WIDTH + local] = sum[t]; }
    if (local < present) { deltas[rows[local]] = delta[local]; }
}
