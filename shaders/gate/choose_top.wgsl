// The TOP experts with the largest weights are chosen, of equal ones those with the lower indices. The others get a minus:
// they count as zero, but backward and the router's losses need them. With RENORMALISE the weights of the chosen are
// divided by their sum.
//@ kernel: state
//@ host: A_ROWS, EXPERTS, QUADS, RENORMALISE, TOP

fn choose(quad: u32) {
    var total = vec4<f32>(0.0);
    for (var expert = 0u; expert < EXPERTS; expert++) {
        let own = state[(A_ROWS + expert) * QUADS + quad];
        var before = vec4<u32>(0u);
        for (var other = 0u; other < EXPERTS; other++) {
            // One with a minus already is no larger than TOP others, which are before this one too if it is.
            let weight = state[(A_ROWS + other) * QUADS + quad];
            let larger = (weight > own) | ((weight == own) & vec4<bool>(other < expert));
            before += select(vec4<u32>(0u), vec4<u32>(1u), larger);
        }
        let chosen = before < vec4<u32>(TOP);
        total += select(vec4<f32>(0.0), own, chosen);
        state[(A_ROWS + expert) * QUADS + quad] = select(-own, own, chosen);
    }
    if (RENORMALISE) {
        for (var expert = 0u; expert < EXPERTS; expert++) {
            let weight = state[(A_ROWS + expert) * QUADS + quad];
            state[(A_ROWS + expert) * QUADS + quad] = select(weight / total, weight, weight < vec4<f32>(0.0));
        }
    }
}
