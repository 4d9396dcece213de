// attention_key: the gradients of a key and a value, from all tokens of its sequence that come after it and all heads
// that share it, in this order. A thread has a group of four places: with them it multiplies four tokens of the chunk, and then
// sums up four elements of a head.
//
// Bindings: 0 span (batch.wgsl), 1 query, 2 keys, 3 values, 4 d_result, 5 log_sums, 6 deltas (as in attention_query.wgsl),
//   7 d_keys, 8 d_values (as the keys)
// Grid: x = tokens / TILE, y = heads of keys. Workgroup: HEAD_WIDTH threads, four groups.
// Workgroup memory: `factors`, for each group and token the slopes, and then the weights, of its places.
@group(0) @binding(1) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> d_result: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> log_sums: array<f32>;
@group(0) @binding(6) var<storage, read> deltas: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_keys: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> d_values: array<vec4<f32>>;

var<workgroup> factors: array<vec4<f32>, 4u * HEAD_WIDTH>;

@compute @workgroup_size(HEAD_WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let begin = TILE * id.x;
    if (begin >= span.tokens) { return; }
    let lane = local % VECS;
    let own = local / VECS * HEAD_WIDTH;
    let key_head = id.y;
    let places = begin + 4u * (local / VECS) + FOUR;
    let ends = (places / span.sequence + 1u) * span.sequence;
    let rows = min(places, vec4<u32>(span.tokens - 1u)) * KEY_HEADS + key_head;
    let end = min(((begin + TILE - 1u) / span.sequence + 1u) * span.sequence, span.tokens);
    var d_key = mat4x4<f32>();
    var d_value = mat4x4<f32>();
    for (var member = 0u; member < HEADS / KEY_HEADS; member++) {
        let head = key_head * (HEADS / KEY_HEADS) + member;
        for (var chunk = begin; chunk < end; chunk += HEAD_WIDTH) {
            let count = min(end - chunk, HEAD_WIDTH);
            let tokens = chunk + 4u * lane + FOUR;
            let at = min(tokens, vec4<u32>(end - 1u)) * HEADS + head;
            var products = mat4x4<f32>();
            var d_weights = mat4x4<f32>();
            for (var c = 0u; c < VECS; c++) {
                let k = rows * VECS + c;
                let q = at * VECS + c;
                products += transpose(mat4x4<f32>(keys[k.x], keys[k.y], keys[k.z], keys[k.w]))
                    * mat4x4<f32>(query[q.x], query[q.y], query[q.z], query[q.w]);
                d_weights += transpose(mat4x4<f32>(values[k.x], values[k.y], values[k.z], values[k.w]))
                    * mat4x4<f32>(d_result[q.x], d_result[q.y], d_result[q.z], d_result[q.w]);
            }
            for (var j = 0u; j < 4u; j++) {
                let seeing = (vec4<u32>(tokens[j]) >= places) & (vec4<u32>(tokens[j]) < ends);
                let weight = exp(SCALE * products[j] - log_sums[at[j]]);
                products[j] = select(vec4<f32>(), weight, seeing);
                d_weights[j] = products[j] * SCALE * (d_weights[j] - deltas[at[j]]);
                factors[own + 4u * lane + j] = d_weights[j];
            }
            workgroupBarrier();
            for (var i = 0u; i < count; i++) {
                d_key += outer(factors[own + i], query[((chunk + i) * HEADS + head) * VECS + lane]);
            }
            workgroupBarrier();
            for (var j = 0u; j < 4u; j++) { factors[own + 4u * lane + j] = products[j]; }
            workgroupBarrier();
            for (var i = 0u; i < count; i++) {
                d_value += outer(factors[own + i], d_result[((chunk + i) * HEADS + head) * VECS + lane]);
            }
            workgroupBarrier();
        }
    }
    for (var t = 0u; t < 4u; t++) {
        if (places[t] < span.tokens) {
            d_keys[rows[t] * VECS + lane] = d_key[t];
            d_values[rows[t] * VECS + lane] = d_value[t];
        }
    }
}
