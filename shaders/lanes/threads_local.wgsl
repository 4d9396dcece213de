// Threads have their local index in the workgroup.

fn local_index(index: u32) -> u32 { return index; }
