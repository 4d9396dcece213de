// The tokens of a step. Several sequences of `sequence` tokens lie one behind the other; a generation is one sequence
// that never ends.
struct Span {
    tokens: u32,
    // The first token's place in its sequence.
    position: u32,
    sequence: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> span: Span;
