//! A frozen matrix on the device, in parts that fit a binding each.

use hydralora::device::Gpu;
use hydralora::{Element, wgpu};

use crate::error::Error;

/// A part's rows are a multiple of this, so that its columns of an output begin where a binding may begin.
pub const PART_ROWS: u32 = 64;

pub struct Matrix {
    /// `d_out` and `d_in`.
    pub shape: [u32; 2],
    /// One behind the other, all rows.
    pub parts: Vec<Part>,
}

/// Some rows of a matrix.
pub struct Part {
    pub first: u32,
    pub rows: u32,
    pub buffer: wgpu::Buffer,
}

/// The first row and the number of rows of each part.
pub fn parts(
    name: &str,
    [rows, columns]: [u32; 2],
    element: Element,
    allowed: u64,
) -> Result<Vec<[u32; 2]>, Error> {
    let row = u64::from(columns) * element.bytes();
    if u64::from(rows) * row <= allowed {
        return Ok(vec![[0, rows]]);
    }
    // Less than `rows`.
    let most = (allowed / row) as u32 / PART_ROWS * PART_ROWS;
    if most == 0 {
        let needed = u64::from(PART_ROWS) * row;
        return Err(Error::TooLarge { name: name.to_owned(), rows: PART_ROWS, needed, allowed });
    }
    let each = rows.div_ceil(rows.div_ceil(most)).next_multiple_of(PART_ROWS);
    Ok((0..rows).step_by(each as usize).map(|first| [first, each.min(rows - first)]).collect())
}

impl Matrix {
    /// Fills a matrix with what a buffer has, again and again.
    pub fn repeat(
        gpu: &Gpu,
        name: &str,
        shape: [u32; 2],
        from: &wgpu::Buffer,
        element: Element,
    ) -> Result<Self, Error> {
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let part = |[first, rows]: [u32; 2]| -> Result<Part, Error> {
            let buffer = gpu.zeroed_as(name, rows as usize * shape[1] as usize, element)?;
            for begin in (0..buffer.size()).step_by(from.size() as usize) {
                let bytes = from.size().min(buffer.size() - begin);
                encoder.copy_buffer_to_buffer(from, 0, &buffer, begin, bytes);
            }
            Ok(Part { first, rows, buffer })
        };
        let parts = parts(name, shape, element, binding_bytes(gpu))?;
        let parts = parts.into_iter().map(part).collect::<Result<_, _>>()?;
        gpu.queue.submit([encoder.finish()]);
        Ok(Self { shape, parts })
    }

    /// Uploads numbers, row by row.
    pub fn upload(
        gpu: &Gpu,
        name: &str,
        shape: [u32; 2],
        numbers: &[f32],
        element: Element,
    ) -> Result<Self, Error> {
        let part = |[first, rows]: [u32; 2]| {
            let [begin, end] = [first, first + rows].map(|row| row as usize * shape[1] as usize);
            Ok(Part { first, rows, buffer: gpu.upload_as(name, &numbers[begin..end], element)? })
        };
        let parts = parts(name, shape, element, binding_bytes(gpu))?;
        Ok(Self { shape, parts: parts.into_iter().map(part).collect::<Result<_, Error>>()? })
    }

    /// Whether it is in more than one part.
    pub fn is_split(&self) -> bool {
        self.parts.len() > 1
    }
}

/// The most bytes of a buffer that is bound as a whole.
pub fn binding_bytes(gpu: &Gpu) -> u64 {
    let limits = gpu.device.limits();
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
}

#[cfg(test)]
mod tests {
    use hydralora::Element;

    use super::{PART_ROWS, parts};

    #[test]
    fn parts_fit_and_cover_all_rows() {
        for (rows, columns, element, allowed) in [
            (320, 128, Element::F32, 1 << 16),
            (49_152, 576, Element::F32, 1 << 27),
            (128_256, 2048, Element::F32, 1 << 27),
            (128_256, 2048, Element::Bf16, 1 << 27),
            (129, 4, Element::F16, 512),
        ] {
            let found = parts("a", [rows, columns], element, allowed).expect("they fit");
            let mut next = 0;
            for [first, rows] in &found {
                assert_eq!(*first, next);
                assert!(u64::from(*rows) * u64::from(columns) * element.bytes() <= allowed);
                assert!(first.is_multiple_of(PART_ROWS));
                next += rows;
            }
            assert_eq!(next, rows);
        }
        assert_eq!(parts("a", [49_152, 576], Element::F32, 1 << 27).expect("it fits").len(), 1);
        assert_eq!(parts("a", [128_256, 2048], Element::F32, 1 << 27).expect("it fits").len(), 8);
        let error = parts("wide", [128, 1 << 20], Element::F32, 1 << 27).expect_err("too wide").to_string();
        assert!(error.contains("`wide`") && error.contains("268435456"), "{error}");
    }
}
