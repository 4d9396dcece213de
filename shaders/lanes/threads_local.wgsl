// Threads are numbered as the workgroup numbers them.

fn local_index(index: u32) -> u32 { return index; }
