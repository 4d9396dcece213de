// The products of TENSOR without dropout.

fn drops_of_TENSOR(token: u32, column: u32) -> vec4<u32> { return vec4<u32>(0u); }
fn word_of_TENSOR(words: vec4<u32>, token: u32) -> u32 { return 0u; }
fn kept_TENSOR(value: vec4<f32>, word: u32) -> vec4<f32> { return value; }
fn seen_TENSOR(row: u32, value: vec4<f32>, kept: vec4<f32>) -> vec4<f32> { return value; }
