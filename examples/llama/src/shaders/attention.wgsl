// attention: for every token and head, the softmax of the query's products with the keys before it, times the values.
// Keys and values are shared by HEADS / KEY_HEADS heads. In chunks of as many keys as a head has elements, with sums that are
// rescaled when the largest product grows. A thread has a group of four tokens: with them it multiplies four keys of the chunk,
// and then sums up four elements of a head, so that what is loaded is used four times.
//
// Bindings: 0 span (batch.wgsl), 1 query (tokens x HEADS * HEAD_WIDTH), 2 keys, 3 values (rows x KEY_HEADS * HEAD_WIDTH),
//   4 result (as the query), 5 log_sums (tokens x HEADS; the logarithm of each softmax's sum)
// Grid: x = tokens / TILE, y = heads. Workgroup: HEAD_WIDTH threads, four groups.
// Workgroup memory: `weights`, for each group and key the exponentials of its tokens; before that each thread's largest products.
@group(0) @binding(1) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> result: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> log_sums: array<f32>;

var<workgroup> weights: array<vec4<f32>, 4u * HEAD_WIDTH>;

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
    let last = span.position + tokens;
    let rows = min(tokens, vec4<u32>(span.tokens - 1u)) * HEADS + head;
    // The groups behind the last token have nothing to do: all but one where a single token is generated.
    let idle = tokens.x >= span.tokens;
    let end = span.position + min(begin + TILE, span.tokens);
    var most = vec4<f32>(-1e30);
    var total = vec4<f32>();
    var sum = mat4x4<f32>();
    for (var chunk = begin / span.sequence * span.sequence; chunk < end; chunk += HEAD_WIDTH) {
        let places = chunk + 4u * lane + FOUR;
        let at = (min(places, vec4<u32>(end - 1u)) * KEY_HEADS + key_head) * VECS;
        var products = mat4x4<f32>();
        for (var c = 0u; c < select(VECS, 0u, idle); c++) {
            let q = rows * VECS + c;
            let k = at + c;
            products += transpose(mat4x4<f32>(query[q.x], query[q.y], query[q.z], query[q.w]))
                * mat4x4<f32>(keys[k.x], keys[k.y], keys[k.z], keys[k.w]);
        }
        for (var j = 0u; j < 4u; j++) {
            let seen = (vec4<u32>(places[j]) >= first) & (vec4<u32>(places[j]) <= last);
            products[j] = select(vec4<f32>(-1e30), SCALE * products[j], seen);
        }
        weights[own + lane] = max(max(products[0], products[1]), max(products[2], products[3]));
        workgroupBarrier();
        var largest = most;
        for (var i = 0u; i < VECS; i++) { largest = max(largest, weights[own + i]); }
        workgroupBarrier();
        for (var j = 0u; j < 4u; j++) {
            // Where no key has been seen yet, the largest is no product.
            weights[own + 4u * lane + j] = select(exp(products[j] - largest), vec4<f32>(), products[j] == vec4<f32>(-1e30));
        }
        workgroupBarrier();
        let rescale = exp(most - largest);
        most = largest;
        total *= rescale;
        sum = mat4x4<f32>(sum[0] * rescale.x, sum[1] * rescale.y, sum[2] * rescale.z, sum[3] * rescale.w);
        for (var i = 0u; i < select(min(end - chunk, HEAD_WIDTH), 0u, idle); i++) {
            let weight = weights[own + i];
            total += weight;
            sum += outer(weight, values[((chunk + i) * KEY_HEADS + key_head) * VECS + lane]);
        }
        workgroupBarrier();
    }
    for (var t = 0u; t < 4u; t++) {
        if (tokens[t] < span.tokens) {
            result[rows[t] * VECS + lane] = sum[t] / total[t];
            if (lane == 0u) { log_sums[rows[t]] = most[t] + log(total[t]); }
        }
    }
}
