//! NVIDIA's instruction set as `nvdisasm` prints it. A load's registers are waited for where they are read.

use std::collections::BTreeMap;

use super::loops::{Instruction, Kind};

/// Reads what `nvdisasm -c` prints of one kernel.
pub(super) fn parse(text: &str) -> Vec<Instruction> {
    let mut labels = BTreeMap::new();
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(label) = line.strip_suffix(':') {
            labels.insert(label, lines.len());
        } else if let Some((_, rest)) = line.strip_prefix("/*").and_then(|line| line.split_once("*/"))
            && let Some((instruction, _)) = rest.split_once(';')
        {
            lines.push(instruction.trim());
        }
    }
    lines.into_iter().map(|line| instruction(line, &labels)).collect()
}

fn instruction(line: &str, labels: &BTreeMap<&str, usize>) -> Instruction {
    // Behind the predicate, if there is one.
    let line = if line.starts_with('@') { line.split_once(' ').map_or("", |(_, rest)| rest) } else { line };
    let (name, operands) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    let operands: Vec<&str> = operands.split(',').map(str::trim).collect();
    let mut parts = name.split('.');
    let operation = parts.next().unwrap_or_default();
    let width = parts.find_map(|part| part.parse::<u16>().ok()).map_or(1, |bits| bits.div_ceil(32));
    let (written, read) = match operation {
        // The last operand is what is stored, the others are addresses.
        "STG" | "STS" | "STL" => (Vec::new(), &operands[..]),
        _ => (registers(operands[0], width), &operands[1..]),
    };
    let stored = |index: usize| matches!(operation, "STG" | "STS" | "STL") && index + 1 == operands.len();
    let reads = read
        .iter()
        .enumerate()
        .flat_map(|(index, operand)| registers(operand, if stored(index) { width } else { 1 }));
    let label = operands.iter().find_map(|operand| operand.strip_prefix("`(")?.strip_suffix(')'));
    Instruction {
        reads: reads.collect(),
        kind: match operation {
            "LDG" => Kind::Load(written),
            "STG" => Kind::Store { counted: false },
            _ => Kind::Other,
        },
        target: label.and_then(|label| labels.get(label)).copied(),
        products: usize::from(matches!(operation, "FFMA" | "FMUL")),
    }
}

/// The vector registers in an operand, each the first of `width`: `R4`, `desc[UR8][R2.64+0x10]`.
fn registers(operand: &str, width: u16) -> Vec<u16> {
    let mut registers = Vec::new();
    let words = operand.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        // RZ is zero, UR4 is uniform.
        let number = word.strip_prefix('R').and_then(|number| number.parse::<u16>().ok());
        if let Some(first) = number {
            let width = if words.peek() == Some(&"64") { width.max(2) } else { width };
            registers.extend(first..first + width);
        }
    }
    registers
}

#[cfg(test)]
mod tests {
    use super::super::loops::{Loop, Role, loops};
    use super::{parse, registers};

    /// A loop as `nvdisasm` prints it, with what surrounds one.
    fn listing(body: &[&str]) -> String {
        let body = body.iter().map(|line| match line.strip_suffix(':') {
            Some(label) => format!(".{label}:\n"),
            None => format!("        /*05e0*/                   {line} ;\n"),
        });
        format!(
            "\t.section\t.text.entry,\"ax\",@progbits\n.text.entry:\n        /*0000*/                   LDC R1, \
             c[0x0][0x28] ;\n{}        /*0e00*/                   EXIT ;\n.L_x_9:\n        /*0e10*/                   \
             BRA `(.L_x_9);\n",
            body.collect::<String>()
        )
    }

    fn sums(count: usize, source: &str) -> Vec<String> {
        (0..count).map(|_| format!("FFMA R108, R93, {source}.reuse, R108")).collect()
    }

    #[test]
    fn a_load_is_waited_for_where_its_registers_are_read() {
        let [first, last] = [sums(8, "R40"), sums(8, "R31")];
        let body = [
            &["L_x_2:", "IADD3 R71, R102, R109, RZ"][..],
            &["LDG.E.128.CONSTANT R40, desc[UR8][R90.64]", "@!P0 LDG.E.64 R36, desc[UR8][R88.64+0x10]"],
            // Addresses are not what was loaded.
            &["IMAD.WIDE.U32 R28, R70, 0x10, R124"],
            &first.iter().map(String::as_str).collect::<Vec<_>>(),
            // The last of four registers.
            &["LDG.E.128.CONSTANT R28, desc[UR8][R28.64]"],
            &last.iter().map(String::as_str).collect::<Vec<_>>(),
            &["@P0 BRA `(.L_x_2)"],
        ]
        .concat();
        let found = loops(&parse(&listing(&body)));
        let expected =
            Loop { role: Role::Sum, instructions: 22, products: 16, loads: 3, in_flight: 2, waits: 2 };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn what_is_added_to_waits_once_for_each_store() {
        let quad = |at| {
            [
                format!("LDG.E.128 R4, desc[UR8][R2.64+{at}]"),
                "FADD R4, R4, R20".to_owned(),
                format!("STG.E.128 desc[UR8][R2.64+{at}], R4"),
            ]
        };
        let body: Vec<_> = ["0x0", "0x10"].into_iter().flat_map(quad).collect();
        let mut body: Vec<&str> = body.iter().map(String::as_str).collect();
        body.insert(0, "L_x_5:");
        body.push("BRA `(.L_x_5)");
        let found = loops(&parse(&listing(&body)));
        assert_eq!(
            found,
            [Loop { role: Role::Add, instructions: 7, products: 0, loads: 2, in_flight: 1, waits: 2 }]
        );
    }

    #[test]
    fn registers_are_those_that_vectors_hold() {
        assert_eq!(registers("R4", 4), [4, 5, 6, 7]);
        assert_eq!(registers("desc[UR8][R2.64+0x10]", 1), [2, 3]);
        assert_eq!(registers("-R110.reuse", 1), [110]);
        for nothing in ["RZ", "UR4", "SR_TID.X", "c[0x0][0x28]", "!PT", "0x4"] {
            assert_eq!(registers(nothing, 1), [0; 0], "{nothing}");
        }
    }
}
