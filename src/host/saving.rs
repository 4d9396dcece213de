//! Saving what a stack holds. Like [`device`](super::device), for stand-alone programs: it waits for the device, and
//! writes files. On the web only [`Stack::read_async`] is of use.

use std::path::Path;

use crate::checkpoint::{self, CheckpointError, ModuleState};
use crate::error::Error;
use crate::host::device::Gpu;
use crate::layer::Adapter;
use crate::stack::Stack;

impl Stack {
    /// Reads the matrices of a module back from `gpu`, the stack's own device.
    ///
    /// # Errors
    /// A module that the stack does not have, too little memory, or a lost device.
    pub fn read(&self, gpu: &Gpu, module: &str) -> Result<Adapter, Error> {
        gpu.block_on(self.read_async(gpu, module))?
    }

    /// Like [`Stack::read`]. On native platforms, the caller has to poll the device meanwhile.
    ///
    /// # Errors
    /// Those of [`Stack::read`].
    pub async fn read_async(&self, gpu: &Gpu, module: &str) -> Result<Adapter, Error> {
        let place = self.place(module)?;
        let parameters = gpu.read_part(&self.parameters()[place.buffer()], place.elements()).await?;
        place.layout().unpack(&parameters)
    }

    /// Saves all modules into a folder, one after the other: [`checkpoint::save`].
    ///
    /// # Errors
    /// Those of [`checkpoint::save`] and of [`Stack::read`].
    pub fn save(&self, gpu: &Gpu, folder: &Path) -> Result<(), CheckpointError> {
        checkpoint::save(folder, &self.configs(), |module| Ok(self.read(gpu, module)?))
    }

    /// Saves the state of training after so many steps, one module after the other: [`checkpoint::save_training`].
    /// [`Stack::resume`] goes on from it.
    ///
    /// # Errors
    /// Those of [`checkpoint::save_training`] and of [`Stack::read`]; a stack without an optimiser.
    pub fn save_training(&self, gpu: &Gpu, folder: &Path, step: u32) -> Result<(), CheckpointError> {
        checkpoint::save_training(folder, &self.configs(), step, |module| {
            let place = self.place(module)?;
            let moments = self.moments_of(place)?;
            // All first moments of the buffer, then all second ones.
            let elements = self.pack().buffers()[place.buffer()];
            let part = |first: usize| -> Result<Adapter, Error> {
                let range = place.elements();
                let range = first + range.start..first + range.end;
                place.layout().unpack(&gpu.read_part_blocking(moments, range)?)
            };
            let (parameters, [first_moments, second_moments]) =
                (self.read(gpu, module)?, [part(0)?, part(elements)?]);
            Ok(ModuleState { parameters, first_moments, second_moments })
        })
    }
}
