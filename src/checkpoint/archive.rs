//! The zip archives that torch writes: every entry stored, none compressed. So sizes are what they claim to be, or
//! beyond the file.

use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
const ENTRY: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";

/// An archive's comment has at most 65,535 bytes.
const MOST_END: u64 = 22 + 65_535;
/// The largest directory that is read: far more than a tensor each for every layer of any model.
const MOST_DIRECTORY: u64 = 64 << 20;

/// An entry: its name, and its bytes in the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) bytes: Range<u64>,
}

/// The entries of an archive.
///
/// # Errors
/// Says what is wrong, and where.
pub(super) fn entries(file: &mut (impl Read + Seek)) -> Result<Vec<Entry>, String> {
    let length = file.seek(SeekFrom::End(0)).map_err(|error| error.to_string())?;
    let (start, size, count) = directory(file, length)?;
    if size > MOST_DIRECTORY || start.checked_add(size).is_none_or(|end| end > length) {
        return Err(format!("a directory of {size} bytes at {start}, in a file of {length}"));
    }
    let bytes = read(file, start, size)?;
    let mut fields = Fields { bytes: &bytes, at: 0 };
    let (mut entries, mut names) = (Vec::new(), HashSet::new());
    for _ in 0..count {
        let at = start + fields.at as u64;
        let truncated = || format!("the directory ends within an entry at {at}");
        if fields.take(4).ok_or_else(truncated)? != ENTRY {
            return Err(format!("no entry of the directory at {at}"));
        }
        let header = fields.take(42).ok_or_else(truncated)?;
        let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let long = |at: usize| {
            u64::from(u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
        };
        let [flags, method] = [short(4), short(6)];
        let [mut packed, mut unpacked, mut local] = [long(16), long(20), long(38)];
        let [name, extra, comment] = [short(24), short(26), short(28)].map(usize::from);
        let name = String::from_utf8_lossy(fields.take(name).ok_or_else(truncated)?).into_owned();
        let extra = fields.take(extra).ok_or_else(truncated)?;
        fields.take(comment).ok_or_else(truncated)?;
        if method != 0 || flags & 1 != 0 {
            return Err(format!("`{name}` is compressed or encrypted, which torch does not write"));
        }
        if name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..") {
            return Err(format!("`{name}` leads out of the archive"));
        }
        zip64(extra, [&mut unpacked, &mut packed, &mut local])
            .ok_or_else(|| format!("`{name}` has a damaged extra field"))?;
        if packed != unpacked {
            return Err(format!("`{name}` is stored with {packed} bytes, but has {unpacked}"));
        }
        let header = read(file, local, 30)?;
        if header[..4] != LOCAL {
            return Err(format!("`{name}` is not at {local}"));
        }
        let skipped = [26, 28].map(|at| u64::from(u16::from_le_bytes([header[at], header[at + 1]])));
        let first = local.saturating_add(30 + skipped[0] + skipped[1]);
        let last = first.saturating_add(packed);
        if last > length {
            return Err(format!("`{name}` ends at {last}, in a file of {length}"));
        }
        if !names.insert(name.clone()) {
            return Err(format!("`{name}` is there twice"));
        }
        entries.push(Entry { name, bytes: first..last });
    }
    Ok(entries)
}

/// Where the directory starts, its bytes and its entries.
fn directory(file: &mut (impl Read + Seek), length: u64) -> Result<(u64, u64, u64), String> {
    let from = length.saturating_sub(MOST_END);
    let tail = read(file, from, length - from)?;
    let end = tail.windows(22).rposition(|end| end[..4] == END).ok_or("no zip archive")?;
    let number = |bytes: &[u8], at: usize, width: usize| {
        bytes[at..at + width].iter().rev().fold(0u64, |number, &byte| (number << 8) | u64::from(byte))
    };
    let [count, size, start] = [(10, 2), (12, 4), (16, 4)].map(|(at, width)| number(&tail[end..], at, width));
    if count != 0xffff && size != 0xffff_ffff && start != 0xffff_ffff {
        return Ok((start, size, count));
    }
    let Some(locator) = end.checked_sub(20).filter(|&at| tail[at..at + 4] == LOCATOR_64) else {
        return Ok((start, size, count));
    };
    let record = read(file, number(&tail[locator..], 8, 8), 56)?;
    if record[..4] != END_64 {
        return Err("a damaged end of the directory".to_owned());
    }
    let [count, size, start] = [32, 40, 48].map(|at| number(&record, at, 8));
    Ok((start, size, count))
}

/// Replaces those of an entry's numbers that did not fit four bytes by those of a zip64 field.
fn zip64(extra: &[u8], numbers: [&mut u64; 3]) -> Option<()> {
    let mut fields = Fields { bytes: extra, at: 0 };
    while fields.at < extra.len() {
        let header = fields.take(4)?;
        let [id, length] = [0, 2].map(|at| u16::from_le_bytes([header[at], header[at + 1]]));
        let mut field = Fields { bytes: fields.take(length.into())?, at: 0 };
        if id == 1 {
            for number in numbers.into_iter().filter(|number| **number == 0xffff_ffff) {
                *number = u64::from_le_bytes(field.take(8)?.try_into().ok()?);
            }
            break;
        }
    }
    Some(())
}

/// Bytes that are taken one field after the other.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }
}

/// Bytes of a file, which must be there.
pub(super) fn read(file: &mut (impl Read + Seek), at: u64, count: u64) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{count} bytes at {at}: {error}");
    file.seek(SeekFrom::Start(at)).map_err(failed)?;
    let mut bytes = Vec::new();
    // Grows with what is there, whatever was claimed.
    let found = file.take(count).read_to_end(&mut bytes).map_err(failed)?;
    if found as u64 == count { Ok(bytes) } else { Err(format!("only {found} of {count} bytes at {at}")) }
}
