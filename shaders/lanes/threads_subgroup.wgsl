// Threads are numbered by their subgroups, which need not follow the workgroup's own numbers: neighbours
// are in one subgroup.

fn local_index(subgroup: u32, size: u32, invocation: u32) -> u32 { return subgroup * size + invocation; }
