//! The defects, as data.

/// A defect: in `file`, the one place where `find` stands is replaced.
pub(super) struct Defect {
    pub(super) name: &'static str,
    /// Under shaders/.
    pub(super) file: &'static str,
    pub(super) find: &'static str,
    pub(super) replace: &'static str,
    /// Why no suite on a software driver can notice it, if none can.
    pub(super) survives: Option<&'static str>,
}

const fn defect(name: &'static str, file: &'static str, find: &'static str, replace: &'static str) -> Defect {
    Defect { name, file, find, replace, survives: None }
}

pub(super) const DEFECTS: &[Defect] = &[
    // forward
    defect("forward scale dropped", "forward.wgsl", "= dims.scaling * state", "= state"),
    defect(
        "forward experts swapped",
        "forward.wgsl",
        "state[(RANK + row / RANK) * QUADS + quad]",
        "state[(RANK + (row / RANK + 1u) % EXPERTS) * QUADS + quad]",
    ),
    defect(
        "forward with another h",
        "forward.wgsl",
        "state[(row % RANK) * QUADS + quad];",
        "state[(row / EXPERTS % RANK) * QUADS + quad];",
    ),
    defect(
        "forward coefficients of the first quad only",
        "forward.wgsl",
        "item < count * QUADS;",
        "item < count;",
    ),
    defect(
        "forward coefficients of another quad",
        "forward.wgsl",
        "let quad = item % QUADS;",
        "let quad = QUADS - 1u - item % QUADS;",
    ),
    defect(
        "softmax without its maximum",
        "forward.wgsl",
        "exp(state[(RANK + expert) * QUADS + quad] - largest)",
        "exp(state[(RANK + expert) * QUADS + quad])",
    ),
    defect(
        "softmax maximum of the first only",
        "forward.wgsl",
        "largest = max(largest, state[(RANK + expert) * QUADS + quad]);",
        "largest = largest;",
    ),
    defect("softmax not normalised", "forward.wgsl", "* QUADS + quad] / total;", "* QUADS + quad];"),
    defect("softmax total of weights but the last", "forward.wgsl", "total += weight;", "total = weight;"),
    defect(
        "forward barrier after softmax removed",
        "forward.wgsl",
        "workgroupBarrier();\n    save_state",
        "save_state",
    ),
    defect(
        "forward slice ignored",
        "forward.wgsl",
        "let first_group = group.x * dims.slice_groups;",
        "let first_group = 0u;",
    ),
    defect(
        "forward slice's end ignored",
        "forward.wgsl",
        "min(first_group + dims.slice_groups, out_groups())",
        "out_groups()",
    ),
    defect(
        "forward folded grid ignored",
        "forward.wgsl",
        "let tile = group.y + group.z * grid.y;",
        "let tile = group.y;",
    ),
    // part/save_state
    defect("saved tokens rotated", "part/save_state.wgsl", "[token % 4u];", "[(token + 1u) % 4u];"),
    defect(
        "saved last token missing",
        "part/save_state.wgsl",
        "first_token + token < tokens",
        "first_token + token + 1u < tokens",
    ),
    defect(
        "saved columns reversed",
        "part/save_state.wgsl",
        "saved[(first_token + token) * STATE + column] =",
        "saved[(first_token + token) * STATE + STATE - 1u - column] =",
    ),
    Defect {
        name: "saved tail tokens unmasked",
        file: "part/save_state.wgsl",
        find: "if (first_token + token < tokens) {",
        replace: "if (true) {",
        survives: Some(
            "bindings end with the last token, and where drivers discard writes beyond a binding nothing changes",
        ),
    },
    // part/shrink
    defect(
        "shrink last chunk skipped",
        "part/shrink.wgsl",
        "k < end; k += LANES",
        "k < end / LANES * LANES; k += LANES",
    ),
    defect(
        "shrink column group repeated",
        "part/shrink.wgsl",
        "min(first + column, COLUMNS - 1u)",
        "min(column, COLUMNS - 1u)",
    ),
    defect("shrink tokens swapped", "part/shrink.wgsl", "dot(x2, m), dot(x3, m))", "dot(x3, m), dot(x2, m))"),
    // shrink
    defect("shrink splits overlap", "shrink.wgsl", "return split * dims.split_groups;", "return 0u;"),
    defect(
        "shrink split's end ignored",
        "shrink.wgsl",
        "min(source_begin() + dims.split_groups, source_groups())",
        "source_groups()",
    ),
    defect(
        "shrink of the first columns only",
        "shrink.wgsl",
        "let first_column = group.x % COLUMN_BLOCKS * GROUP;",
        "let first_column = 0u;",
    ),
    defect("shrink of one split over another", "shrink.wgsl", "(split * tiles + tile)", "tile"),
    defect(
        "shrink folded grid ignored",
        "shrink.wgsl",
        "let tile = group.y + group.z * grid.y;",
        "let tile = group.y;",
    ),
    // part/source_sums
    defect("sums of the last split lost", "part/source_sums.wgsl", "split < SPLITS;", "split < SPLITS - 1u;"),
    defect(
        "sums of the first tile only",
        "part/source_sums.wgsl",
        "(tile * COLUMNS + first) * QUADS + item;",
        "first * QUADS + item;",
    ),
    defect(
        "sums of later columns misplaced",
        "part/source_sums.wgsl",
        "shrunk(first + item / QUADS,",
        "shrunk(item / QUADS,",
    ),
    defect(
        "sums barrier before they are absorbed removed",
        "part/source_sums.wgsl",
        "workgroupBarrier();\n        absorb",
        "absorb",
    ),
    defect(
        "sums barrier before the next columns removed",
        "part/source_sums.wgsl",
        "these ones' place.\n        workgroupBarrier();",
        "these ones' place.",
    ),
    // part/lanes_workgroup
    defect(
        "shrink last lane lost",
        "part/lanes_workgroup.wgsl",
        "other < LANES; other++",
        "other < LANES - 1u; other++",
    ),
    defect(
        "shrink result before its reduction",
        "part/lanes_workgroup.wgsl",
        "shrunk(column, item % QUADS, sum);",
        "shrunk(column, item % QUADS, scratch[item * LANES]);",
    ),
    defect(
        "shrink barrier before reduction removed",
        "part/lanes_workgroup.wgsl",
        "workgroupBarrier();\n            for (var item = local; item < REDUCE",
        "for (var item = local; item < REDUCE",
    ),
    defect(
        "shrink barrier after reduction removed",
        "part/lanes_workgroup.wgsl",
        "workgroupBarrier();\n            if (first + chunk < end)",
        "if (first + chunk < end)",
    ),
    defect(
        "shrink reduced chunk misplaced",
        "part/lanes_workgroup.wgsl",
        "let column = first + chunk + item / QUADS;",
        "let column = first + item / QUADS;",
    ),
    // part/lanes_subgroup
    defect(
        "shrink shuffle lost",
        "part/lanes_subgroup.wgsl",
        "{ sum += subgroupShuffleXor(sum, 2u); }",
        "{ }",
    ),
    defect(
        "shrink parts of one chunk in the next",
        "part/lanes_subgroup.wgsl",
        "(first + column - begin) * QUADS",
        "(first + column) * QUADS",
    ),
    defect("shrink last part lost", "part/lanes_subgroup.wgsl", "part < PARTS;", "part < PARTS - 1u;"),
    defect(
        "shrink chunk of columns misplaced",
        "part/lanes_subgroup.wgsl",
        "shrunk(begin + item / QUADS,",
        "shrunk(item / QUADS,",
    ),
    defect(
        "shrink barrier before adding parts removed",
        "part/lanes_subgroup.wgsl",
        "workgroupBarrier();\n    if (PARTS > 1u)",
        "if (PARTS > 1u)",
    ),
    defect(
        "shrink barrier after adding parts removed",
        "part/lanes_subgroup.wgsl",
        "workgroupBarrier();\n    }\n    absorb",
        "}\n    absorb",
    ),
    Defect {
        name: "shrink barrier before the next columns removed",
        file: "part/lanes_subgroup.wgsl",
        find: "these ones' place.\n            workgroupBarrier();",
        replace: "these ones' place.",
        survives: Some(
            "subgroups of four, with which the suite runs here, never hold all lanes of a tile, and the barrier \
             behind their parts suffices; subgroups of eight notice",
        ),
    },
    // part/expand
    defect("expand accumulation ignored", "part/expand.wgsl", "load_target(row, c) + sum)", "sum)"),
    defect("expand row index transposed", "part/expand.wgsl", "at += groups;", "at += 1u;"),
    defect("expand tokens swapped", "part/expand.wgsl", "+= z.z * m;", "+= z.y * m;"),
    defect(
        "expand outputs of later rounds missing",
        "part/expand.wgsl",
        "first_c < end_group;",
        "first_c < first_group + WORKGROUP;",
    ),
    defect(
        "expand later quads stored over the first",
        "part/expand.wgsl",
        "let target_row = first_token + 4u * first_quad;",
        "let target_row = first_token;",
    ),
    defect(
        "expand slice start ignored",
        "part/expand.wgsl",
        "let c = first_c + local;",
        "let c = first_c - first_group + local;",
    ),
    defect(
        "expand later quads repeat the first",
        "part/expand.wgsl",
        "let base = row * QUADS + first_quad;",
        "let base = row * QUADS;",
    ),
    defect("expand coefficients never made", "part/expand.wgsl", "stage(0u, rows, local);", ""),
    defect(
        "expand chunks repeat the first",
        "part/expand.wgsl",
        "stage(first_row, count, local);",
        "stage(0u, count, local);",
    ),
    defect(
        "expand chunks read the first rows",
        "part/expand.wgsl",
        "matrix + first_row * groups +",
        "matrix +",
    ),
    defect(
        "expand last chunk whole",
        "part/expand.wgsl",
        "let count = min(CHUNK, rows - first_row);",
        "let count = CHUNK;",
    ),
    defect(
        "expand barrier of the one chunk removed",
        "part/expand.wgsl",
        "stage(0u, rows, local);\n        workgroupBarrier();",
        "stage(0u, rows, local);",
    ),
    defect(
        "expand barrier before a chunk removed",
        "part/expand.wgsl",
        "workgroupBarrier();\n                    stage(first_row",
        "stage(first_row",
    ),
    defect(
        "expand barrier after a chunk removed",
        "part/expand.wgsl",
        "count, local);\n                    workgroupBarrier();",
        "count, local);",
    ),
    defect(
        "expand later steps repeat the first",
        "part/expand.wgsl",
        "base + step * QUADS + quad)",
        "base + quad)",
    ),
    defect(
        "expand later steps held by the first's lanes",
        "part/expand.wgsl",
        "held(holding, step * EXPAND_QUADS + quad,",
        "held(holding, quad,",
    ),
    defect(
        "expand lanes hold the first quad",
        "part/expand.wgsl",
        "own / EXPAND_QUADS * QUADS + own % EXPAND_QUADS",
        "own / EXPAND_QUADS * QUADS",
    ),
    defect(
        "expand second quad lost",
        "part/expand.wgsl",
        "store_quad(1u, target_row",
        "store_quad(0u, target_row",
    ),
    defect(
        "expand outputs past the slice",
        "part/expand.wgsl",
        "select(0u, tokens, c < end_group)",
        "tokens",
    ),
    defect(
        "expand last token missing",
        "part/expand.wgsl",
        "if (row < end_token) {",
        "if (row + 1u < end_token) {",
    ),
    Defect {
        name: "expand tail tokens unmasked",
        file: "part/expand.wgsl",
        find: "if (row < end_token) {",
        replace: "if (0u < end_token) {",
        survives: Some(
            "bindings end with the last token, and where drivers discard writes beyond a binding nothing changes",
        ),
    },
    // part/coefficients
    defect(
        "coefficients of the first lane only",
        "part/coefficients_held.wgsl",
        "subgroupShuffle(holding, lane)",
        "subgroupShuffle(holding, 0u)",
    ),
    defect(
        "coefficients of the next index",
        "part/coefficients_read.wgsl",
        "return coefficient(index);",
        "return coefficient(index + 1u);",
    ),
    // part/threads_subgroup
    defect(
        "threads of one subgroup only",
        "part/threads_subgroup.wgsl",
        "return subgroup * size + invocation;",
        "return invocation;",
    ),
    // access
    defect("read past the row's end", "access/read_scalar.wgsl", "if (inside > 3u) {", "if (inside > 0u) {"),
    defect(
        "read rows as if padded",
        "access/read_scalar.wgsl",
        "let first = row * WIDTH + 4u * column;",
        "let first = row * ((WIDTH + 3u) / 4u * 4u) + 4u * column;",
    ),
    defect(
        "read transposed",
        "access/read_rows.wgsl",
        "row * (WIDTH / 4u) + column",
        "column * (WIDTH / 4u) + row",
    ),
    defect("write loses an element", "access/write_scalar.wgsl", "if (inside > 1u) {", "if (inside > 2u) {"),
    defect(
        "write past the row's end",
        "access/write_scalar.wgsl",
        "if (inside > 3u) {",
        "if (inside > 2u) {",
    ),
    defect(
        "f16 halves swapped",
        "access/f16.wgsl",
        "unpack2x16float(words.x), unpack2x16float(words.y)",
        "unpack2x16float(words.y), unpack2x16float(words.x)",
    ),
    defect(
        "bf16 low half unshifted",
        "access/bf16.wgsl",
        "bitcast<f32>(words.x << 16u)",
        "bitcast<f32>(words.x)",
    ),
    defect(
        "f16 stores lose infinities",
        "access/write_f16.wgsl",
        "let high = select(special.y, packed >> 16u, finite.y);",
        "let high = packed >> 16u;",
    ),
    defect(
        "f16 stores saturate late",
        "access/write_f16.wgsl",
        "bitcast<u32>(65520.0)",
        "bitcast<u32>(66000.0)",
    ),
    defect(
        "bf16 stores truncate",
        "access/write_bf16.wgsl",
        "bits + 0x7fffu + ((bits >> vec4<u32>(16u)) & vec4<u32>(1u))",
        "bits",
    ),
    defect(
        "bf16 stores round ties up",
        "access/write_bf16.wgsl",
        "bits + 0x7fffu + ((bits >> vec4<u32>(16u)) & vec4<u32>(1u))",
        "bits + 0x8000u",
    ),
    defect(
        "bf16 stores lose NaN",
        "access/write_bf16.wgsl",
        "let upper = select(rounded, quiet, ",
        "let upper = select(rounded, rounded, ",
    ),
    defect(
        "write transposed",
        "access/write_rows.wgsl",
        "row * (WIDTH / 4u) + column",
        "column * (WIDTH / 4u) + row",
    ),
    // routers
    defect("latent router column lost", "part/router_latent.wgsl", "[j % 4u]", "[0u]"),
    defect(
        "latent router row padding forgotten",
        "part/router_latent.wgsl",
        "expert * ((RANK + 3u) / 4u)",
        "expert * (RANK / 4u)",
    ),
    defect("latent router barrier removed", "part/router_latent.wgsl", "workgroupBarrier();", ""),
    defect(
        "latent router backward overwrites dh",
        "part/router_latent_backward.wgsl",
        "var sum = dstate_tile[item];",
        "var sum = vec4<f32>(0.0);",
    ),
    defect(
        "latent router backward sign",
        "part/router_latent_backward.wgsl",
        "sum += group_parameters",
        "sum -= group_parameters",
    ),
    // backward_input
    defect(
        "softmax backward sign",
        "backward_input.wgsl",
        "state[row] * (dstate_tile[row] - mean)",
        "state[row] * (mean - dstate_tile[row])",
    ),
    defect(
        "softmax backward without its mean",
        "backward_input.wgsl",
        "state[row] * (dstate_tile[row] - mean)",
        "state[row] * dstate_tile[row]",
    ),
    defect("backward scale dropped", "backward_input.wgsl", "= dims.scaling * value;", "= value;"),
    defect(
        "dh weighted by another expert",
        "backward_input.wgsl",
        "state[(RANK + column / RANK) * QUADS + quad]",
        "state[(RANK + column % EXPERTS) * QUADS + quad]",
    ),
    defect(
        "dh chunk offset ignored",
        "backward_input.wgsl",
        "first + (row + RANK - first % RANK) % RANK",
        "first + row",
    ),
    defect(
        "dw with another h",
        "backward_input.wgsl",
        "sum += state[(column % RANK) * QUADS + quad]",
        "sum += state[(column / EXPERTS % RANK) * QUADS + quad]",
    ),
    defect(
        "dw of the chunk's end lost",
        "backward_input.wgsl",
        "let stop = min(end, (expert + 1u) * RANK);",
        "let stop = min(end, (expert + 1u) * RANK) - 1u;",
    ),
    defect(
        "dstate of token 0 everywhere",
        "backward_input.wgsl",
        "dstate_tile[column * QUADS + token / 4u][token % 4u]",
        "dstate_tile[column * QUADS + token / 4u][0u]",
    ),
    defect(
        "backward barrier before softmax removed",
        "backward_input.wgsl",
        "workgroupBarrier();\n    if (local < QUADS)",
        "if (local < QUADS)",
    ),
    defect(
        "dx from the state instead of its gradient",
        "part/input_gradient.wgsl",
        "return dstate_tile[index];",
        "return state[index];",
    ),
    defect(
        "dx slice's end ignored",
        "part/input_gradient.wgsl",
        "let first_group = slice * dims.slice_groups;",
        "let first_group = 0u;",
    ),
    // backward_params
    defect(
        "dB scale dropped",
        "backward_params.wgsl",
        "return dims.scaling * saved[token * STATE + RANK + inside / RANK]",
        "return saved[token * STATE + RANK + inside / RANK]",
    ),
    defect(
        "dB expert and column swapped",
        "backward_params.wgsl",
        "saved[token * STATE + inside % RANK]",
        "saved[token * STATE + inside / EXPERTS % RANK]",
    ),
    defect(
        "latent dW_g from dh",
        "backward_params.wgsl",
        "return dstate[token * STATE + RANK + min(row, EXPERTS - 1u)];",
        "return dstate[token * STATE + min(row, EXPERTS - 1u)];",
    ),
    defect(
        "dB of all splits in one copy",
        "backward_params.wgsl",
        "copy + expand_matrix, group.y",
        "expand_matrix, group.y",
    ),
    defect(
        "outer last stage skipped",
        "part/outer.wgsl",
        "for (var first = begin; first < end; first +=",
        "for (var first = begin; first < end / STAGE_TOKENS_TENSOR * STAGE_TOKENS_TENSOR; first +=",
    ),
    defect(
        "outer lanes hold the first rows",
        "part/outer.wgsl",
        "let own = min(local % HOLDERS, ROW_QUADS_TENSOR - 1u);",
        "let own = 0u;",
    ),
    defect(
        "outer token of the stage ignored",
        "part/outer.wgsl",
        "let base = token * ROW_QUADS_TENSOR;",
        "let base = 0u;",
    ),
    defect(
        "outer splits overlap",
        "part/outer.wgsl",
        "let begin = split * dims.split_tokens;",
        "let begin = 0u;",
    ),
    defect(
        "outer accumulation ignored",
        "part/outer.wgsl",
        "gradients[at] += sums[row];",
        "gradients[at] = sums[row];",
    ),
    defect(
        "outer barrier after staging removed",
        "part/outer.wgsl",
        "workgroupBarrier();\n        for (var token = 0u; token < count",
        "for (var token = 0u; token < count",
    ),
    defect(
        "outer barrier before staging removed",
        "part/outer.wgsl",
        "        workgroupBarrier();\n    }\n    if (column",
        "    }\n    if (column",
    ),
    defect("reduce skips a split", "backward_params_reduce.wgsl", "var split = 1u;", "var split = 2u;"),
    defect(
        "reduce accumulation ignored",
        "backward_params_reduce.wgsl",
        "gradients[at] += sum;",
        "gradients[at] = sum;",
    ),
    // linear
    defect(
        "linear bias shifted",
        "part/linear_bias.wgsl",
        "bias[min(4u * c + 1u, last)]",
        "bias[min(4u * c, last)]",
    ),
    defect("linear accumulation ignored", "linear.wgsl", "load_targets(target_row, c) + value", "value"),
    defect(
        "linear barrier after loading removed",
        "linear.wgsl",
        "workgroupBarrier();\n        for (var k = 0u",
        "for (var k = 0u",
    ),
    defect(
        "linear barrier before loading removed",
        "linear.wgsl",
        "        workgroupBarrier();\n    }\n    for (var token",
        "    }\n    for (var token",
    ),
    defect(
        "linear source read past its end",
        "linear.wgsl",
        "if (k < inner_groups) {\n                value",
        "if (true) {\n                value",
    ),
    defect(
        "linear forward column repeated",
        "part/linear_forward.wgsl",
        "load_weight(min(4u * quad + 2u, last), k)",
        "load_weight(min(4u * quad + 1u, last), k)",
    ),
    Defect {
        name: "linear backward one row too many",
        file: "part/linear_backward.wgsl",
        find: "if (i >= dims.source_width) {",
        replace: "if (i > dims.source_width) {",
        survives: Some(
            "what is read beyond a binding is zero or one of its elements, and times the source, which is zero, \
             only a weight that is not finite would show",
        ),
    },
    // adamw
    defect("adamw decay dropped", "adamw.wgsl", "hyper.decay * parameters[at]", "parameters[at]"),
    defect(
        "adamw second correction dropped",
        "adamw.wgsl",
        "sqrt(second) * hyper.second_scale",
        "sqrt(second)",
    ),
    defect(
        "adamw first moment stale",
        "adamw.wgsl",
        "hyper.step_size * first /",
        "hyper.step_size * gradient /",
    ),
    defect(
        "adamw second moment of one sign",
        "adamw.wgsl",
        "* gradient * gradient;",
        "* gradient * abs(gradient);",
    ),
    defect(
        "adamw clip ignored",
        "adamw.wgsl",
        "let gradient = clip * gradients[at];",
        "let gradient = gradients[at];",
    ),
    defect(
        "clip enlarges small gradients",
        "part/clip_norm.wgsl",
        "return min(1.0, hyper.max_norm / (sqrt(total) + 1e-6));",
        "return hyper.max_norm / (sqrt(total) + 1e-6);",
    ),
    defect("clip barrier removed", "part/clip_norm.wgsl", "workgroupBarrier();", ""),
    defect(
        "norm counts elements twice",
        "gradient_norm.wgsl",
        "at += WORKGROUP * WORKGROUP",
        "at += WORKGROUP * 32u",
    ),
    defect("norm barrier removed", "gradient_norm.wgsl", "workgroupBarrier();", ""),
];
