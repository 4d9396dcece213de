//! Upper bounds on the loop iterations of a shader, read off its generated text.
//!
//! Mesa's llvmpipe ends all loops of a thread once it has counted 65,535 iterations, and says nothing. It
//! counts the way it runs loops: every loop tests its condition at the end of its body, so the body runs
//! once more, with no lane active, when the condition fails; loops inside that idle pass, or inside a branch
//! that no lane takes, each count once. This module interprets the shader over intervals, with that rule.
//!
//! Integers are bounded by intervals and by linear forms over loop counters, so that the difference between
//! a loop's bound and its first value stays exact where both move with an outer loop. What is not known is
//! bounded by nothing, and a loop that runs up to it counts as endless, as does one of another form than
//! `for (; counter < bound; counter += step)`. One thing is taken on trust: unsigned arithmetic does not wrap.

mod interpreter;
mod number;
#[cfg(test)]
mod tests;

use interpreter::Interpreter;

/// The most iterations that one thread of a dispatch runs, over all loops of the shader together.
///
/// `uniforms` are the bytes behind binding 0 of groups 0 and 1, `grid` the dispatch's workgroups.
pub(crate) fn most_iterations(wgsl: &str, uniforms: [&[u8]; 2], grid: [u32; 3]) -> u64 {
    let Ok(module) = naga::front::wgsl::parse_str(wgsl) else { return u64::MAX };
    let Some(entry) = module.entry_points.first() else { return u64::MAX };
    let mut interpreter = Interpreter::new(&module, uniforms, grid);
    let arguments = entry.function.arguments.iter();
    let arguments = arguments.map(|argument| interpreter.argument(argument.ty, argument.binding.as_ref()));
    let arguments = arguments.collect();
    interpreter.call(&entry.function, arguments).1.active
}
