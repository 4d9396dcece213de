//! GGUF files: what they say, where their tensors lie, and the numbers of a tensor.
//!
//! Source: ggml's docs/gguf.md, and ggml-common.h for the blocks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::f16;

use crate::error::Error;

/// Far more than any file's: what claims more is damaged.
const MOST_ENTRIES: u64 = 1 << 16;
/// Of all arrays together.
const MOST_ITEMS: u64 = 1 << 24;
const MOST_TEXT: u64 = 1 << 26;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Whole(i128),
    Number(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Value>),
}

/// How a tensor's numbers are stored: in blocks of so many, with so many bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    F32,
    F16,
    Bf16,
    /// Blocks of 32: a scale in f16, and 32 whole numbers of 4 bits, less 8.
    Q4_0,
    /// Blocks of 32: a scale and a least number in f16, and 32 whole numbers of 4 bits.
    Q4_1,
    /// Blocks of 32: a scale in f16, and 32 whole numbers of 8 bits.
    Q8_0,
}

impl Storage {
    fn of(number: u32) -> Option<Self> {
        let known = [
            (0, Self::F32),
            (1, Self::F16),
            (2, Self::Q4_0),
            (3, Self::Q4_1),
            (8, Self::Q8_0),
            (30, Self::Bf16),
        ];
        known.into_iter().find(|(own, _)| *own == number).map(|(_, storage)| storage)
    }

    /// Numbers and bytes of a block.
    fn block(self) -> [u64; 2] {
        match self {
            Self::F32 => [1, 4],
            Self::F16 | Self::Bf16 => [1, 2],
            Self::Q4_0 => [32, 18],
            Self::Q4_1 => [32, 20],
            Self::Q8_0 => [32, 34],
        }
    }

    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let half = |at: &[u8]| f16::from_le_bytes([at[0], at[1]]).to_f32();
        let nibbles = |bytes: &[u8]| -> Vec<f32> {
            let low = bytes.iter().map(|byte| f32::from(byte & 15));
            low.chain(bytes.iter().map(|byte| f32::from(byte >> 4))).collect()
        };
        let blocks = bytes.chunks_exact(self.block()[1] as usize);
        match self {
            Self::F32 => blocks.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Self::F16 => blocks.map(half).collect(),
            Self::Bf16 => {
                blocks.map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)).collect()
            }
            Self::Q4_0 => {
                blocks.flat_map(|b| nibbles(&b[2..]).into_iter().map(move |q| half(b) * (q - 8.0))).collect()
            }
            Self::Q4_1 => blocks
                .flat_map(|b| nibbles(&b[4..]).into_iter().map(move |q| half(b) * q + half(&b[2..])))
                .collect(),
            Self::Q8_0 => blocks
                .flat_map(|b| b[2..].iter().map(move |&q| half(b) * f32::from(q.cast_signed())))
                .collect(),
        }
    }
}

/// A tensor: `rows` x `columns`; a vector has one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    pub rows: u64,
    pub columns: u64,
    pub storage: Storage,
    first: u64,
    bytes: u64,
}

/// An open file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Tensor>,
}

impl Gguf {
    /// Reads everything but the tensors' numbers.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let failed = |error| Error::Io { path: path.to_owned(), error };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut reader = Reader { file: BufReader::new(file), at: 0, length, items: 0 };
        let contents = reader.contents().map_err(damaged)?;
        let (metadata, tensors) = contents;
        Ok(Self { path: path.to_owned(), metadata, tensors })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names and shapes of the tensors.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    pub(crate) fn wrong(&self, key: &str, expected: &'static str) -> Error {
        let found = self.get(key).map_or("missing".to_owned(), |value| match value {
            Value::Array(items) => format!("an array of {}", items.len()),
            other => format!("{other:?}"),
        });
        Error::Metadata { path: self.path.clone(), key: key.to_owned(), expected, found }
    }

    pub fn text(&self, key: &str) -> Result<&str, Error> {
        match self.get(key) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(self.wrong(key, "a text")),
        }
    }

    /// A count of at least 1.
    pub fn count(&self, key: &str) -> Result<u32, Error> {
        match self.get(key) {
            Some(Value::Whole(number @ 1..=0xffff_ffff)) => Ok(*number as u32),
            _ => Err(self.wrong(key, "a whole number from 1 on")),
        }
    }

    /// A count, or `absent` where the file has none.
    pub fn count_or(&self, key: &str, absent: u32) -> Result<u32, Error> {
        if self.metadata.contains_key(key) { self.count(key) } else { Ok(absent) }
    }

    /// A number above 0, whole or not.
    pub fn positive(&self, key: &str) -> Result<f32, Error> {
        let number = match self.get(key) {
            Some(Value::Number(number)) => Some(*number as f32),
            Some(Value::Whole(number)) => Some(*number as f32),
            _ => None,
        };
        let number = number.filter(|number| *number > 0.0 && number.is_finite());
        number.ok_or_else(|| self.wrong(key, "a finite number above 0"))
    }

    /// A yes or no, if the file has it.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// A token, if the file has it.
    pub fn token(&self, key: &str) -> Result<Option<u32>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Whole(number @ 0..=0xffff_ffff)) => Ok(Some(*number as u32)),
            Some(_) => Err(self.wrong(key, "a token's number")),
        }
    }

    /// Whole numbers; none where the file has none.
    pub fn wholes(&self, key: &str) -> Result<Vec<i128>, Error> {
        let whole = |value: &Value| if let Value::Whole(number) = value { Some(*number) } else { None };
        match self.get(key) {
            None => Some(Vec::new()),
            Some(Value::Array(items)) => items.iter().map(whole).collect(),
            Some(_) => None,
        }
        .ok_or_else(|| self.wrong(key, "an array of whole numbers"))
    }

    pub fn texts(&self, key: &str) -> Result<Vec<String>, Error> {
        let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
        match self.get(key) {
            Some(Value::Array(items)) => items.iter().map(text).collect::<Option<Vec<_>>>(),
            _ => None,
        }
        .ok_or_else(|| self.wrong(key, "an array of texts"))
    }

    /// A tensor of this shape.
    pub fn find(&self, name: &str, shape: [u32; 2]) -> Result<&Tensor, Error> {
        let tensor = self.tensors.get(name);
        let found =
            tensor.map_or("missing".to_owned(), |tensor| format!("{} x {}", tensor.rows, tensor.columns));
        let tensor = tensor.filter(|tensor| [tensor.rows, tensor.columns] == shape.map(u64::from));
        tensor.ok_or_else(|| Error::Tensor {
            path: self.path.clone(),
            name: name.to_owned(),
            expected: format!("{} x {}", shape[0], shape[1]),
            found,
        })
    }

    /// The numbers of a tensor of this shape, row by row.
    pub fn read(&self, name: &str, shape: [u32; 2]) -> Result<Vec<f32>, Error> {
        let tensor = self.find(name, shape)?;
        let failed = |error| Error::Io { path: self.path.clone(), error };
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(tensor.first)).map_err(failed)?;
        let mut bytes = vec![0; tensor.bytes as usize];
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok(tensor.storage.decode(&bytes))
    }
}

type Contents = (BTreeMap<String, Value>, BTreeMap<String, Tensor>);

struct Reader {
    file: BufReader<File>,
    at: u64,
    length: u64,
    /// Those of arrays so far.
    items: u64,
}

impl Reader {
    fn contents(&mut self) -> Result<Contents, String> {
        if self.bytes(4)? != b"GGUF" {
            return Err("it does not begin with GGUF".to_owned());
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("version {version} of the format; 2 and 3 can be read"));
        }
        let (tensor_count, entries) = (self.u64()?, self.u64()?);
        if tensor_count > MOST_ENTRIES || entries > MOST_ENTRIES {
            return Err(format!("{tensor_count} tensors and {entries} entries of metadata"));
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind, 0)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("`{key}` is there twice"));
            }
        }
        let mut infos = Vec::new();
        for _ in 0..tensor_count {
            let name = self.text()?;
            let dimensions = self.u32()?;
            if !(1..=2).contains(&dimensions) {
                return Err(format!(
                    "`{name}` has {dimensions} dimensions; vectors and matrices can be read"
                ));
            }
            let columns = self.u64()?;
            let rows = if dimensions == 2 { self.u64()? } else { 1 };
            let number = self.u32()?;
            let storage = Storage::of(number).ok_or_else(|| {
                format!("`{name}` has ggml's type {number}; F32, F16, BF16, Q4_0, Q4_1 and Q8_0 can be read")
            })?;
            infos.push((name, rows, columns, storage, self.u64()?));
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Whole(number @ 1..=0x10000)) if number.count_ones() == 1 => *number as u64,
            Some(other) => return Err(format!("general.alignment is {other:?}")),
        };
        let data = self.at.next_multiple_of(alignment);
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        for (name, rows, columns, storage, offset) in infos {
            let [numbers, block] = storage.block();
            let bytes = rows
                .checked_mul(columns)
                .filter(|count| *count > 0 && columns.is_multiple_of(numbers))
                .and_then(|count| (count / numbers).checked_mul(block));
            let bytes = bytes.ok_or_else(|| format!("`{name}` is {rows} x {columns} in {storage:?}"))?;
            let first = data.checked_add(offset);
            let end = first.and_then(|first| first.checked_add(bytes));
            let (Some(first), Some(_), true) =
                (first, end.filter(|end| *end <= self.length), offset.is_multiple_of(alignment))
            else {
                return Err(format!("`{name}` has {bytes} bytes at {offset}, in a file of {}", self.length));
            };
            let tensor = Tensor { rows, columns, storage, first, bytes };
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(format!("`{name}` is there twice"));
            }
        }
        let mut ordered: Vec<_> = tensors.iter().collect();
        ordered.sort_by_key(|(_, tensor)| tensor.first);
        for ends in ordered.windows(2) {
            let [(name, tensor), (next, other)] = [ends[0], ends[1]];
            if tensor.first + tensor.bytes > other.first {
                return Err(format!("`{name}` and `{next}` have bytes in common"));
            }
        }
        Ok((metadata, tensors))
    }

    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, String> {
        if count > self.length.saturating_sub(self.at) {
            return Err(format!("{count} bytes at {}, in a file of {}", self.at, self.length));
        }
        let mut bytes = vec![0; count as usize];
        self.file.read_exact(&mut bytes).map_err(|error| format!("{count} bytes at {}: {error}", self.at))?;
        self.at += count;
        Ok(bytes)
    }

    fn whole(&mut self, count: u64) -> Result<u64, String> {
        Ok(self.bytes(count)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.whole(4).map(|number| number as u32)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.whole(8)
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.u64()?;
        if length > MOST_TEXT {
            return Err(format!("a text of {length} bytes at {}", self.at));
        }
        Ok(String::from_utf8_lossy(&self.bytes(length)?).into_owned())
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value, String> {
        let signed = |number: u64, bits: u32| {
            Value::Whole(((number << (64 - bits)).cast_signed() >> (64 - bits)).into())
        };
        Ok(match kind {
            0 => Value::Whole(self.whole(1)?.into()),
            1 => signed(self.whole(1)?, 8),
            2 => Value::Whole(self.whole(2)?.into()),
            3 => signed(self.whole(2)?, 16),
            4 => Value::Whole(self.whole(4)?.into()),
            5 => signed(self.whole(4)?, 32),
            6 => Value::Number(f32::from_bits(self.u32()?).into()),
            7 => Value::Bool(self.whole(1)? != 0),
            8 => Value::Text(self.text()?),
            9 if depth < 4 => {
                let kind = self.u32()?;
                let count = self.u64()?;
                self.items = self.items.saturating_add(count);
                if self.items > MOST_ITEMS {
                    return Err(format!("an array of {count} items at {}", self.at));
                }
                Value::Array((0..count).map(|_| self.value(kind, depth + 1)).collect::<Result<_, _>>()?)
            }
            10 => Value::Whole(self.u64()?.into()),
            11 => signed(self.u64()?, 64),
            12 => Value::Number(f64::from_bits(self.u64()?)),
            other => return Err(format!("a value of type {other} at {}", self.at)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Gguf, Storage, Value};

    /// A file of one text of metadata and some tensors, each 2 x 32.
    fn file(tensors: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let mut bytes = [b"GGUF", &3u32.to_le_bytes()[..]].concat();
        bytes.extend((tensors.len() as u64).to_le_bytes());
        bytes.extend(1u64.to_le_bytes());
        bytes.extend([text("name"), 8u32.to_le_bytes().to_vec(), text("value")].concat());
        let mut offset = 0u64;
        for (name, kind, data) in tensors {
            bytes.extend([text(name), 2u32.to_le_bytes().to_vec()].concat());
            bytes.extend([32u64, 2].into_iter().flat_map(u64::to_le_bytes));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset += (data.len() as u64).next_multiple_of(32);
        }
        for (_, _, data) in tensors {
            bytes.resize(bytes.len().next_multiple_of(32), 0);
            bytes.extend(*data);
        }
        bytes
    }

    fn open(name: &str, bytes: &[u8]) -> (PathBuf, Result<Gguf, String>) {
        let path = std::env::temp_dir().join(format!("hydralora-gguf-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("a file");
        let opened = Gguf::open(&path).map_err(|error| error.to_string());
        (path, opened)
    }

    #[test]
    fn blocks_are_numbers() {
        // The scale 0.5 and the least number -1.5 in f16, and nibbles and bytes that differ.
        let (half, least) = ([0x00, 0x38], [0x00, 0xbe]);
        let nibbles: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let wholes: Vec<u8> = (0..32).map(|i: i32| (4 * i - 64) as i8 as u8).collect();
        let nibble = |i: usize| if i < 16 { i as f32 } else { 31.0 - i as f32 };
        let numbers = |of: &dyn Fn(usize) -> f32| (0..32).map(of).collect::<Vec<_>>();
        assert_eq!(
            Storage::Q4_0.decode(&[&half, &nibbles[..]].concat()),
            numbers(&|i| 0.5 * (nibble(i) - 8.0))
        );
        assert_eq!(
            Storage::Q4_1.decode(&[&half, &least, &nibbles[..]].concat()),
            numbers(&|i| 0.5 * nibble(i) - 1.5)
        );
        assert_eq!(
            Storage::Q8_0.decode(&[&half, &wholes[..]].concat()),
            numbers(&|i| 0.5 * (4.0 * i as f32 - 64.0))
        );
        assert_eq!(Storage::F16.decode(&half), [0.5]);
        assert_eq!(Storage::Bf16.decode(&[0x20, 0xc1]), [-10.0]);
        assert_eq!(Storage::F32.decode(&1.25f32.to_le_bytes()), [1.25]);
    }

    #[test]
    fn tensors_are_read_and_wrong_ones_named() {
        let numbers: Vec<u8> = (0..64u16).flat_map(|i| f32::from(i).to_le_bytes()).collect();
        let (path, opened) = open("good", &file(&[("a", 0, &numbers), ("b", 2, &[0; 36])]));
        let opened = opened.expect("a good file");
        assert_eq!(opened.get("name"), Some(&Value::Text("value".to_owned())));
        let expected: Vec<f32> = (0..64u16).map(f32::from).collect();
        assert_eq!(opened.read("a", [2, 32]).expect("a tensor"), expected);
        assert_eq!(opened.read("b", [2, 32]).expect("a tensor"), vec![0.0; 64]);
        for (name, shape, part) in [("a", [32, 2], "2 x 32"), ("c", [2, 32], "missing")] {
            let message = opened.read(name, shape).expect_err("it is not there").to_string();
            assert!(message.contains(part) && message.contains(&format!("`{name}`")), "{message}");
        }
        std::fs::remove_file(path).expect("the file");
        let (path, opened) = open("type", &file(&[("a", 12, &[0; 64])]));
        assert!(opened.expect_err("an unknown type").contains("`a` has ggml's type 12"));
        std::fs::remove_file(path).expect("the file");
    }

    #[test]
    fn damaged_files_are_refused() {
        let numbers = [0; 256];
        let whole = file(&[("a", 0, &numbers)]);
        for length in 0..whole.len() {
            let (_, opened) = open("truncated", &whole[..length]);
            assert!(opened.is_err(), "the first {length} bytes");
        }
        // Counts that nothing has room for.
        for at in [8, 16, 24, 44] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].fill(0xff);
            let (_, opened) = open("huge", &bytes);
            assert!(opened.is_err(), "{at}");
        }
        for bit in 0..8 * 120 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // Refused or read, but neither a panic nor memory for more than there is.
            let (_, opened) = open("flipped", &bytes);
            if let Ok(opened) = opened {
                let _ = opened.read("a", [2, 32]);
            }
        }
        // The second tensor where the first is, and beside the places where tensors may begin.
        for (offset, part) in [(0u64, "`a` and `b` have bytes in common"), (260, "`b` has 256 bytes at 260")]
        {
            let mut bytes = file(&[("a", 0, &numbers), ("b", 0, &numbers)]);
            let own = 256u64.to_le_bytes();
            let at = bytes.windows(8).rposition(|word| word == own).expect("the offset");
            bytes[at..at + 8].copy_from_slice(&offset.to_le_bytes());
            let (_, opened) = open("places", &bytes);
            let error = opened.expect_err(part);
            assert!(error.contains(part), "{error}");
        }
        for name in ["truncated", "huge", "flipped", "places"] {
            let (path, _) = open(name, &[]);
            std::fs::remove_file(path).expect("the file");
        }
    }
}
