//! The tensors of a checkpoint's files: where each lies, and its numbers. Only one tensor is in memory at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::archive::{self, Entry};
use super::error::CheckpointError;
use super::pickle::{self, Refused, View};
use crate::element::Element;

/// The longest header of a safetensors file that is read; its writers allow no longer one.
const MOST_HEADER: u64 = 100_000_000;
/// The longest pickle: far more than the tensors of any model need.
const MOST_PICKLE: u64 = 64 << 20;

/// A file: one of the system's, or its bytes, where there are no files, as in browsers.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Path(PathBuf),
    Bytes { name: PathBuf, bytes: Arc<[u8]> },
}

/// What of files is used.
trait Bytes: Read + Seek {}
impl<T: Read + Seek> Bytes for T {}

impl Source {
    fn path(&self) -> &Path {
        match self {
            Self::Path(path) | Self::Bytes { name: path, .. } => path,
        }
    }

    fn open(&self) -> Result<Box<dyn Bytes>, CheckpointError> {
        match self {
            Self::Path(path) => Ok(Box::new(File::open(path).map_err(|error| failed(path, error))?)),
            Self::Bytes { bytes, .. } => Ok(Box::new(Cursor::new(Arc::clone(bytes)))),
        }
    }

    /// What is wrong with it.
    pub(super) fn damaged(&self, reason: String) -> CheckpointError {
        CheckpointError::Damaged { path: self.path().to_owned(), reason }
    }
}

/// A tensor in a file.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) key: String,
    pub(super) element: Element,
    pub(super) shape: Vec<u64>,
    /// Elements from one row, column and so on to the next.
    strides: Vec<u64>,
    file: Source,
    /// Its first byte in the file.
    first: u64,
}

/// The tensors of a file, by its format.
pub(super) fn of_file(path: &Path) -> Result<Vec<Stored>, CheckpointError> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") => of_safetensors(&Source::Path(path.to_owned())).map(|(tensors, _)| tensors),
        _ => of_torch(&Source::Path(path.to_owned())),
    }
}

/// The tensors of a safetensors file, and what else it says.
pub(super) fn of_safetensors(
    source: &Source,
) -> Result<(Vec<Stored>, HashMap<String, String>), CheckpointError> {
    let damaged = |reason: String| source.damaged(reason);
    let mut file = source.open()?;
    let length = file.seek(SeekFrom::End(0)).map_err(|error| failed(source.path(), error))?;
    let header = archive::read(&mut file, 0, 8).map_err(damaged)?;
    let header = u64::from_le_bytes(header[..].try_into().unwrap_or_default());
    if header > MOST_HEADER || header + 8 > length {
        return Err(damaged(format!("a header of {header} bytes, in a file of {length}")));
    }
    let text = archive::read(&mut file, 8, header).map_err(damaged)?;
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let data = 8 + header;
    let mut infos: Vec<_> = metadata.tensors().into_iter().collect();
    // The order in the file, so that reading goes forward.
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let mut tensors = Vec::new();
    let mut end = 0u64;
    for (key, info) in infos {
        let element = match info.dtype {
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::Bf16,
            other => return Err(damaged(format!("`{key}` is {other:?}; f32, f16 and bf16 can be read"))),
        };
        let shape: Vec<u64> = info.shape.iter().map(|&length| length as u64).collect();
        let bytes = shape.iter().try_fold(element.bytes(), |bytes, &length| bytes.checked_mul(length));
        let [start, stop] = [info.data_offsets.0, info.data_offsets.1].map(|offset| offset as u64);
        if start != end || bytes.and_then(|bytes| start.checked_add(bytes)) != Some(stop) {
            return Err(damaged(format!(
                "`{key}` lies at {start} to {stop}, after {end}, with the shape {shape:?}"
            )));
        }
        end = stop;
        let (strides, first) = (dense(&shape), data + start);
        tensors.push(Stored { key, element, shape, strides, file: source.clone(), first });
    }
    if data.checked_add(end) != Some(length) {
        return Err(damaged(format!(
            "its tensors end at {}, and the file at {length}",
            data.saturating_add(end)
        )));
    }
    Ok((tensors, metadata.metadata().clone().unwrap_or_default()))
}

fn of_torch(source: &Source) -> Result<Vec<Stored>, CheckpointError> {
    let damaged = |reason: String| source.damaged(reason);
    let mut file = source.open()?;
    let entries = archive::entries(&mut file).map_err(damaged)?;
    let pickle = entries.iter().find(|entry| entry.name.ends_with("/data.pkl"));
    let pickle = pickle.ok_or_else(|| damaged("an archive without data.pkl".to_owned()))?;
    let folder = &pickle.name[..pickle.name.len() - "data.pkl".len()];
    let content = |entry: &Entry, file: &mut dyn Bytes| {
        let size = entry.bytes.end - entry.bytes.start;
        if size > MOST_PICKLE {
            return Err(damaged(format!("`{}` has {size} bytes", entry.name)));
        }
        archive::read(&mut &mut *file, entry.bytes.start, size).map_err(damaged)
    };
    let by_name: HashMap<&str, &Entry> =
        entries.iter().filter_map(|entry| Some((entry.name.strip_prefix(folder)?, entry))).collect();
    let entry = |name: &str| by_name.get(name).copied();
    if let Some(order) = entry("byteorder")
        && content(order, &mut *file)? != b"little"
    {
        return Err(damaged("its numbers are not in little-endian order".to_owned()));
    }
    let views = pickle::tensors(&content(pickle, &mut *file)?).map_err(|refused| match refused {
        Refused::Damaged(reason) => damaged(format!("data.pkl: {reason}")),
        Refused::Global(global) => CheckpointError::Global { path: source.path().to_owned(), global },
    })?;
    let stored = |(key, view): (String, View)| {
        let View { kind, storage, offset, shape, strides } = view;
        let element = match kind.as_str() {
            "FloatStorage" => Element::F32,
            "HalfStorage" => Element::F16,
            "BFloat16Storage" => Element::Bf16,
            other => return Err(damaged(format!("`{key}` is a {other}"))),
        };
        let entry = entry(&format!("data/{storage}"));
        let entry =
            entry.ok_or_else(|| damaged(format!("`{key}` lies in data/{storage}, which is not there")))?;
        let first =
            offset.checked_mul(element.bytes()).and_then(|bytes| entry.bytes.start.checked_add(bytes));
        let end =
            first.and_then(|first| span(&shape, &strides)?.checked_mul(element.bytes())?.checked_add(first));
        match (first, end) {
            (Some(first), Some(end)) if end <= entry.bytes.end => {
                Ok(Stored { key, element, shape, strides, file: source.clone(), first })
            }
            _ => Err(damaged(format!("`{key}` reaches beyond data/{storage}"))),
        }
    };
    views.into_iter().map(stored).collect()
}

/// Strides of a tensor without gaps.
fn dense(shape: &[u64]) -> Vec<u64> {
    let mut strides: Vec<u64> = shape
        .iter()
        .rev()
        .scan(1u64, |stride, &length| {
            let own = *stride;
            *stride = stride.saturating_mul(length);
            Some(own)
        })
        .collect();
    strides.reverse();
    strides
}

/// Elements from a tensor's first to its last, both included; 0 for an empty one.
fn span(shape: &[u64], strides: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    let mut last = 0u64;
    for (length, stride) in shape.iter().zip(strides) {
        last = last.checked_add((length - 1).checked_mul(*stride)?)?;
    }
    last.checked_add(1)
}

impl Stored {
    /// Its rows and columns, if it is a matrix.
    pub(super) fn matrix(&self) -> Option<[u64; 2]> {
        if let [rows, columns] = self.shape[..] { Some([rows, columns]) } else { None }
    }

    /// Its shape in words.
    pub(super) fn described(&self) -> String {
        let shape: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        format!("{} {}", shape.join(" x "), self.element)
    }

    /// The transpose of some rows of a matrix that has as many columns.
    pub(super) fn transposed_rows(&self, first_row: u64, [rows, columns]: [u64; 2]) -> Self {
        let [row, column] = [self.strides[0], self.strides[1]];
        // Its span was checked when it was found, and no length is zero: no product is larger than the file.
        let first = self.first + first_row * row * self.element.bytes();
        Self { shape: vec![columns, rows], strides: vec![column, row], first, ..self.clone() }
    }

    /// The numbers of a matrix, row by row.
    pub(super) fn read(&self) -> Result<Vec<f32>, CheckpointError> {
        let damaged = |reason: String| self.file.damaged(reason);
        let too_large = || damaged(format!("`{}` is too large", self.key));
        let bytes = span(&self.shape, &self.strides).and_then(|span| span.checked_mul(self.element.bytes()));
        let bytes = bytes.ok_or_else(too_large)?;
        let numbers = {
            let bytes = archive::read(&mut self.file.open()?, self.first, bytes).map_err(damaged)?;
            self.element.decode(&bytes)
        };
        let [rows, columns] = self.matrix().ok_or_else(|| damaged(format!("`{}` is no matrix", self.key)))?;
        if self.strides == dense(&self.shape) {
            return Ok(numbers);
        }
        let count = rows.checked_mul(columns).filter(|&count| count <= numbers.len() as u64);
        count.ok_or_else(too_large)?;
        let at = |row, column| numbers[(row * self.strides[0] + column * self.strides[1]) as usize];
        Ok((0..rows).flat_map(|row| (0..columns).map(move |column| at(row, column))).collect())
    }
}

pub(super) fn failed(path: &Path, error: std::io::Error) -> CheckpointError {
    CheckpointError::Io { path: path.to_owned(), error }
}
