//! The backward pass through frozen weights, to the adapters' gradients.

use hydralora::{LinearDirection, WriteMode, wgpu};

use crate::adapters::Projection;
use crate::error::Error;
use crate::model::{Activations, Binder, Keep, Step};

const FIRST: WriteMode = WriteMode::Overwrite;
const ADDING: WriteMode = WriteMode::Accumulate;

/// The gradients of a block's activations. All blocks share them.
struct Gradients {
    /// Of the sum that goes from block to block.
    d: wgpu::Buffer,
    /// Of what a norm gave.
    h: wgpu::Buffer,
    gate: wgpu::Buffer,
    up: wgpu::Buffer,
    act: wgpu::Buffer,
    attended: wgpu::Buffer,
    rotated: wgpu::Buffer,
    query: wgpu::Buffer,
    keys: wgpu::Buffer,
    key: wgpu::Buffer,
    value: wgpu::Buffer,
    deltas: wgpu::Buffer,
}

/// Binds everything after the loss, which has left the logits' gradients in `logits`. `sum` is what the last norm took.
pub fn bind(
    binder: &Binder<'_>,
    steps: &mut Vec<Step>,
    blocks: &[Activations],
    [logits, sum]: [&wgpu::Buffer; 2],
) -> Result<(), Error> {
    let config = &binder.weights.config;
    let (width, hidden) = (config.width, config.hidden);
    let (queries, keys) = (config.query_width(), config.key_width());
    let words = |label, columns| binder.words(label, columns);
    let gradients = Gradients {
        d: words("d", width)?,
        h: words("dh", width)?,
        gate: words("d gate", hidden)?,
        up: words("d up", hidden)?,
        act: words("d act", hidden)?,
        attended: words("d attended", queries)?,
        rotated: words("d rotated", queries)?,
        query: words("d query", queries)?,
        keys: words("d keys", keys)?,
        key: words("d key", keys)?,
        value: words("d value", keys)?,
        deltas: words("deltas", config.heads)?,
    };
    let Gradients { d, h, .. } = &gradients;
    let (direction, tokens) = (LinearDirection::Backward, binder.how.capacity);
    binder.linear(steps, direction, [logits, h], binder.weights.head(), FIRST, tokens)?;
    steps.push(binder.own(&binder.shaders.last_norm_backward, &[&binder.weights.norm, sum, h, d]));
    for (index, own) in (0..config.blocks).zip(blocks).rev() {
        // Those of the last block are still there.
        if binder.how.training == Some(Keep::Inputs) && index + 1 < config.blocks {
            binder.recompute(steps, index, own)?;
        }
        block(binder, steps, index, own, &gradients)?;
    }
    Ok(())
}

fn block(
    binder: &Binder<'_>,
    steps: &mut Vec<Step>,
    index: u32,
    own: &Activations,
    gradients: &Gradients,
) -> Result<(), Error> {
    let Gradients { d, h, gate, up, act, attended, rotated, query, keys, key, value, deltas, .. } = gradients;
    let block = &binder.weights.blocks[index as usize];
    let shaders = binder.shaders;
    let at = |projection| (index, projection);
    binder.projection_backward(steps, at(Projection::Down), &block.down, [&own.act, d, act], FIRST)?;
    steps.push(binder.own(&shaders.silu_backward, &[&own.gate, &own.up, act, gate, up]));
    binder.projection_backward(steps, at(Projection::Gate), &block.gate, [&own.h_hidden, gate, h], FIRST)?;
    binder.projection_backward(steps, at(Projection::Up), &block.up, [&own.h_hidden, up, h], ADDING)?;
    steps.push(binder.own(&shaders.norm_backward, &[&block.hidden_norm, &own.x_hidden, h, d]));
    binder.projection_backward(
        steps,
        at(Projection::Output),
        &block.output,
        [&own.attended, d, attended],
        FIRST,
    )?;
    let of_query =
        [&own.rotated, &own.keys, &own.values, &own.attended, attended, &own.log_sums, rotated, deltas];
    let of_key = [&own.rotated, &own.keys, &own.values, attended, &own.log_sums, deltas, keys, value];
    steps.extend([
        binder.own(&shaders.attention_query, &of_query),
        binder.own(&shaders.attention_key, &of_key),
        binder.own(&shaders.unrope_query, &[rotated, query, &binder.turns]),
        binder.own(&shaders.unrope_key, &[keys, key, &binder.turns]),
    ]);
    binder.projection_backward(steps, at(Projection::Query), &block.query, [&own.h, query, h], FIRST)?;
    binder.projection_backward(steps, at(Projection::Key), &block.key, [&own.h, key, h], ADDING)?;
    binder.projection_backward(steps, at(Projection::Value), &block.value, [&own.h, value, h], ADDING)?;
    steps.push(binder.own(&shaders.norm_backward, &[&block.attention_norm, &own.x, h, d]));
    Ok(())
}
