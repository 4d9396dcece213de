//! A job: operations over named tensors, the memory of these tensors, and the checks of that memory after the
//! job has run.

use std::collections::HashMap;

use hydralora::device::Gpu;
use hydralora::twin::{self, Approx};
use hydralora::{Element, Error, WriteMode, wgpu};

use crate::op::Op;

/// A tensor: its numbers before the job runs, and whether the job changes it.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub name: String,
    /// Elements in a row.
    pub width: usize,
    pub data: Vec<f32>,
    pub written: bool,
    pub element: Element,
    /// Elements behind the data that belong to the tensor's range: room for more tokens. Nothing may write
    /// them, and their contents may change no result.
    pub spare: usize,
    /// Elements between one row and the next. The same rules hold for them.
    pub gap: usize,
}

impl Tensor {
    /// A tensor that is only read.
    pub fn input(name: impl Into<String>, width: u32, data: Vec<f32>) -> Self {
        Self {
            name: name.into(),
            width: width as usize,
            data,
            written: false,
            element: Element::F32,
            spare: 0,
            gap: 0,
        }
    }

    /// A tensor that is read and written.
    pub fn update(name: &str, width: u32, data: Vec<f32>) -> Self {
        Self { written: true, ..Self::input(name, width, data) }
    }

    /// A tensor that is overwritten. It starts as NaN, so that an element that no thread writes is noticed.
    pub fn poisoned(name: &str, width: u32, len: usize) -> Self {
        Self::update(name, width, vec![f32::NAN; len])
    }

    /// A result: poisoned if it is overwritten, or `before` if it is added to.
    pub fn output(name: &str, width: u32, before: Vec<f32>, write: WriteMode) -> Self {
        match write {
            WriteMode::Overwrite => Self::poisoned(name, width, before.len()),
            WriteMode::Accumulate => Self::update(name, width, before),
        }
    }

    /// The tensor with elements of another type. Its numbers are rounded to what that type can hold.
    pub fn of(self, element: Element) -> Self {
        Self { data: element.decode(&element.encode(&self.data)), element, ..self }
    }

    /// The word that fills gaps and spare room. In inputs it is NaN, so that a read by mistake shows in every
    /// result.
    fn filler(&self) -> u32 {
        if self.written { GUARD_WORD } else { f32::NAN.to_bits() }
    }

    /// Elements of each contiguous piece: all of them, or a row.
    fn piece(&self) -> usize {
        if self.gap == 0 { self.data.len().max(1) } else { self.width }
    }

    /// The pieces as 32-bit words.
    fn words(&self) -> Vec<Vec<u32>> {
        let words = |piece: &[f32]| {
            let mut bytes = self.element.encode(piece);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect()
        };
        self.data.chunks(self.piece()).map(words).collect()
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

    /// The values of all tensors after the twins of all operations.
    pub fn expected(&self) -> Values {
        let exact = |tensor: &Tensor| (tensor.name.clone(), twin::exact_in(tensor.element, &tensor.data));
        let mut values: Values = self.tensors.iter().map(exact).collect();
        for op in &self.ops {
            op.twin(&mut values);
        }
        values
    }
}

/// The placement of tensors in buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Each tensor in its own buffer.
    Separate,
    /// All inputs in one buffer, at scattered offsets, and each written tensor far inside its own buffer.
    OneAllocation,
    /// Everything in one buffer, as an allocator would place it.
    Pool,
}

/// Words in a guard band, and the unit of offsets: 256 bytes, which every device accepts.
const GUARD: usize = 64;

/// The contents of guard bands: a number that no kernel computes, finite in f32 and as two halves.
const GUARD_WORD: u32 = 0xabad_cafe;

/// The place of a tensor.
#[derive(Debug, Clone)]
pub struct Place {
    pub buffer: usize,
    /// In words.
    pub offset: usize,
    /// The length from the first element to the last, in words.
    pub len: usize,
    /// Words of each piece, and words between two pieces.
    piece: usize,
    gap: usize,
    /// Number of elements, and their type.
    pub elements: usize,
    pub element: Element,
    /// Words behind the last element that belong to the tensor's range.
    spare: usize,
}

impl Place {
    fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len
    }

    /// The word ranges of the pieces.
    fn pieces(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let end = self.offset + self.len;
        let (piece, stride) = (self.piece, self.piece + self.gap);
        (self.offset..end).step_by(stride.max(1)).map(move |start| start..(start + piece).min(end))
    }

    /// The tensor in a device's buffers.
    pub fn tensor<'a>(&self, buffers: &'a [wgpu::Buffer]) -> hydralora::Tensor<'a> {
        let (offset, size) = self.bytes();
        hydralora::Tensor::new(&buffers[self.buffer], offset, size).of(self.element)
    }

    /// The tensor's offset in its buffer and its size, in bytes.
    pub fn bytes(&self) -> (u64, u64) {
        let all = if self.spare + self.gap == 0 {
            self.elements as u64 * self.element.bytes()
        } else {
            4 * (self.len + self.spare) as u64
        };
        (4 * self.offset as u64, all)
    }

    fn decode(&self, words: &[u32]) -> Vec<f32> {
        let words = self.pieces().flat_map(|piece| &words[piece]);
        let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        let mut values = self.element.decode(&bytes);
        values.truncate(self.elements);
        values
    }
}

/// The buffers of a job, with guard bands around every tensor.
#[derive(Debug, Clone)]
pub struct Memory {
    pub buffers: Vec<Vec<u32>>,
    places: HashMap<String, Place>,
    placement: Placement,
}

impl Memory {
    pub fn new(job: &Job, placement: Placement) -> Self {
        let mut memory = Self { buffers: Vec::new(), places: HashMap::new(), placement };
        if placement != Placement::Separate {
            memory.add_buffer();
        }
        for (index, tensor) in job.tensors.iter().enumerate() {
            let (buffer, before) = match placement {
                Placement::Separate => (memory.add_buffer(), GUARD),
                Placement::OneAllocation if tensor.written => (memory.add_buffer(), 7 * GUARD),
                Placement::OneAllocation | Placement::Pool => (0, (index + 1) * GUARD),
            };
            memory.append(buffer, before, tensor);
        }
        memory
    }

    /// Adds a tensor that is not part of the job.
    pub fn add_scratch(&mut self, name: &str, len: usize) {
        let buffer = self.add_buffer();
        self.append(buffer, GUARD, &Tensor::poisoned(name, 1, len));
    }

    fn add_buffer(&mut self) -> usize {
        self.buffers.push(Vec::new());
        self.buffers.len() - 1
    }

    fn append(&mut self, buffer: usize, before: usize, tensor: &Tensor) {
        let contents = &mut self.buffers[buffer];
        contents.resize(contents.len() + before, GUARD_WORD);
        let offset = contents.len();
        let in_words = |elements: usize| (elements as u64 * tensor.element.bytes()).div_ceil(4) as usize;
        let (piece, gap) = (in_words(tensor.piece()), in_words(tensor.gap));
        let spare = in_words(tensor.spare);
        for (index, words) in tensor.words().into_iter().enumerate() {
            if index > 0 {
                contents.resize(contents.len() + gap, tensor.filler());
            }
            contents.extend(words);
        }
        let len = contents.len() - offset;
        contents.resize(contents.len() + spare, tensor.filler());
        let (elements, element) = (tensor.data.len(), tensor.element);
        let place = Place { buffer, offset, len, piece, gap, elements, element, spare };
        contents.resize((contents.len() + GUARD).next_multiple_of(GUARD), GUARD_WORD);
        self.places.insert(tensor.name.clone(), place);
    }

    /// Uploads the buffers to a device.
    pub fn upload(&self, gpu: &Gpu) -> Result<Vec<wgpu::Buffer>, Error> {
        self.buffers
            .iter()
            .map(|contents| gpu.upload("conformance", bytemuck::cast_slice(contents)))
            .collect()
    }

    /// Whether inputs and outputs share one buffer.
    pub fn is_pooled(&self) -> bool {
        self.placement == Placement::Pool
    }

    pub fn place(&self, name: &str) -> &Place {
        self.places.get(name).unwrap_or_else(|| panic!("the job has no tensor {name}"))
    }

    /// Takes the written tensors from the buffers' contents after the job.
    ///
    /// # Errors
    /// Anything besides the written tensors has changed.
    pub fn results(&self, job: &Job, after: &[Vec<u32>]) -> Result<Results, String> {
        assert_eq!(after.len(), self.buffers.len());
        let mut restored = after.to_vec();
        let mut results = Results::new();
        let scratch =
            self.places.keys().filter(|name| job.tensors.iter().all(|tensor| tensor.name != **name));
        let written = job.tensors.iter().filter(|tensor| tensor.written).map(|tensor| &tensor.name);
        for name in written.chain(scratch) {
            let place = self.place(name);
            for range in place.pieces() {
                restored[place.buffer][range.clone()].copy_from_slice(&self.buffers[place.buffer][range]);
            }
            results.insert(name.clone(), place.decode(&after[place.buffer]));
        }
        for (buffer, (before, restored)) in self.buffers.iter().zip(&restored).enumerate() {
            if let Some(at) = before.iter().zip(restored).position(|(before, after)| before != after) {
                return Err(format!(
                    "{} was changed: word {at} of its buffer went from {:#010x} to {:#010x}",
                    self.what_is_at(buffer, at),
                    before[at],
                    restored[at]
                ));
            }
        }
        Ok(results)
    }

    fn what_is_at(&self, buffer: usize, at: usize) -> String {
        let inside = |place: &Place| place.buffer == buffer && place.range().contains(&at);
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

/// The contents of the written tensors after a job.
pub type Results = HashMap<String, Vec<f32>>;
