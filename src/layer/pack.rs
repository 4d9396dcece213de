//! The places of a whole model's adapters in shared buffers.

use std::collections::BTreeMap;
use std::ops::Range;

use super::config::Config;
use super::layout::Layout;
use crate::element::MOST_BYTES;
use crate::error::{Error, Limit};

/// The offset alignment of bindings in bytes: sufficient on every device.
const ALIGNMENT: u64 = 256;

/// The adapters of a model, by the names of their modules, in as few buffers as a device's limits allow.
///
/// Parameters and gradients have the same layout: element i of one buffer belongs to element i of the other.
/// Moments take twice the bytes, and one binding must hold all moments of a buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Pack {
    places: Vec<Place>,
    by_name: BTreeMap<String, usize>,
    buffers: Vec<usize>,
}

/// The place of a module's adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    name: String,
    config: Config,
    layout: Layout,
    buffer: usize,
    offset: u64,
}

impl Place {
    /// The module's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The module's layer.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The layout of the adapter itself.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The index of its buffer.
    #[must_use]
    pub fn buffer(&self) -> usize {
        self.buffer
    }

    /// The adapter's start in its buffer, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The adapter's elements in its buffer: the range that [`Layout::unpack`] takes.
    #[must_use]
    pub fn elements(&self) -> Range<usize> {
        let start = self.offset as usize / 4;
        start..start + self.layout.len()
    }
}

impl Pack {
    /// Places adapters in the order of `modules`, which are names and layers.
    ///
    /// # Errors
    /// An invalid configuration, a name that occurs twice, or an adapter whose moments are too large for one
    /// buffer.
    pub fn new<'a>(
        modules: impl IntoIterator<Item = (&'a str, Config)>,
        limits: &wgpu::Limits,
    ) -> Result<Self, Error> {
        let mut places = Vec::new();
        let mut by_name = BTreeMap::new();
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(MOST_BYTES) / 2;
        let mut shelves = Shelves::new(most);
        for (name, config) in modules {
            let layout = config.layout()?;
            Error::check_limit(
                format_args!("twice the adapter of {name}, as its moments are,"),
                Limit::StorageBufferBindingSize,
                2 * layout.bytes(),
                2 * most,
                "use a smaller rank or fewer experts, or request a device with the adapter's limit",
            )?;
            let (buffer, offset) = shelves.place(layout.bytes());
            if by_name.insert(name.to_owned(), places.len()).is_some() {
                return Err(Error::DuplicateModule { module: name.to_owned() });
            }
            places.push(Place { name: name.to_owned(), config, layout, buffer, offset });
        }
        let buffers = shelves.bytes().map(|bytes| bytes as usize / 4).collect();
        Ok(Self { places, by_name, buffers })
    }

    /// The places of all modules, in the order of the modules.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The place of a module, if it is in the pack.
    #[must_use]
    pub fn place(&self, module: &str) -> Option<&Place> {
        self.index(module).map(|at| &self.places[at])
    }

    /// The module's index in [`Pack::places`].
    #[must_use]
    pub fn index(&self, module: &str) -> Option<usize> {
        self.by_name.get(module).copied()
    }

    /// Elements of each buffer of parameters.
    #[must_use]
    pub fn buffers(&self) -> &[usize] {
        &self.buffers
    }
}

/// Buffers that are filled one after another.
#[derive(Debug)]
pub(crate) struct Shelves {
    /// The most bytes of a buffer.
    most: u64,
    ends: Vec<u64>,
}

impl Shelves {
    pub(crate) fn new(most: u64) -> Self {
        Self { most, ends: Vec::new() }
    }

    /// Places the next `bytes` in the last buffer if they fit, or else in a new one. Gives the buffer and the
    /// offset in bytes.
    pub(crate) fn place(&mut self, bytes: u64) -> (usize, u64) {
        let offset = self.ends.last().map(|end| end.next_multiple_of(ALIGNMENT));
        let fits = offset.filter(|offset| offset.saturating_add(bytes) <= self.most);
        let offset = fits.unwrap_or_else(|| {
            self.ends.push(0);
            0
        });
        let buffer = self.ends.len() - 1;
        self.ends[buffer] = offset + bytes;
        (buffer, offset)
    }

    /// Bytes of each buffer.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = u64> + '_ {
        self.ends.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The official setting: rank 4 and four experts on three projections of 32 layers.
    fn llama_2_7b() -> Vec<(String, Config)> {
        let config = |d_in, d_out| Config { d_in, d_out, rank: 4, experts: 4, ..Config::default() };
        let projections =
            [("gate", config(4096, 11008)), ("up", config(4096, 11008)), ("down", config(11008, 4096))];
        let name = |layer, projection| format!("model.layers.{layer}.mlp.{projection}_proj");
        (0..32).flat_map(|layer| projections.map(|(at, config)| (name(layer, at), config))).collect()
    }

    fn pack(modules: &[(String, Config)], limits: &wgpu::Limits) -> Result<Pack, Error> {
        Pack::new(modules.iter().map(|(name, config)| (name.as_str(), *config)), limits)
    }

    #[test]
    fn a_model_takes_as_many_buffers_as_its_moments_need() {
        let limits = wgpu::Limits::default();
        assert_eq!(limits.max_storage_buffer_binding_size, 128 << 20);
        let model = llama_2_7b();
        let whole = pack(&model, &limits).expect("it fits");
        assert_eq!(whole.buffers().len(), 2);
        assert_eq!(whole.buffers().iter().sum::<usize>(), 18_284_544);
        for limit in [128 << 20, 30 << 20, 2 << 20] {
            let limits = wgpu::Limits { max_storage_buffer_binding_size: limit, ..limits.clone() };
            let pack = pack(&model, &limits).expect("it fits");
            assert!(pack.buffers().iter().all(|&elements| 8 * elements as u64 <= limit));
            let mut ends = vec![0; pack.buffers().len()];
            for (place, (name, config)) in pack.places().iter().zip(&model) {
                assert_eq!((place.name(), place.config()), (name.as_str(), config));
                assert_eq!(pack.place(name), Some(place));
                let elements = place.elements();
                assert!(place.offset().is_multiple_of(ALIGNMENT) && elements.start >= ends[place.buffer()]);
                ends[place.buffer()] = elements.end;
            }
            assert_eq!(ends, pack.buffers());
        }
    }

    #[test]
    fn names_are_unique_and_adapters_fit() {
        let [first, second, ..] = &llama_2_7b()[..] else { unreachable!("there are 96") };
        let twice = [first.clone(), (first.0.clone(), second.1)];
        let module = first.0.clone();
        assert_eq!(pack(&twice, &wgpu::Limits::default()), Err(Error::DuplicateModule { module }));
        let limits = wgpu::Limits { max_buffer_size: 1 << 20, ..wgpu::Limits::default() };
        let error = pack(&twice[..1], &limits).expect_err("it is larger");
        assert!(matches!(error, Error::OverLimit { needed, .. } if needed == 8 * 208_896), "{error}");
        assert_eq!(pack(&[], &limits).map(|pack| pack.buffers().len()), Ok(0));
    }
}
