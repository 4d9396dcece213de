//! Letting a model write.

use hydralora::device::Gpu;

use crate::error::Error;
use crate::model::Model;

/// The tokens with the largest logits after a prompt, one after the other: `count` of them, or fewer where one of `ends` comes,
/// which is left out. Each is given to `take` as it comes.
pub async fn generate(
    gpu: &Gpu,
    model: &mut Model,
    prompt: &[u32],
    count: usize,
    ends: &[u32],
    mut take: impl FnMut(u32),
) -> Result<(), Error> {
    model.how.check_sequence((prompt.len() as u64).saturating_add(count as u64))?;
    let mut logits = if count > 0 { model.logits(gpu, prompt, 0).await? } else { return Ok(()) };
    for at in 1..=count {
        let next = largest(&logits);
        if ends.contains(&next) {
            break;
        }
        take(next);
        if at < count {
            logits = model.logits(gpu, &[next], (prompt.len() + at - 1) as u32).await?;
        }
    }
    Ok(())
}

/// The index of the largest number.
fn largest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(index, _)| index as u32)
}
