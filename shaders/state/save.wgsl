// Training: h and w go to `saved` (tokens x STATE, rows [h, w], or h alone for one expert). Besides x,
// backward needs nothing else of forward. Only the first output slice writes, since all slices have the same
// state.
//@ kernel: state
//@ host: QUADS, STATE, TILE_TOKENS, WORKGROUP

@group(0) @binding(4) var<storage, read_write> saved: array<f32>;

fn save_state(first_token: u32, tokens: u32, slice: u32, local: u32) {
    if (slice != 0u) {
        return;
    }
    for (var item = local; item < TILE_TOKENS * STATE; item += WORKGROUP) {
        let token = item / STATE;
        let column = item % STATE;
        if (first_token + token < tokens) {
            saved[(first_token + token) * STATE + column] = state[column * QUADS + token / 4u][token % 4u];
        }
    }
}
