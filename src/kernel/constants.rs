//! The constants that the host sets when it composes a shader, and their meanings.

/// Names and meanings, in the order of the block at the start of a shader. `TENSOR` stands for a tensor's
/// name.
pub(super) const CONSTANTS: &[(&str, &str)] = &[
    ("WORKGROUP", "threads in a workgroup"),
    ("ACCUMULATE", "whether results are added to what is there"),
    ("RANK", "columns of each B"),
    ("A_ROWS", "rows of A: RANK, or those of all experts together where each has an A of its own"),
    ("EXPERTS", "expert matrices"),
    ("STATE", "numbers per token in saved and dstate"),
    ("SHRINK_ROWS", "rows of the shrink block"),
    ("COLUMNS", "columns of the shrink"),
    ("QUADS", "tokens of a tile, in fours"),
    ("TILE_TOKENS", "tokens of a tile"),
    ("GROUPS", "groups of lanes that sum other columns of the shrink side by side"),
    (
        "LANES",
        "threads along the inner dimension: those of all groups and quads, or of all columns, are a workgroup",
    ),
    ("PASS_COLUMNS", "columns of the shrink that a thread sums at a time"),
    (
        "SUMMED_COLUMNS",
        "columns whose sums are complete at a time: divides PASS_COLUMNS, or with subgroups a multiple of it",
    ),
    ("SHUFFLED_LANES", "lanes that add their sums by shuffles: a power of two, at most any subgroup's size"),
    ("LANE_PARTS", "LANES / SHUFFLED_LANES: what is left to add through workgroup memory"),
    ("SPLITS", "splits of the inner dimension in the shrink that came before"),
    ("SCRATCH", "vec4s of workgroup memory for the lanes' sums, then for coefficients"),
    ("EXPAND_QUADS", "tokens that a thread expands at a time, in fours: 1, 2 or 4; divides QUADS"),
    ("STEP", "rows of the expand, or vec4s of the inner dimension, whose loads may overlap"),
    (
        "STAGED_ROWS",
        "rows of the expand whose coefficients are in workgroup memory at a time: a multiple of STEP",
    ),
    ("ALL_STAGED", "whether those are all: then no barrier is inside the loops"),
    (
        "BROADCAST_LANES",
        "lanes that hold a coefficient each and broadcast it: a power of two, at most any subgroup's size; 1 where \
         every lane reads all",
    ),
    ("TOKENS_AT_ONCE", "tokens, and rows that are added to, whose loads are in flight together: 1 or 4"),
    ("ROWS_TENSOR", "rows of gradients that a thread keeps: a multiple of four, at most 4 * WORKGROUP"),
    ("THREAD_TOKENS", "tokens that a thread computes"),
    ("THREAD_QUADS", "vec4s of target columns that a thread computes"),
    ("COLUMN_THREADS", "threads of a workgroup along the target columns"),
    ("TILE_QUADS", "COLUMN_THREADS * THREAD_QUADS: vec4s of target columns of a workgroup"),
    ("DEPTH", "vec4s of the inner dimension in a tile"),
    ("SIZE", "rows and columns of a cooperative matrix"),
    ("INNER_ROWS", "whether W0's rows run along the inner dimension: forward"),
    ("LATE_TARGET", "whether sums are added to what is there only after those of A's rows"),
    ("DROPS_X", "whether elements of x are dropped"),
    ("DROPS_H", "whether elements of h are dropped, for each expert others"),
    ("TOKEN_QUADS", "whether splits have whole fours of tokens"),
    ("MASKED", "whether some tokens take no adapter"),
    ("GROUPS_BINDING", "the binding of the parameters' groups"),
    ("MASK_BINDING", "the binding of the mask of tokens"),
    ("TOP", "experts that are chosen"),
    ("RENORMALISE", "whether the weights of those chosen are divided by their sum"),
    (
        "SIGNS",
        "whether experts are chosen: a weight with a minus is that of one that was not, and counts as zero",
    ),
    ("NORMALISE", "whether the weights are divided by their sum, which follows them in the state"),
    ("LATENT_RANK", "columns of the latent router: RANK, or 0 without one"),
    ("GATE_COLUMNS", "columns of the gate block: the latent router's, and the bias"),
    ("GIVEN_BINDING", "the binding of what the caller gives for the gate"),
    ("LOGSUMEXP", "whether the logsumexp of the logits follows the weights in the state"),
    ("LOSSES", "whether the gradient of the router's losses is added"),
    ("Z_LOSS", "whether that of the z-loss is one of them"),
    ("OF_LOGITS", "whether a gradient that is added is one of the logits, and not of the weights"),
    ("OF_LOSSES", "whether it is that of the router's losses"),
    ("OF_SOFTMAX", "whether it is one of the softmax, before experts are chosen"),
    ("TARGET_BINDING", "the binding of what is written"),
];

/// A constant's place in the block, and its meaning.
pub(super) fn meaning(name: &str) -> Option<(usize, &'static str)> {
    let pattern = name.split_once('_').filter(|(rows, tensor)| *rows == "ROWS" && !tensor.is_empty());
    let pattern = if pattern.is_some() { "ROWS_TENSOR" } else { name };
    CONSTANTS.iter().position(|(known, _)| *known == pattern).map(|at| (at, CONSTANTS[at].1))
}
