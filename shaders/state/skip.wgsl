// Inference: nothing is saved.

fn save_state(first_token: u32, tokens: u32, slice: u32, local: u32) {
}
