//! The uniform that changes from batch to batch.

use bytemuck::{Pod, Zeroable};

use super::kernels::{Kernels, Varied};
use crate::error::Error;

/// What changes from batch to batch, the number of tokens and what dropout drops: one small object that all operations
/// of a model share.
///
/// Two batches in one submission need two such objects.
#[derive(Debug)]
pub struct Batch {
    varied: Varied,
    contents: Contents,
}

/// `struct Batch` in `shaders/uniform/batch.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
struct Contents {
    tokens: u32,
    seed_low: u32,
    seed_high: u32,
    step: u32,
}

impl Batch {
    /// A batch of `tokens` tokens, with seed and step 0.
    ///
    /// # Errors
    /// No tokens, too little memory or a lost device.
    pub fn new(kernels: &Kernels, tokens: u32) -> Result<Self, Error> {
        Error::check_dimension("tokens", tokens)?;
        let contents = Contents { tokens, ..Contents::default() };
        Ok(Self { varied: kernels.varied("hydralora batch", bytemuck::bytes_of(&contents))?, contents })
    }

    /// Sets the number of tokens of everything that is encoded and submitted afterwards.
    ///
    /// This is a `Queue::write_buffer`: it takes effect before the next submission. Submit everything that
    /// was encoded with another number first.
    ///
    /// # Errors
    /// No tokens.
    pub fn set(&mut self, queue: &wgpu::Queue, tokens: u32) -> Result<(), Error> {
        Error::check_dimension("tokens", tokens)?;
        self.contents.tokens = tokens;
        self.varied.write(queue, bytemuck::bytes_of(&self.contents));
        Ok(())
    }

    /// Sets what [dropout](crate::Dropout) drops in everything that is encoded and submitted afterwards: forward and
    /// backward of a batch take the same seed and step, and every other batch another step, also where the gradients of several
    /// are added up. Like [`Batch::set`].
    pub fn set_random(&mut self, queue: &wgpu::Queue, seed: u64, step: u32) {
        let (seed_low, seed_high) = (seed as u32, (seed >> 32) as u32);
        self.contents = Contents { seed_low, seed_high, step, ..self.contents };
        self.varied.write(queue, bytemuck::bytes_of(&self.contents));
    }

    /// The number of tokens.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.contents.tokens
    }

    /// The uniform buffer, for an application's own shaders: it is the number of tokens, the
    /// seed's low and high half, and the step, each a u32.
    #[must_use]
    pub fn buffer(&self) -> &wgpu::Buffer {
        self.varied.buffer()
    }

    pub(super) fn bind_group(&self) -> &wgpu::BindGroup {
        self.varied.bind_group()
    }
}
