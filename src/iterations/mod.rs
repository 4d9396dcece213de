//! Upper bounds on the loop iterations of a shader, computed from its generated text.
//!
//! Mesa's llvmpipe silently ends all loops of a thread once it has counted 65,535 iterations. It counts the
//! way it runs loops: every loop tests its condition at the end of its body, so when the condition fails the
//! body runs once more, with no lane active. A loop inside that idle pass, or inside a branch that no lane
//! takes, counts once. This module interprets the shader over intervals, with that rule.
//!
//! Integers are bounded by intervals and by linear forms over loop counters, so that the difference between a
//! loop's bound and its first value stays exact if both move with an outer loop. An unknown number has no
//! bound, and a loop up to it counts as endless. So does a loop of any other form than
//! `for (; counter < bound; counter += step)`. One assumption is not checked: unsigned arithmetic does not
//! wrap.

mod interpreter;
mod number;
#[cfg(test)]
mod tests;

use interpreter::Interpreter;

/// The most iterations of one thread of a dispatch, over all loops of the shader together.
///
/// `uniforms` are the bytes at binding 0 of groups 0 and 1, and `grid` is the workgroups of the dispatch.
pub(crate) fn most_iterations(wgsl: &str, uniforms: [&[u8]; 2], grid: [u32; 3]) -> u64 {
    let Ok(module) = naga::front::wgsl::parse_str(wgsl) else { return u64::MAX };
    let Some(entry) = module.entry_points.first() else { return u64::MAX };
    let mut interpreter = Interpreter::new(&module, uniforms, grid);
    let arguments = entry.function.arguments.iter();
    let arguments = arguments.map(|argument| interpreter.argument(argument.ty, argument.binding.as_ref()));
    let arguments = arguments.collect();
    interpreter.call(&entry.function, arguments).1.active
}
