//! Shaders as naga writes them in the Metal Shading Language, which is C++: a few edits and a header of
//! Metal's names make them another dialect of it.

use std::fmt::Write as _;

/// A shader for a header to be put before and an entry point behind. Whatever the dialect, its functions'
/// names are in the namespace `shader`, and its kernel is a function like the others, `main_`.
pub(super) struct Shader {
    pub text: String,
    /// What `main_` takes.
    pub parameters: Vec<Parameter>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Parameter {
    /// What it is, as Metal calls it.
    Builtin(String),
    Workgroup {
        kind: String,
    },
    Uniform {
        kind: String,
    },
    Buffer {
        kind: String,
        read_only: bool,
    },
}

impl Shader {
    pub(super) fn new(metal: &str) -> Result<Self, String> {
        let (_, after) = metal.split_once("kernel void main_(").ok_or("the shader has no kernel")?;
        let (signature, _) = after.split_once(") {\n").ok_or("the kernel has no body")?;
        let parameters = signature.split("\n,").map(|text| parameter(text.trim()));
        let parameters = parameters.collect::<Result<_, _>>()?;
        let lines = metal.lines().filter(|line| !line.starts_with("#include"));
        // Behind the parameters stand their bindings, in Metal's words.
        let lines = lines.map(|line| line.split_once(" [[").map_or(line, |(before, _)| before));
        let text = without_bounds(&lines.collect::<Vec<_>>().join("\n"));
        let text = format!(
            "namespace shader {{\nusing metal::float2;\nusing metal::half2;\nusing metal::as_type;\n{text}\n}}\n"
        );
        Ok(Self { text, parameters })
    }

    /// An entry point behind its attributes: its name, its parameters, and a body that calls `main_`.
    pub(super) fn entry(&self, dialect: &Dialect) -> Result<String, String> {
        let Dialect { workgroup, global, restrict, uniform, uniform_address, .. } = dialect;
        let (mut parameters, mut variables, mut arguments) = (Vec::new(), String::new(), Vec::new());
        for (index, parameter) in self.parameters.iter().enumerate() {
            arguments.push(match parameter {
                Parameter::Builtin(name) => (dialect.builtin)(name)?.to_owned(),
                Parameter::Workgroup { kind } => {
                    let _ = writeln!(variables, "    {workgroup}shader::{kind} p{index};");
                    format!("p{index}")
                }
                Parameter::Uniform { kind } => {
                    parameters.push(format!("{uniform}shader::{kind}{uniform_address} p{index}"));
                    format!("{uniform_address}p{index}")
                }
                // The library refuses buffers that overlap, and drivers assume as much.
                Parameter::Buffer { kind, read_only } => {
                    let constant = if *read_only { "const " } else { "" };
                    parameters.push(format!("{global}{constant}shader::{kind}* {restrict} p{index}"));
                    format!("*p{index}")
                }
            });
        }
        let (parameters, arguments) = (parameters.join(", "), arguments.join(", "));
        Ok(format!("entry({parameters}) {{\n{variables}    shader::main_({arguments});\n}}\n"))
    }
}

/// The words in which a dialect declares what an entry point takes.
pub(super) struct Dialect {
    /// What a built-in value is, by Metal's name of it.
    pub builtin: fn(&str) -> Result<&'static str, String>,
    /// Before a variable in workgroup memory.
    pub workgroup: &'static str,
    /// Before a buffer's type.
    pub global: &'static str,
    /// Before the name of a buffer that overlaps no other.
    pub restrict: &'static str,
    /// Before a uniform's type.
    pub uniform: &'static str,
    /// `*` where a uniform is given by its address.
    pub uniform_address: &'static str,
}

/// `constant Dims& dims [[user(fake0)]]`, `uint local [[thread_index_in_threadgroup]]`.
fn parameter(text: &str) -> Result<Parameter, String> {
    let unknown = || format!("the kernel has a parameter of another form: {text}");
    let attribute = text.split_once("[[").map_or("", |(_, rest)| rest.trim_end_matches("]]"));
    let declaration = text.split("[[").next().unwrap_or_default();
    let words: Vec<&str> = declaration.split_whitespace().collect();
    let kind = |word: &str| word.trim_end_matches('&').to_owned();
    match words[..] {
        ["threadgroup", word, _] => Ok(Parameter::Workgroup { kind: kind(word) }),
        ["constant", word, _] => Ok(Parameter::Uniform { kind: kind(word) }),
        ["device", word, "const&", _] => Ok(Parameter::Buffer { kind: kind(word), read_only: true }),
        ["device", word, _] => Ok(Parameter::Buffer { kind: kind(word), read_only: false }),
        [_, _] if !attribute.is_empty() => Ok(Parameter::Builtin(attribute.to_owned())),
        _ => Err(unknown()),
    }
}

/// Leaves the bounds of buffers to the driver, as wgpu does where it has one that checks them: naga's
/// `min(unsigned(at), (_buffer_sizes.size2 - 0 - 16) / 16)` gets a bound that the header knows to be none.
fn without_bounds(text: &str) -> String {
    let mut parts = text.split("(_buffer_sizes.");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (_, rest) = part.split_once(") / ").unwrap_or_default();
        result += "metal::Unbounded()";
        result += rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    }
    result
}

/// Marks literals as f32, which they are in Metal and not in C++.
pub(super) fn with_float_literals(text: &str) -> String {
    let mut result = String::with_capacity(text.len() + text.len() / 16);
    let mut rest = text;
    while let Some(start) = rest.find(|character: char| character.is_ascii_alphanumeric() || character == '_')
    {
        result += &rest[..start];
        let word = &rest[start..];
        let is_number = word.starts_with(|first: char| first.is_ascii_digit());
        let inside = |character: char| {
            character.is_ascii_alphanumeric() || character == '_' || (is_number && character == '.')
        };
        let end = word.find(|character| !inside(character)).unwrap_or(word.len());
        result += &word[..end];
        if is_number && word[..end].contains('.') {
            result.push('f');
        }
        rest = &word[end..];
    }
    result + rest
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Parameter, Shader, with_float_literals};

    pub(in super::super) const METAL: &str = "\
#include <metal_stdlib>
float load(
    uint at,
    device type_3 const& x,
    constant _mslBufferSizes& _buffer_sizes
) {
    return x[metal::min(unsigned(at), (_buffer_sizes.size2 - 0 - 16) / 16)];
}
kernel void main_(
  metal::uint3 id [[threadgroup_position_in_grid]]
, constant Dims& dims [[user(fake0)]]
, device type_3 const& x [[user(fake0)]]
, threadgroup type_8& scratch
, device type_10& y [[user(fake0)]]
) {
    return;
}
";

    #[test]
    fn parameters_are_sorted_by_where_they_lie() {
        let shader = Shader::new(METAL).unwrap();
        let kind = |name: &str| name.to_owned();
        assert_eq!(
            shader.parameters,
            [
                Parameter::Builtin("threadgroup_position_in_grid".to_owned()),
                Parameter::Uniform { kind: kind("Dims") },
                Parameter::Buffer { kind: kind("type_3"), read_only: true },
                Parameter::Workgroup { kind: kind("type_8") },
                Parameter::Buffer { kind: kind("type_10"), read_only: false },
            ]
        );
        assert!(
            shader.text.contains("return x[metal::min(unsigned(at), metal::Unbounded())];"),
            "{}",
            shader.text
        );
        assert!(!shader.text.contains("[[") && !shader.text.contains("#include"));
        assert!(Shader::new("kernel void main_(\n  sampler s\n) {\n").is_err());
    }

    #[test]
    fn only_floats_are_marked() {
        let text = "x0.y + 1.0 * 16u - a[3].x + 0.000001)";
        assert_eq!(with_float_literals(text), "x0.y + 1.0f * 16u - a[3].x + 0.000001f)");
    }
}
