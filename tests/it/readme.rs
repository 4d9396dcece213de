//! The README shows `examples/embed.rs` unchanged.

#[test]
fn the_embedding_example_is_the_readmes() {
    let example = include_str!("../../examples/embed.rs");
    let shown = format!("```rust\n{example}```");
    assert!(include_str!("../../README.md").contains(&shown), "copy examples/embed.rs into README.md");
}
