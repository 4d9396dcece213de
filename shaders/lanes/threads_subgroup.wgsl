// Threads are numbered by subgroup, so that neighbours are in one subgroup. Subgroups need not follow the
// local index.

fn local_index(subgroup: u32, size: u32, invocation: u32) -> u32 { return subgroup * size + invocation; }
