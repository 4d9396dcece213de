//! A job: operations over named tensors, the memory they lie in, and the checks of that memory after
//! the job has run.

use std::collections::HashMap;

use hydralora::WriteMode;
use hydralora::twin::{self, Approx};

use crate::op::Op;

/// A tensor: its numbers before the job runs, and whether the job changes it.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub name: String,
    /// Elements in a row.
    pub width: usize,
    pub data: Vec<f32>,
    pub written: bool,
}

impl Tensor {
    /// A tensor that is only read.
    pub fn input(name: impl Into<String>, width: u32, data: Vec<f32>) -> Self {
        Self { name: name.into(), width: width as usize, data, written: false }
    }

    /// A tensor that is read and changed.
    pub fn update(name: &str, width: u32, data: Vec<f32>) -> Self {
        Self { written: true, ..Self::input(name, width, data) }
    }

    /// A tensor that is overwritten: NaN everywhere, so that an element nobody writes is seen.
    pub fn poisoned(name: &str, width: u32, len: usize) -> Self {
        Self::update(name, width, vec![f32::NAN; len])
    }

    /// A result: poisoned where it is overwritten, `before` where it is added to.
    pub fn output(name: &str, width: u32, before: Vec<f32>, write: WriteMode) -> Self {
        match write {
            WriteMode::Overwrite => Self::poisoned(name, width, before.len()),
            WriteMode::Accumulate => Self::update(name, width, before),
        }
    }
}

/// The twin's values, by tensor.
pub type Values = HashMap<String, Vec<Approx>>;

/// Operations, in order, and the tensors they work on.
pub struct Job {
    pub tensors: Vec<Tensor>,
    pub ops: Vec<Box<dyn Op>>,
}

impl Job {
    pub fn new(tensors: Vec<Tensor>, ops: Vec<Box<dyn Op>>) -> Self {
        Self { tensors, ops }
    }

    pub fn tensor(&self, name: &str) -> &Tensor {
        let tensor = self.tensors.iter().find(|tensor| tensor.name == name);
        tensor.unwrap_or_else(|| panic!("the job has no tensor {name}"))
    }

    /// What the twins make of the tensors.
    pub fn expected(&self) -> Values {
        let mut values: Values =
            self.tensors.iter().map(|tensor| (tensor.name.clone(), twin::exact(&tensor.data))).collect();
        for op in &self.ops {
            op.twin(&mut values);
        }
        values
    }
}

/// Where tensors lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Each in a buffer of its own.
    Separate,
    /// All that are only read in one buffer, at scattered offsets; written ones far inside their own.
    OneAllocation,
}

/// Elements in a guard band, and the unit of offsets: 256 bytes, which every device accepts.
const GUARD: usize = 64;

/// What guard bands hold: a finite number that no kernel computes.
const GUARD_VALUE: f32 = f32::from_bits(0xabad_cafe);

/// A tensor's place.
#[derive(Debug, Clone)]
pub struct Place {
    pub buffer: usize,
    /// In elements.
    pub offset: usize,
    pub len: usize,
}

/// The buffers of a job, with guard bands around every tensor.
#[derive(Debug, Clone)]
pub struct Memory {
    pub buffers: Vec<Vec<f32>>,
    /// Whether anything in the buffer is written.
    pub written: Vec<bool>,
    places: HashMap<String, Place>,
}

impl Memory {
    pub fn new(job: &Job, placement: Placement) -> Self {
        let mut memory = Self { buffers: Vec::new(), written: Vec::new(), places: HashMap::new() };
        if placement == Placement::OneAllocation {
            memory.add_buffer(false);
        }
        for (index, tensor) in job.tensors.iter().enumerate() {
            let (buffer, before) = match placement {
                Placement::Separate => (memory.add_buffer(tensor.written), GUARD),
                Placement::OneAllocation if tensor.written => (memory.add_buffer(true), 7 * GUARD),
                Placement::OneAllocation => (0, (index + 1) * GUARD),
            };
            memory.append(buffer, before, tensor);
        }
        memory
    }

    /// A tensor that the job itself does not see.
    pub fn add_scratch(&mut self, name: &str, len: usize) {
        let buffer = self.add_buffer(true);
        self.append(buffer, GUARD, &Tensor::poisoned(name, 1, len));
    }

    fn add_buffer(&mut self, written: bool) -> usize {
        self.buffers.push(Vec::new());
        self.written.push(written);
        self.buffers.len() - 1
    }

    fn append(&mut self, buffer: usize, before: usize, tensor: &Tensor) {
        let contents = &mut self.buffers[buffer];
        contents.resize(contents.len() + before, GUARD_VALUE);
        let place = Place { buffer, offset: contents.len(), len: tensor.data.len() };
        contents.extend(&tensor.data);
        contents.resize((contents.len() + GUARD).next_multiple_of(GUARD), GUARD_VALUE);
        self.places.insert(tensor.name.clone(), place);
    }

    pub fn place(&self, name: &str) -> &Place {
        self.places.get(name).unwrap_or_else(|| panic!("the job has no tensor {name}"))
    }

    /// The tensors that were written, out of the buffers' contents after the job.
    ///
    /// # Errors
    /// Something else than a written tensor changed.
    pub fn results(&self, job: &Job, after: &[Vec<f32>]) -> Result<Results, String> {
        assert_eq!(after.len(), self.buffers.len());
        let mut restored = after.to_vec();
        let mut results = Results::new();
        let scratch =
            self.places.keys().filter(|name| job.tensors.iter().all(|tensor| tensor.name != **name));
        let written = job.tensors.iter().filter(|tensor| tensor.written).map(|tensor| &tensor.name);
        for name in written.chain(scratch) {
            let Place { buffer, offset, len } = *self.place(name);
            let range = offset..offset + len;
            restored[buffer][range.clone()].copy_from_slice(&self.buffers[buffer][range.clone()]);
            results.insert(name.clone(), after[buffer][range].to_vec());
        }
        for (buffer, (before, restored)) in self.buffers.iter().zip(&restored).enumerate() {
            let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
            if let Some(at) = before.iter().zip(restored).position(differs) {
                return Err(format!(
                    "{} was changed: element {at} of its buffer went from {} to {}",
                    self.what_is_at(buffer, at),
                    before[at],
                    restored[at]
                ));
            }
        }
        Ok(results)
    }

    fn what_is_at(&self, buffer: usize, at: usize) -> String {
        let inside =
            |place: &Place| place.buffer == buffer && (place.offset..place.offset + place.len).contains(&at);
        if let Some((name, _)) = self.places.iter().find(|(_, place)| inside(place)) {
            return format!("the input {name}");
        }
        let nearest =
            self.places.iter().filter(|(_, place)| place.buffer == buffer).min_by_key(|(_, place)| {
                at.abs_diff(place.offset).min(at.abs_diff(place.offset + place.len))
            });
        format!("the guard band beside {}", nearest.map_or("nothing", |(name, _)| name))
    }
}

/// Contents of the written tensors after a job.
pub type Results = HashMap<String, Vec<f32>>;
