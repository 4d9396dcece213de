//! NVIDIA's compiler: naga's Metal, which is C++, as CUDA. Its back end, ptxas, is also that of NVIDIA's
//! Vulkan driver; its front end is not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::msl::{Dialect, Shader, with_float_literals};
use super::{
    Column, Compiled, Gpu, column, folder_with, in_parallel, loops, number_before, sass, stem, threads,
};
use crate::implementation;

/// Turing (T4, RTX 20), Ada (L4, RTX 40) and Hopper (H100).
pub(super) const FAMILIES: [&str; 3] = ["sm_75", "sm_89", "sm_90"];

/// The oldest of them. What is compiled once for all of them is compiled for this one.
const VIRTUAL: &str = "compute_75";

const REGISTERS: &str = "Registers";
const SPILLED: &str = "Spilled bytes";
const STACK: &str = "Stack bytes";
const SHARED: &str = "Shared memory bytes";
const INSTRUCTIONS: &str = "Instructions";

const COLUMNS: [Column; 5] = [
    column("registers", REGISTERS),
    column("spilled B", SPILLED),
    column("stack B", STACK),
    column("shared B", SHARED),
    column("instructions", INSTRUCTIONS),
];

/// Compiles the shaders, Metal with SPIR-V beside it, for each family.
pub(super) fn compile(root: &Path, families: &[String], shaders: &[PathBuf]) -> Result<Vec<Gpu>, String> {
    let (programs, version) = implementation::cuda(&root.join("target/implementations"))?;
    let folder = folder_with(root.join("target/isa/cuda"), "metal.cuh", include_str!("metal.cuh"))?;
    let compiled = in_parallel(shaders, |path| {
        let name = stem(path);
        let made = in_families(&programs, &folder.join(&name), path, families);
        made.map_err(|error| format!("{name}: {error}")).map(|made| (name, made))
    })?;
    let gpu = |(index, family): (usize, &String)| Gpu {
        name: family.clone(),
        title: format!("{family} (ptxas {version})"),
        columns: &COLUMNS,
        spills: &[SPILLED],
        shaders: compiled.iter().map(|(name, made)| (name.clone(), made[index].clone())).collect(),
    };
    Ok(families.iter().enumerate().map(gpu).collect())
}

fn in_families(
    programs: &Path,
    base: &Path,
    metal: &Path,
    families: &[String],
) -> Result<Vec<Compiled>, String> {
    let text = fs::read_to_string(metal).map_err(|error| format!("{}: {error}", metal.display()))?;
    let (source, assembly) = (base.with_extension("cu"), base.with_extension("ptx"));
    super::write(&source, &cuda(&text, threads(&metal.with_extension("spv"))?)?)?;
    let mut nvcc = Command::new(programs.join("nvcc"));
    nvcc.args(["-ptx", "-arch", VIRTUAL, "-std=c++17", "--disable-warnings", "-o"])
        .arg(&assembly)
        .arg(&source);
    implementation::output(&mut nvcc)?;
    let made = families.iter().map(|family| {
        let code = base.with_extension(format!("{family}.cubin"));
        let mut ptxas = Command::new(programs.join("ptxas"));
        ptxas.args(["--verbose", "-arch", family, "-o"]).arg(&code).arg(&assembly);
        let output = ptxas.output().map_err(|error| format!("ptxas could not be run: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(format!("{family}: {said}"));
        }
        let listing = implementation::output(Command::new(programs.join("nvdisasm")).arg("-c").arg(&code))?;
        super::write(&base.with_extension(format!("{family}.sass")), &listing)?;
        let program = sass::parse(&listing);
        let mut statistics = said_of(&said).ok_or_else(|| format!("ptxas says something else: {said}"))?;
        statistics.insert(INSTRUCTIONS.to_owned(), program.len() as u64);
        Ok(Compiled::new(statistics, loops::loops(&program)))
    });
    made.collect()
}

/// Reads what ptxas says of the one kernel that it was given.
fn said_of(text: &str) -> Option<BTreeMap<String, u64>> {
    let statistics = [
        (REGISTERS, number_before(text, " registers")?),
        (SPILLED, number_before(text, " bytes spill stores")?),
        (STACK, number_before(text, " bytes stack frame")?),
        // Left out where there is none.
        (SHARED, number_before(text, " bytes smem").unwrap_or(0)),
    ];
    Some(statistics.map(|(name, value)| (name.to_owned(), value)).into())
}

const CUDA: Dialect = Dialect {
    builtin,
    workgroup: "__shared__ ",
    global: "",
    restrict: "__restrict__",
    uniform: "const ",
    uniform_address: "",
};

/// A shader as a CUDA kernel for workgroups of some threads.
fn cuda(metal: &str, threads: u32) -> Result<String, String> {
    let shader = Shader::new(metal)?;
    let mut text = "#include \"metal.cuh\"\n".to_owned();
    let swizzled = shader.text.replace(".xy", ".xy()").replace(".zw", ".zw()");
    for line in with_float_literals(&swizzled).lines() {
        text += &cuda_line(line);
        text.push('\n');
    }
    let entry = shader.entry(&CUDA)?;
    let _ = write!(text, "\nextern \"C\" __global__ void __launch_bounds__({threads}) {entry}");
    Ok(text)
}

/// A line of Metal in CUDA, which wants to be told that functions are for the device, but finds out by itself
/// where what they are given lies.
fn cuda_line(line: &str) -> String {
    let is_global = line.starts_with(|first: char| first.is_ascii_alphabetic());
    if let Some(rest) = line.strip_prefix("constant ") {
        return format!("constexpr {rest}");
    }
    if let Some(rest) = line.strip_prefix("kernel ") {
        return format!("DEVICE {rest}");
    }
    let others = ["typedef ", "struct ", "using ", "namespace "];
    if is_global && line.contains('(') && !others.iter().any(|word| line.starts_with(word)) {
        return format!("DEVICE {line}");
    }
    let declaration = line.trim_start_matches([' ', ',']);
    let before = &line[..line.len() - declaration.len()];
    let spaces = [("constant ", "const "), ("device ", ""), ("threadgroup ", ""), ("thread ", "")];
    let changed = spaces.iter().find_map(|(space, by)| Some((by, declaration.strip_prefix(space)?)));
    changed.map_or(line.to_owned(), |(by, rest)| format!("{before}{by}{rest}"))
}

/// What Metal calls by these names, in CUDA. Workgroups have one dimension.
fn builtin(name: &str) -> Result<&'static str, String> {
    Ok(match name {
        "threadgroup_position_in_grid" => "metal::uint3{blockIdx.x, blockIdx.y, blockIdx.z}",
        "threadgroups_per_grid" => "metal::uint3{gridDim.x, gridDim.y, gridDim.z}",
        "thread_index_in_threadgroup" => "threadIdx.x",
        "simdgroup_index_in_threadgroup" => "threadIdx.x / 32",
        "thread_index_in_simdgroup" => "threadIdx.x % 32",
        "threads_per_simdgroup" => "32",
        _ => return Err(format!("the kernel wants {name}, which is not known here")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::msl::tests::METAL;
    use super::{REGISTERS, SHARED, SPILLED, cuda, cuda_line, said_of};

    #[test]
    fn the_kernel_becomes_a_function_with_an_entry_point() {
        let text = cuda(METAL, 64).unwrap();
        let entry = "extern \"C\" __global__ void __launch_bounds__(64) entry(const shader::Dims p1, const \
                     shader::type_3* __restrict__ p2, shader::type_10* __restrict__ p4) {\n    __shared__ \
                     shader::type_8 p3;\n    shader::main_(metal::uint3{blockIdx.x, blockIdx.y, blockIdx.z}, p1, \
                     *p2, p3, *p4);\n}\n";
        assert!(text.ends_with(entry), "{text}");
        assert!(text.contains("DEVICE void main_(") && text.contains("DEVICE float load("), "{text}");
        assert!(
            text.contains("\n    type_3 const& x,\n    const _mslBufferSizes& _buffer_sizes\n"),
            "{text}"
        );
        assert!(cuda(&METAL.replace("threadgroup_position_in_grid", "thread_position"), 64).is_err());
    }

    #[test]
    fn only_what_cuda_calls_otherwise_is_changed() {
        assert_eq!(cuda_line("constant uint RANK = 8u;"), "constexpr uint RANK = 8u;");
        assert_eq!(cuda_line("Squares add("), "DEVICE Squares add(");
        for same in ["typedef type_3 x(1);", "    uint thread_ = constant_(1u);", "}", "struct Dims {"] {
            assert_eq!(cuda_line(same), same);
        }
    }

    #[test]
    fn ptxas_is_understood() {
        let said = "ptxas info    : Compiling entry function 'entry' for 'sm_90'\n    16 bytes stack frame, 12 \
                    bytes spill stores, 8 bytes spill loads\nptxas info    : Used 96 registers, used 1 barriers\n";
        let statistics = said_of(said).unwrap();
        assert_eq!([REGISTERS, SPILLED, SHARED].map(|name| statistics[name]), [96, 12, 0]);
        assert!(said_of("nothing").is_none());
    }
}
