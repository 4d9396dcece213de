// cross_entropy: the loss of each token. The gradient of the mean loss replaces the logits.
//
//   losses[t] = log(sum_c exp(logits[t][c])) - logits[t][byte[t]]
//   logits[t][c] := (softmax(logits[t])[c] - (c == byte[t])) / tokens
//
// Bindings (row-major):
//   0  windows  tokens x 17 u32: 16 context bytes, then the byte to predict
//   1  logits   tokens x 256 f32; replaced by the gradient
//   2  losses   tokens f32, in nats; written
// Grid: x = tokens. Workgroup: 64 threads, a vec4 of the token's row each.
// Workgroup memory: `lanes`. Sums are trees of a fixed shape, so that equal inputs give equal bits.

@group(0) @binding(0) var<storage, read> windows: array<u32>;
@group(0) @binding(1) var<storage, read_write> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;

const WINDOW = 17u;
const THREADS = 64u;

var<workgroup> lanes: array<f32, THREADS>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) quad: u32,
) {
    let at = group.x * THREADS + quad;
    let row = logits[at];

    lanes[quad] = max(max(row.x, row.y), max(row.z, row.w));
    for (var reach = THREADS / 2u; reach > 0u; reach /= 2u) {
        workgroupBarrier();
        if (quad < reach) {
            lanes[quad] = max(lanes[quad], lanes[quad + reach]);
        }
    }
    workgroupBarrier();
    let largest = lanes[0];
    workgroupBarrier();

    let powers = exp(row - largest);
    lanes[quad] = (powers.x + powers.y) + (powers.z + powers.w);
    for (var reach = THREADS / 2u; reach > 0u; reach /= 2u) {
        workgroupBarrier();
        if (quad < reach) {
            lanes[quad] += lanes[quad + reach];
        }
    }
    workgroupBarrier();
    let total = lanes[0];

    let byte = windows[group.x * WINDOW + WINDOW - 1u];
    var gradient = powers / total;
    if (quad == byte / 4u) {
        losses[group.x] = log(total) + largest - row[byte % 4u];
        gradient[byte % 4u] -= 1.0;
    }
    logits[at] = gradient / f32(grid.x);
}
