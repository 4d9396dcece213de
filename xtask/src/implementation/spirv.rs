//! Khronos's validator of SPIR-V, newer than Debian's, from Python's package index; and the fault of naga's that it finds.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::translate::{Compiler, Verdict};
use super::{command, python};

const REQUIREMENTS: &str = include_str!("../../spirv-tools.txt");

/// Installs the validator into `directory`.
pub(super) fn validator(directory: &Path) -> Result<Compiler<'static>, String> {
    let folder = python::install(REQUIREMENTS, directory)?;
    let program = folder.join("cmeel.prefix/bin/spirv-val");
    // `SPIRV-Tools v2025.5 262bdab48146...` is its first line.
    let said = command::output(Command::new(&program).arg("--version"))?;
    let version = said.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let check = move |file: &PathBuf| verdict(&program, file);
    Ok(Compiler { version, check: Box::new(move |files| files.iter().map(&check).collect()) })
}

fn verdict(program: &Path, file: &Path) -> Result<Verdict, String> {
    let bytes = fs::read(file).map_err(|error| format!("{} could not be read: {error}", file.display()))?;
    let output = validate(program, &bytes)?;
    if output.status.success() {
        return Ok(Verdict::Accepted);
    }
    let message = command::said(&output);
    if !is_known(&message) {
        return Ok(Verdict::Refused(message));
    }
    // The validator stops at the first error, so what else there may be shows only without this one.
    let words: Vec<u32> = bytes.as_chunks().0.iter().copied().map(u32::from_le_bytes).collect();
    let mended: Vec<u8> = without_workgroup_strides(&words).into_iter().flat_map(u32::to_le_bytes).collect();
    let output = validate(program, &mended)?;
    Ok(if output.status.success() { Verdict::Known } else { Verdict::Refused(command::said(&output)) })
}

fn validate(program: &Path, bytes: &[u8]) -> Result<Output, String> {
    let failed = |error| format!("{} could not be run: {error}", program.display());
    // Vulkan 1.1 is the one whose SPIR-V is the 1.3 that wgpu asks naga for.
    let mut command = Command::new(program);
    command.args(["--target-env", "vulkan1.1", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(bytes).map_err(failed)?;
    }
    child.wait_with_output().map_err(failed)
}

/// Whether the validator's first error is that naga gives every array type a stride, which those of
/// workgroup memory may not have (<https://github.com/gfx-rs/wgpu/issues/7696>).
fn is_known(message: &str) -> bool {
    let first = message.lines().next().unwrap_or_default();
    first
        .contains("[VUID-StandaloneSpirv-None-10684] Invalid explicit layout decorations on type for operand")
        && first
            .ends_with(", the Workgroup storage class has a explicit layout from the ArrayStride decoration.")
}

/// A module without the strides of the array types that variables in workgroup memory have.
fn without_workgroup_strides(module: &[u32]) -> Vec<u32> {
    const HEADER: usize = 5;
    const OP_TYPE_POINTER: u32 = 32;
    const OP_DECORATE: u32 = 71;
    const WORKGROUP: u32 = 4;
    const ARRAY_STRIDE: u32 = 6;
    let (header, mut rest) = module.split_at(HEADER.min(module.len()));
    let mut instructions = Vec::new();
    // An instruction's first word holds its length and its code.
    while let Some((&first, _)) = rest.split_first() {
        let (instruction, after) = rest.split_at(((first >> 16) as usize).clamp(1, rest.len()));
        instructions.push((first & 0xffff, instruction));
        rest = after;
    }
    let in_workgroup = |id| {
        let mut all = instructions.iter();
        all.any(|(code, words)| *code == OP_TYPE_POINTER && words[2..] == [WORKGROUP, id])
    };
    let is_stride = |(code, words): &(u32, &[u32])| {
        *code == OP_DECORATE && words.get(2) == Some(&ARRAY_STRIDE) && in_workgroup(words[1])
    };
    let kept = instructions.iter().filter(|instruction| !is_stride(instruction));
    header.iter().chain(kept.flat_map(|(_, words)| *words)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::{is_known, without_workgroup_strides};

    #[test]
    fn only_the_known_fault_is_known() {
        let known = "error: line 45: [VUID-StandaloneSpirv-None-10684] Invalid explicit layout decorations on \
                     type for operand '26[%_ptr_Workgroup__arr_v4float_uint_64]', the Workgroup storage class \
                     has a explicit layout from the ArrayStride decoration.\n  %tile = OpVariable ...";
        assert!(is_known(known));
        for (part, other) in [
            ("10684", "10685"),
            ("the Workgroup storage class", "the Function storage class"),
            ("the ArrayStride decoration", "the Offset decoration"),
            ("error: line 45", "error: line 44: something else\nerror: line 45"),
        ] {
            let message = known.replace(part, other);
            assert!(message != known && !is_known(&message), "{message}");
        }
        assert!(!is_known(""));
    }

    #[test]
    fn strides_of_workgroup_arrays_alone_are_taken_away() {
        let header = [0x0723_0203, 0x1_0300, 0, 10, 0];
        let decorate = |id, decoration, value| [(4 << 16) + 71, id, decoration, value];
        let pointer = |id, storage, to| [(4 << 16) + 32, id, storage, to];
        let (workgroup, storage_buffer, array_stride, binding) = (4, 12, 6, 33);
        let stride = decorate(1, array_stride, 16);
        let others = [
            decorate(1, binding, 16),
            decorate(2, array_stride, 16),
            pointer(3, workgroup, 1),
            pointer(4, storage_buffer, 2),
        ];
        let module = [&header[..], &stride, others.as_flattened()].concat();
        assert_eq!(without_workgroup_strides(&module), [&header[..], others.as_flattened()].concat());
        // What is no module stays what it is.
        for broken in [&module[..3], &[1, 2, 3, 4, 5, 0, 9 << 16]] {
            assert_eq!(without_workgroup_strides(broken), broken);
        }
    }
}
