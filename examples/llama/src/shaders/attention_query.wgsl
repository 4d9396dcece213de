// attention_query: the gradient of the query, and each row's product of what attention gave with its gradient, from the
// weights exp(product - log_sum). Of sequences that begin at place 0. Threads are as in attention.wgsl.
//
// Bindings: 0 span (batch.wgsl), 1 query, 2 keys, 3 values, 4 result, 5 d_result, 6 log_sums (as in attention.wgsl),
//   7 d_query (as the query), 8 deltas (as log_sums)
// Grid: x = tokens / TILE, y = heads. Workgroup: HEAD_WIDTH threads, four groups.
// Workgroup memory: `slopes`, for each group and key the gradients of its tokens' products; first the parts of the deltas.
@group(0) @binding(1) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> result: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> d_result: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> log_sums: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_query: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> deltas: array<f32>;

var<workgroup> slopes: array<vec4<f32>, 4u * HEAD_WIDTH>;

@compute @workgroup_size(HEAD_WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let begin = TILE * id.x;
    if (begin >= span.tokens) { return; }
    let lane = local % VECS;
    let own = local / VECS * HEAD_WIDTH;
    let head = id.y;
    let key_head = head / (HEADS / KEY_HEADS);
    let tokens = begin + 4u * (local / VECS) + FOUR;
    let first = tokens / span.sequence * span.sequence;
    let rows = min(tokens, vec4<u32>(span.tokens - 1u)) * HEADS + head;
    let end = min(begin + TILE, span.tokens);
    let log_sum = vec4<f32>(log_sums[rows.x], log_sums[rows.y], log_sums[rows.z], log_sums[rows.w]);
    let part = rows * VECS + lane;
    slopes[own + lane] = vec4<f32>(
        dot(d_result[part.x], result[part.x]),
        dot(d_result[part.y], result[part.y]),
        dot(d_result[part.z], result[part.z]),
        dot(d_result[part.w], result[part.w]),
    );
    workgroupBarrier();
    var delta = vec4<f32>();
    for (var i = 0u; i < VECS; i++) { delta += slopes[own + i]; }
    workgroupBarrier();
    var sum = mat4x4<f32>();
    for (var chunk = begin / span.sequence * span.sequence; chunk < end; chunk += HEAD_WIDTH) {
        let places = chunk + 4u * lane + FOUR;
        let at = (min(places, vec4<u32>(end - 1u)) * KEY_HEADS + key_head) * VECS;
        var products = mat4x4<f32>();
        var d_weights = mat4x4<f32>();
        for (var c = 0u; c < VECS; c++) {
            let q = rows * VECS + c;
            let k = at + c;
            products += transpose(mat4x4<f32>(query[q.x], query[q.y], query[q.z], query[q.w]))
                * mat4x4<f32>(keys[k.x], keys[k.y], keys[k.z], keys[k.w]);
            d_weights += transpose(mat4x4<f32>(d_result[q.x], d_result[q.y], d_result[q.z], d_result[q.w]))
                * mat4x4<f32>(values[k.x], values[k.y], values[k.z], values[k.w]);
        }
        for (var j = 0u; j < 4u; j++) {
            let seen = (vec4<u32>(places[j]) >= first) & (vec4<u32>(places[j]) <= tokens);
            let slope = SCALE * exp(SCALE * products[j] - log_sum) * (d_weights[j] - delta);
            slopes[own + 4u * lane + j] = select(vec4<f32>(), slope, seen);
        }
        workgroupBarrier();
        for (var i = 0u; i < min(end - chunk, HEAD_WIDTH); i++) {
            sum += outer(slopes[own + i], keys[((chunk + i) * KEY_HEADS + key_head) * VECS + lane]);
        }
        workgroupBarrier();
    }
    for (var t = 0u; t < 4u; t++) {
        if (tokens[t] < span.tokens) {
            d_query[rows[t] * VECS + lane] = sum[t];
            if (lane == 0u) { deltas[rows[t]] = delta[t]; }
        }
    }
}
