//! Intel's instruction set as its compiler dumps it. A load takes one of 16 tokens, `$4`; what needs the data
//! waits for it, `$4.dst`, and so does the next instruction that takes the token.

use std::collections::BTreeMap;

use super::loops::{Instruction, Kind};

/// Reads the dump of one kernel.
pub(super) fn parse(text: &str) -> Vec<Instruction> {
    let mut labels = BTreeMap::new();
    let mut lines = Vec::new();
    for line in text.lines().map(|line| line.split("//").next().unwrap_or_default().trim()) {
        // Whatever stands before the first instruction says nothing of code.
        if let Some(label) = line.strip_suffix(':') {
            labels.insert(label, lines.len());
        } else if line.contains(char::is_whitespace) {
            lines.push(line);
        }
    }
    lines.into_iter().map(|line| instruction(line, &labels)).collect()
}

fn instruction(line: &str, labels: &BTreeMap<&str, usize>) -> Instruction {
    let (line, annotation) = line.split_once('{').unwrap_or((line, ""));
    let annotation: Vec<&str> = annotation.trim_end_matches('}').split(',').map(str::trim).collect();
    let token =
        |word: &&str| word.strip_prefix('$').and_then(|word| word.trim_end_matches(".dst").parse().ok());
    let reads = annotation.iter().filter_map(token).collect();
    let taken = annotation.iter().filter(|word| !word.contains('.')).find_map(token);
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with('('));
    let name = words.next().unwrap_or_default();
    // One lane reads what is the same for all of them: uniforms.
    let of_lanes = !words.clone().any(|word| word.starts_with("(1|"));
    // Without a binding, it is private memory: arrays that found no place in registers.
    let of_buffers = line.contains(" bti[");
    let multiplies = matches!(name.split('.').next(), Some("mad" | "mac" | "mul")) && line.contains(":f");
    Instruction {
        kind: match taken {
            Some(taken) if name.starts_with("load.ugm") && of_buffers && of_lanes => Kind::Load(vec![taken]),
            _ if name.starts_with("store.ugm") && of_buffers => Kind::Store { counted: false },
            _ => Kind::Other,
        },
        target: words.find_map(|word| labels.get(word)).copied(),
        reads,
        products: usize::from(multiplies),
    }
}

#[cfg(test)]
mod tests {
    use super::super::loops::{Loop, Role, loops};
    use super::parse;

    #[test]
    fn a_load_is_waited_for_by_its_token() {
        let sums = |wait| {
            format!(
                "        mad (16|M0)  acc0.0<1>:f  r99.0<1;0>:f  r22.0<1;0>:f  r46.0<1>:f {{Compacted,{wait}}} // $70\n"
            )
        };
        let text = [
            "//.kernel entry\n//.instCount 1441\nL72:\n        mov (16|M0)  r2.0<1>:d  r1.0<1;1,0>:d {A@1}\n",
            "// B005: [inDivergent],  Preds:{B006, B004},  Succs:{B006, B005}\n_0_060:\n",
            "(W)     load.ugm.d32x8t.a32.ca.ca (1|M0)  r108:1 bti[5][r84:1]     {A@1,$12} // ex_desc:0x5000000\n",
            "        load.ugm.d32x4.a32.ca.ca (16|M0)  r46:8 bti[0][r6:2]       {A@3,$4} // ex_desc:0x0\n",
            "        mad (16|M0)  r14.0<1>:d  r2.0<1;0>:d  r4.2<0;0>:d  120:w   {$4.src} // $95\n",
            "        load.ugm.d32x4.a32.ca.ca (16|M0)  r6:8  bti[0][r14:2]      {A@1,$5} // ex_desc:0x0\n",
            "        store.ugm.d32x4.a64.wb.wb (8|M0)  [r112:2] r74:4           {$1} // private\n",
            "        load.ugm.d32x4.a64.ca.ca (8|M0)  r74:4  [r112:2]           {$2} // private\n",
            &sums("$4.dst"),
            &sums("F@1").repeat(15),
            "        sync.nop  null  {Compacted,$5.dst} // $99\n",
            "(W)     jmpi                                 _0_060   // $183\n",
            "_0_061:\n(W)     send.gtwy (8|M0)  null  r112  null:0  0x0  0x02000010  {EOT,A@1} // end of thread\n",
        ]
        .concat();
        let expected =
            Loop { role: Role::Sum, instructions: 24, products: 16, loads: 2, in_flight: 2, waits: 1 };
        assert_eq!(loops(&parse(&text)), [expected]);
        // A token that is taken is free first.
        let again = text.replace("$5", "$4");
        let expected =
            Loop { role: Role::Sum, instructions: 24, products: 16, loads: 2, in_flight: 1, waits: 2 };
        assert_eq!(loops(&parse(&again)), [expected]);
    }
}
