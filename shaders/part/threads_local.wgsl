// Threads are numbered as the workgroup numbers them.

struct Thread {
    @builtin(local_invocation_index) index: u32,
}

fn local_index(thread: Thread) -> u32 { return thread.index; }
