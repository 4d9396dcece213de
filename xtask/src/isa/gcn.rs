//! AMD's instruction sets as RADV prints them. Loads arrive in the order of issue, and `s_waitcnt vmcnt(3)`
//! waits until no more than three are on their way.

use std::collections::BTreeMap;

use super::loops::{Instruction, Kind};

/// Reads the assembly of one shader.
pub(super) fn parse(text: &str) -> Vec<Instruction> {
    let mut labels = BTreeMap::new();
    let mut lines = Vec::new();
    // Behind the semicolon stands the encoding.
    for line in text.lines().map(|line| line.split(';').next().unwrap_or_default().trim()) {
        if let Some(label) = line.strip_suffix(':') {
            labels.insert(label, lines.len());
        } else if line.starts_with(|first: char| first.is_ascii_lowercase()) {
            lines.push(line);
        }
    }
    // Since RDNA, stores have a counter of their own, and additions without carry a name with `nc`.
    let counted =
        !lines.iter().any(|line| line.starts_with("v_add_nc_") || line.starts_with("s_waitcnt_vscnt"));
    lines.into_iter().map(|line| instruction(line, counted, &labels)).collect()
}

fn instruction(line: &str, counted: bool, labels: &BTreeMap<&str, usize>) -> Instruction {
    let name = line.split_whitespace().next().unwrap_or_default();
    let is_memory = ["buffer_", "global_", "flat_"].iter().any(|prefix| name.starts_with(prefix));
    let most = line.split_once("vmcnt(").and_then(|(_, rest)| rest.split_once(')')?.0.parse().ok());
    let kind = match most {
        Some(most) if name == "s_waitcnt" => Kind::Wait(most),
        _ if is_memory && name.contains("_load") => Kind::Load(Vec::new()),
        _ if is_memory && name.contains("_store") => Kind::Store { counted },
        _ => Kind::Other,
    };
    let is_branch = name.starts_with("s_branch") || name.starts_with("s_cbranch");
    let label = line.split_whitespace().last().filter(|_| is_branch);
    // RDNA 3 has lines with two instructions.
    let multiplies = |word: &&str| {
        let operation =
            word.strip_prefix("v_dual_").or(word.strip_prefix("v_pk_")).or(word.strip_prefix("v_"));
        let operations = ["fma", "mul_f", "mad_f", "mac_f"];
        operation.is_some_and(|operation| operations.iter().any(|name| operation.starts_with(name)))
    };
    Instruction {
        kind,
        target: label.and_then(|label| labels.get(label)).copied(),
        reads: Vec::new(),
        products: line.split_whitespace().filter(multiplies).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::loops::{Loop, Role, loops};
    use super::parse;

    const SUMS: &str = "\tv_dual_fmac_f32 v8, v4, v60 :: v_dual_fmac_f32 v9, v5, v60   ; c8000000\n";

    #[test]
    fn waits_count_what_is_still_on_its_way() {
        let text = [
            "BB2:\n\ts_add_u32 s3, s3, 64 ; 8003c003\n\tv_add_nc_u32_e32 v6, 1, v4\n",
            "BB3:\n\ts_cbranch_scc0 BB11                            ; bfa10187\n",
            "BB10:\n\ts_buffer_load_b32 s5, s[8:11], 0xc\n\ts_waitcnt lgkmcnt(0)\n",
            "\tbuffer_load_b64 v[46:47], v41, s[16:19], 0 offen            ; e0540000 80442e29\n",
            "\tbuffer_load_b128 v[60:63], v41, s[20:23], 0 offen\n",
            "\tbuffer_load_b128 v[64:67], v50, s[20:23], 0 offen\n",
            "\ts_waitcnt vmcnt(1) lgkmcnt(7)                         ; bf890477\n",
            &SUMS.repeat(8),
            // On its way since before the wait above: it comes when the others do.
            "\ts_waitcnt vmcnt(0)\n",
            "\tglobal_load_b128 v[68:71], v50, s[2:3]\n\ts_waitcnt vmcnt(0)\n",
            "\ts_branch BB2\nBB11:\n\ts_endpgm\n",
        ]
        .concat();
        let expected =
            Loop { role: Role::Sum, instructions: 21, products: 16, loads: 4, in_flight: 3, waits: 2 };
        assert_eq!(loops(&parse(&text)), [expected]);
    }

    #[test]
    fn stores_are_counted_before_rdna_and_never_waited_for() {
        let text = |last: &str| {
            let quad = "\tbuffer_load_dwordx4 v[4:7], v1, s[4:7], 0 offen\n\ts_waitcnt vmcnt(0)\n\tv_add_f32_e32 v4, \
                        v4, v8\n\tbuffer_store_dwordx4 v[4:7], v1, s[4:7], 0 offen\n";
            let ahead = "\tbuffer_load_dwordx4 v[12:15], v2, s[4:7], 0 offen\n";
            format!("BB5:\n{ahead}{quad}\ts_waitcnt vmcnt(1)\n{last}\ts_cbranch_scc1 BB5\n")
        };
        let vega = loops(&parse(&text("")));
        assert_eq!(
            vega,
            [Loop { role: Role::Add, instructions: 7, products: 0, loads: 2, in_flight: 2, waits: 1 }]
        );
        let rdna = loops(&parse(&text("\tv_add_nc_u32_e32 v1, 4, v1\n")));
        assert_eq!(
            rdna,
            [Loop { role: Role::Add, instructions: 8, products: 0, loads: 2, in_flight: 2, waits: 1 }]
        );
    }
}
