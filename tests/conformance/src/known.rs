//! Known failures of drivers and compilers, as data. An entry whose case no longer fails is itself a
//! failure, so that the list stays true.

use crate::compare::Distribution;
use crate::device::{Failure, Identity};

/// A failure whose cause lies outside this project.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Part of the implementation's or the adapter's name.
    pub implementation: &'static str,
    /// Part of the case's name.
    pub case: &'static str,
    /// Part of the error's text.
    pub error: &'static str,
    /// What is wrong there, and with which versions.
    pub reason: &'static str,
    /// A link to the report, or to the code at fault.
    pub link: &'static str,
}

/// All known failures.
pub const KNOWN: &[Known] = &[Known {
    implementation: "Gl/",
    case: "robustness/out-of-memory",
    error: "memory does not run out",
    reason: "wgpu-hal 30.0.1 does not ask whether glBufferStorage found memory (gles/device.rs, create_buffer)",
    link: "https://github.com/gfx-rs/wgpu/blob/trunk/wgpu-hal/src/gles/device.rs",
}];

/// The list's verdict on an outcome.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// The list has no entry for it, or it failed for another reason.
    AsUsual,
    /// It failed as the list says.
    Known(String),
    /// It passed although the list says that it fails.
    NoLongerFails(String),
}

/// Looks up an outcome in the list.
pub fn judge(
    known: &[Known],
    identity: &Identity,
    case: &str,
    outcome: &Result<Option<Distribution>, Failure>,
) -> Verdict {
    let implementation =
        format!("{} {}", identity.implementation.as_deref().unwrap_or_default(), identity.label());
    let applies = |known: &&Known| implementation.contains(known.implementation) && case.contains(known.case);
    let Some(known) = known.iter().find(applies) else { return Verdict::AsUsual };
    match outcome {
        Err(Failure::Failed(message)) if message.contains(known.error) => {
            Verdict::Known(format!("{} ({})", known.reason, known.link))
        }
        Err(_) => Verdict::AsUsual,
        Ok(_) => Verdict::NoLongerFails(format!(
            "this is listed as a known failure of {}, but passes: remove the entry from known.rs",
            known.implementation
        )),
    }
}
