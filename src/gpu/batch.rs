//! The uniform that changes from batch to batch.

use super::kernels::{Kernels, Varied};
use crate::error::Error;

/// The number of tokens of a batch: one small object that all operations of a model share.
///
/// Two batches in one submission need two such objects.
#[derive(Debug)]
pub struct Batch {
    varied: Varied,
    tokens: u32,
}

impl Batch {
    /// A batch of `tokens` tokens.
    ///
    /// # Errors
    /// No tokens, too little memory or a lost device.
    pub fn new(kernels: &Kernels, tokens: u32) -> Result<Self, Error> {
        Error::check_dimension("tokens", tokens)?;
        Ok(Self { varied: kernels.varied("hydralora batch", &Self::contents(tokens))?, tokens })
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
        self.varied.write(queue, &Self::contents(tokens));
        self.tokens = tokens;
        Ok(())
    }

    /// The number of tokens.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// The uniform buffer, for an application's own shaders: it starts with the number of tokens, as a u32.
    #[must_use]
    pub fn buffer(&self) -> &wgpu::Buffer {
        self.varied.buffer()
    }

    /// `struct Batch` in `shaders/uniform/batch.wgsl`, padded to 16 bytes.
    fn contents(tokens: u32) -> [u8; 16] {
        bytemuck::cast([tokens, 0, 0, 0])
    }

    pub(super) fn bind_group(&self) -> &wgpu::BindGroup {
        self.varied.bind_group()
    }
}
