// The group of four parameters: two bits of `groups`, sixteen of which are in a word.
//@ host: GROUPS_BINDING

@group(0) @binding(GROUPS_BINDING) var<storage, read> groups: array<u32>;

fn group_of(at: u32) -> u32 { return (groups[at / 16u] >> (2u * (at % 16u))) & 3u; }
