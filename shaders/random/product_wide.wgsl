// The product of two numbers in 64 bits, which takes one or two instructions on GPUs. naga has them, WGSL has not.

// The low and the high half of a product.
fn whole_product(a: u32, b: u32) -> vec2<u32> {
    let product = u64(a) * u64(b);
    return vec2<u32>(u32(product), u32(product >> 32u));
}
