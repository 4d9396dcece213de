//! Storage formats of numbers. Arithmetic is always f32.

use std::fmt::{self, Display};

use half::{bf16, f16};

/// The type of a tensor's elements in memory.
///
/// Half precision needs no device feature, only rows whose length is a multiple of four elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Element {
    /// 32 bits.
    #[default]
    F32,
    /// IEEE half precision: 16 bits, up to 65,504. Stores round to either neighbour; the device decides
    /// which. Numbers below 2^-14 may be flushed to zero. Numbers from 65,520 on become an infinity.
    F16,
    /// The upper half of an f32: 16 bits. Stores round to nearest, ties to even, on every device.
    Bf16,
}

impl Element {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Encodes numbers as the bytes of a buffer, rounded to nearest, ties to even. Little-endian on every
    /// host, like WebGPU's buffers.
    #[must_use]
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
        }
    }

    /// Decodes the little-endian bytes of a buffer. Bytes after the last whole element are ignored.
    #[must_use]
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let halves = || bytes.as_chunks().0.iter();
        match self {
            Self::F32 => bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            Self::F16 => halves().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
            Self::Bf16 => halves().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect(),
        }
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// The most bytes of a binding. Kernels count in u32, and their loops step past the end; 4 GiB hold at most
/// 2^31 elements.
pub(crate) const MOST_BYTES: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let values = [0.0, -1.5, 0.375, 65504.0, f32::INFINITY, f32::NEG_INFINITY];
        for element in [Element::F32, Element::F16] {
            let bytes = element.encode(&values);
            assert_eq!(bytes.len() as u64, 6 * element.bytes());
            assert_eq!(element.decode(&bytes), values, "{element}");
        }
        assert_eq!(Element::Bf16.decode(&Element::Bf16.encode(&[1.0, -0.375])), [1.0, -0.375]);
        assert!(Element::Bf16.decode(&Element::Bf16.encode(&[f32::NAN]))[0].is_nan());
    }
}
