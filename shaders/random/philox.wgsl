// Philox 4x32-10: random numbers from a counter and a key, without state (Salmon et al., "Parallel random numbers: as
// easy as 1, 2, 3", SC11).
//@ import random: whole_product

fn philox_round(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    let first = whole_product(counter.x, 0xd2511f53u);
    let second = whole_product(counter.z, 0xcd9e8d57u);
    return vec4<u32>(second.y ^ counter.y ^ key.x, second.x, first.y ^ counter.w ^ key.y, first.x);
}

// Unrolled by hand: a loop would count as ten iterations on drivers that end loops.
fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    let step = vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    var words = philox_round(counter, key);
    words = philox_round(words, key + step);
    words = philox_round(words, key + 2u * step);
    words = philox_round(words, key + 3u * step);
    words = philox_round(words, key + 4u * step);
    words = philox_round(words, key + 5u * step);
    words = philox_round(words, key + 6u * step);
    words = philox_round(words, key + 7u * step);
    words = philox_round(words, key + 8u * step);
    return philox_round(words, key + 9u * step);
}
