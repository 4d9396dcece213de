// Threads are numbered by their subgroups, which need not follow the workgroup's own numbers: neighbours
// are in one subgroup.

struct Thread {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
}

fn local_index(thread: Thread) -> u32 { return thread.subgroup * thread.size + thread.invocation; }
