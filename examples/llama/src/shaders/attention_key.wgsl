// attention_key: the gradients of a key and a value, from all tokens of its sequence that come after it and all heads
// that share it, in this order. Four places at a time, so that a token's rows are loaded once for them: what is called by places
// has one component for each.
//
// Bindings: 0 span (batch.wgsl), 1 query, 2 keys, 3 values, 4 d_result, 5 log_sums, 6 deltas (as in attention_query.wgsl),
//   7 d_keys, 8 d_values (as the keys)
// Grid: x = tokens / 4, y = heads of keys. Workgroup: HEAD_WIDTH threads, each with a token of the chunk, then an element.
// Workgroup memory: `own_keys` and `own_values`; `weights` and `slopes` of the chunk. 64 bytes a thread, so that heads of 256
// elements take what every device has.
@group(0) @binding(1) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> d_result: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> log_sums: array<f32>;
@group(0) @binding(6) var<storage, read> deltas: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_keys: array<f32>;
@group(0) @binding(8) var<storage, read_write> d_values: array<f32>;

const VECS = HEAD_WIDTH / 4u;

var<workgroup> own_keys: array<array<vec4<f32>, 4>, VECS>;
var<workgroup> own_values: array<array<vec4<f32>, 4>, VECS>;
var<workgroup> weights: array<vec4<f32>, HEAD_WIDTH>;
var<workgroup> slopes: array<vec4<f32>, HEAD_WIDTH>;

@compute @workgroup_size(HEAD_WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let place = 4u * id.x;
    let key_head = id.y;
    if (place >= span.tokens) { return; }
    let present = min(span.tokens - place, 4u);
    let places = place + vec4<u32>(0u, 1u, 2u, 3u);
    let loaded = (min(place + local / VECS, span.tokens - 1u) * KEY_HEADS + key_head) * VECS + local % VECS;
    own_keys[local % VECS][local / VECS] = keys[loaded];
    own_values[local % VECS][local / VECS] = values[loaded];
    workgroupBarrier();
    let ends = (places / span.sequence + 1u) * span.sequence;
    let end = min(ends[present - 1u], span.tokens);
    var d_key = vec4<f32>();
    var d_value = vec4<f32>();
    for (var member = 0u; member < HEADS / KEY_HEADS; member++) {
        let head = key_head * (HEADS / KEY_HEADS) + member;
        for (var chunk = place; chunk < end; chunk += HEAD_WIDTH) {
            let count = min(end - chunk, HEAD_WIDTH);
            let token = vec4<u32>(chunk + local);
            let seeing = (token >= places) & (token < ends);
            var weight = vec4<f32>();
            var slope = vec4<f32>();
            if (local < count) {
                let at = (chunk + local) * HEADS + head;
                var product = vec4<f32>();
                var d_weight = vec4<f32>();
                for (var c = 0u; c < VECS; c++) {
                    let q = query[at * VECS + c];
                    let g = d_result[at * VECS + c];
                    product += vec4<f32>(
                        dot(own_keys[c][0], q),
                        dot(own_keys[c][1], q),
                        dot(own_keys[c][2], q),
                        dot(own_keys[c][3], q),
                    );
                    d_weight += vec4<f32>(
                        dot(own_values[c][0], g),
                        dot(own_values[c][1], g),
                        dot(own_values[c][2], g),
                        dot(own_values[c][3], g),
                    );
                }
                weight = exp(SCALE * product - log_sums[at]);
                slope = SCALE * weight * (d_weight - deltas[at]);
            }
            weights[local] = select(vec4<f32>(), weight, seeing);
            slopes[local] = select(vec4<f32>(), slope, seeing);
            workgroupBarrier();
            for (var i = 0u; i < count; i++) {
                let at = ((chunk + i) * HEADS + head) * VECS + local / 4u;
                d_value += weights[i] * d_result[at][local % 4u];
                d_key += slopes[i] * query[at][local % 4u];
            }
            workgroupBarrier();
        }
    }
    for (var t = 0u; t < present; t++) {
        let at = ((place + t) * KEY_HEADS + key_head) * HEAD_WIDTH + local;
        d_keys[at] = d_key[t];
        d_values[at] = d_value[t];
    }
}
