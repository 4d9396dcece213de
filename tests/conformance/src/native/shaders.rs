//! Every shader separately: compiled by devices that run nothing, and written to files for the compilers of
//! other platforms, in the translations that wgpu gives to each driver.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::adapters::NativeDevice;
use super::permutations::translate::{Language, translate, validate};
use super::permutations::{
    CLASSES, permutations, planned, with_matrices, with_subgroups, with_wide_products,
};
use crate::suite::Plan;
use hydralora::kernel::{Shader, Source};

/// Shaders with names, in a fixed order.
fn named(shaders: Vec<Shader>, suffix: &str) -> Vec<(String, Shader)> {
    let mut shaders: Vec<_> = shaders.into_iter().map(|shader| (shader.source(), shader)).collect();
    shaders.sort_by(|(a, _), (b, _)| (a.label, &a.wgsl).cmp(&(b.label, &b.wgsl)));
    let named = |(index, (source, shader)): (usize, (Source, Shader))| {
        (format!("{}{suffix}_{index:03}", source.label), shader)
    };
    shaders.into_iter().enumerate().map(named).collect()
}

/// A trial for every shader, on a device that only compiles.
pub fn plans(device: &Arc<dyn NativeDevice>) -> Vec<Plan> {
    let plan = |(name, shader): (String, Shader)| {
        let device = Arc::clone(device);
        Plan::new(format!("shaders/{name}"), shader.source().label, move || async move {
            device.compile(&shader).map(|()| None)
        })
    };
    named(permutations(), "").into_iter().map(plan).collect()
}

/// Writes every shader. The names of those with what not every compiler knows contain `_subgroups_`, `_wide_` or
/// `_matrices_`.
pub fn write_every(folder: &Path) -> Result<usize, String> {
    Ok(write(folder, &every(), &Language::ALL)? + write_rare(folder)?)
}

/// Writes the shader with the largest numbers of those that differ in nothing else, by the same names: for
/// compilers that take seconds.
pub fn write_kinds(folder: &Path) -> Result<usize, String> {
    let mut kinds: BTreeMap<_, (u32, (String, Shader))> = BTreeMap::new();
    for (name, shader) in every() {
        let (kind, size) = kind_and_size(&shader.source());
        let largest = kinds.get(&kind).is_none_or(|&(so_far, _)| so_far < size);
        if largest {
            kinds.insert(kind, (size, (name, shader)));
        }
    }
    let kinds: Vec<_> = kinds.into_values().map(|(_, shader)| shader).collect();
    Ok(write(folder, &kinds, &Language::ALL)? + write_rare(folder)?)
}

fn every() -> Vec<(String, Shader)> {
    [named(permutations(), ""), named(with_subgroups(), "_subgroups")].concat()
}

/// What a shader consists of: its files and flags, and whether it has one expert. And how large its numbers are:
/// the logarithm of their product, in whole bits.
fn kind_and_size(source: &Source) -> (String, u32) {
    let (mut kind, mut size) = (source.label.to_owned(), 0);
    for line in source.wgsl.lines() {
        let constant = line.strip_prefix("const ").and_then(|line| line.split_once(';'));
        let number = constant.and_then(|(line, _)| line.strip_suffix('u')?.split_once(" = "));
        match number.and_then(|(name, value)| Some((name, value.parse::<u32>().ok()?))) {
            Some(("EXPERTS", 1)) => kind += "one expert",
            Some((_, value)) => size += value.max(1).ilog2(),
            None if constant.is_some() || line.starts_with("// ----") => kind += line,
            None => {}
        }
    }
    (kind, size)
}

/// Writes the shaders of plans for layers of real models, into a folder for each vendor of GPUs; their names have
/// `_planned_` in them.
pub fn write_planned(folder: &Path) -> Result<usize, String> {
    let written = CLASSES
        .iter()
        .map(|class| write(&folder.join(class.vendor), &named(planned(class), "_planned"), &Language::ALL));
    written.sum()
}

/// Writes the shaders that not every language has words for.
fn write_rare(folder: &Path) -> Result<usize, String> {
    let wide = write(folder, &named(with_wide_products(), "_wide"), &Language::WIDE)?;
    Ok(wide + write(folder, &named(with_matrices(), "_matrices"), &Language::MATRICES)?)
}

/// Writes `NAME.wgsl` and its translations for every shader.
fn write(folder: &Path, shaders: &[(String, Shader)], languages: &[Language]) -> Result<usize, String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let save = |name: &str, extension: &str, contents: &[u8]| {
        let file = folder.join(format!("{name}.{extension}"));
        std::fs::write(&file, contents).map_err(|error| format!("{}: {error}", file.display()))
    };
    for (name, shader) in shaders {
        let wgsl = shader.source().wgsl;
        save(name, "wgsl", wgsl.as_bytes())?;
        let refused = |error| format!("{name}: {error}");
        let valid = validate(&wgsl).map_err(refused)?;
        for &language in languages {
            save(name, language.extension(), &translate(&valid, language).map_err(refused)?)?;
        }
    }
    Ok(shaders.len())
}
