//! `adamw`: one step of the optimiser, over one or several buffers.

use hydralora::device::Gpu;
use hydralora::twin::{self, Approx, Moments};
use hydralora::{
    AdamW, AdamWBuffers, AdamWDescriptor, AdamWHyper, Error, Kernels, Layout, ParameterGroup, Planner,
};

use super::{Lookup, Op, Planned, Prepared, Preparing, read};
use crate::job::Values;

pub struct AdamWStep {
    /// Elements of each buffer.
    pub elements: Vec<usize>,
    pub hyper: AdamWHyper,
    pub step: u32,
    pub learning_rate: f32,
    pub gradient_scale: f32,
    /// The adapter at the start of each buffer, if groups differ.
    pub layout: Option<Layout>,
}

/// The name of a tensor of the buffer with this number. The first buffer has the operation's own names.
pub fn of_buffer(name: &str, buffer: usize) -> String {
    if buffer == 0 { name.to_owned() } else { format!("{name} {buffer}") }
}

impl AdamWStep {
    /// The name of the tensor with this step's gradients.
    pub fn gradients(&self, buffer: usize) -> String {
        of_buffer(&format!("gradients of step {}", self.step), buffer)
    }

    /// The name of the tensor with this step's status, which it writes if it clips.
    pub fn status(&self) -> String {
        format!("status of step {}", self.step)
    }
}

impl Op for AdamWStep {
    fn prepare<'a>(&'a self, gpu: &'a Gpu, kernels: &'a Kernels, tensor: &'a Lookup<'a>) -> Preparing<'a> {
        Box::pin(async move {
            let buffers: Vec<_> = self
                .elements
                .iter()
                .enumerate()
                .map(|(at, &elements)| AdamWBuffers {
                    elements,
                    parameters: tensor(&of_buffer("parameters", at)),
                    gradients: tensor(&self.gradients(at)),
                    moments: tensor(&of_buffer("moments", at)),
                })
                .collect();
            let status = self.hyper.max_norm.map(|_| tensor(&self.status()));
            let adapters =
                self.layout.iter().flat_map(|&layout| (0..buffers.len()).map(move |at| (at, 0, layout)));
            let (buffers, hyper, adapters) = (&buffers[..], self.hyper, &adapters.collect::<Vec<_>>()[..]);
            let descriptor = AdamWDescriptor { buffers, status, hyper, adapters };
            let adamw = if cfg!(target_arch = "wasm32") {
                AdamW::prepare_async(kernels, &descriptor).await?
            } else {
                AdamW::prepare(kernels, &descriptor)?
            };
            adamw.set_scaled_step(&gpu.queue, self.step, self.learning_rate, self.gradient_scale)?;
            let encode: Prepared = Box::new(move |pass| {
                adamw.encode(pass);
                Ok(())
            });
            Ok(encode)
        })
    }

    fn plan(&self, planner: &Planner) -> Result<Vec<Planned>, Error> {
        let elements: Vec<u64> = self.elements.iter().map(|&elements| elements as u64).collect();
        let recordings = planner.adamw(&elements, &self.hyper)?;
        let varying = self.hyper.uniform(self.step, self.learning_rate, self.gradient_scale)?.to_vec();
        let mut buffers = [("gradient_norm", 0), ("adamw", 0)];
        let planned = recordings.into_iter().map(|recording| {
            let counted = buffers.iter_mut().find(|(operation, _)| *operation == recording.operation);
            let at = counted.map_or(0, |(_, count)| std::mem::replace(count, *count + 1));
            let name = |name| match name {
                "gradients" => self.gradients(at),
                "status" => self.status(),
                "squares" => format!("scratch squares of step {}", self.step),
                name => of_buffer(name, at),
            };
            let names = recording.tensors.iter().map(|operand| name(operand.name)).collect();
            Planned { recording, names, tokens: 1, varying: varying.clone() }
        });
        Ok(planned.collect())
    }

    fn twin(&self, values: &mut Values) {
        let all = |values: &Values, name: &dyn Fn(usize) -> String| -> Vec<Approx> {
            (0..self.elements.len()).flat_map(|at| read(values, &name(at)).to_vec()).collect()
        };
        let gradients = all(values, &|at| self.gradients(at));
        let mut parameters = all(values, &|at| of_buffer("parameters", at));
        let mut moments = Moments { first: Vec::new(), second: Vec::new() };
        for (at, &elements) in self.elements.iter().enumerate() {
            let (first, second) = read(values, &of_buffer("moments", at)).split_at(elements);
            moments.first.extend(first);
            moments.second.extend(second);
        }
        let step = twin::AdamWStep {
            number: self.step,
            learning_rate: self.learning_rate,
            gradient_scale: self.gradient_scale,
        };
        let group = |element| self.layout.map_or(ParameterGroup::A, |layout| layout.group(element));
        let groups: Vec<_> = self.elements.iter().flat_map(|&elements| (0..elements).map(group)).collect();
        let norm = twin::adamw(&self.hyper, &step, &groups, &mut parameters, &gradients, &mut moments);
        if let Some(norm) = norm {
            let status = values.get_mut(&self.status()).expect("a step that clips has a status");
            let skipped = (status[1].value as f32).to_bits() + u32::from(!norm.value.is_finite());
            *status = vec![norm, Approx::exact(f64::from(f32::from_bits(skipped)))];
        }
        let mut begin = 0;
        for (at, &elements) in self.elements.iter().enumerate() {
            let range = begin..begin + elements;
            values.insert(of_buffer("parameters", at), parameters[range.clone()].to_vec());
            let own = [&moments.first[range.clone()], &moments.second[range]].concat();
            values.insert(of_buffer("moments", at), own);
            begin += elements;
        }
    }
}
