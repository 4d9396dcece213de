// All parameters are of one group.

fn group_of(at: u32) -> u32 { return 0u; }
