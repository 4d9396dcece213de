//! Intel's compiler: naga's Metal, which is C++, as C++ for OpenCL, by clang to SPIR-V. Its back end is also
//! that of Intel's drivers for Windows; Mesa has another.

use std::fs;
use std::path::{Path, PathBuf};

use super::msl::{Dialect, Shader};
use super::{
    Column, Compiled, Gpu, Statistics, column, folder_with, in_parallel, loops, number_after, stem, threads,
    xe,
};
use crate::implementation::{self, OpenCl};

/// Arc A-series.
pub(super) const FAMILIES: [&str; 1] = ["acm-g10"];

const REGISTERS: &str = "Registers";
const SPILLED: &str = "Spilled bytes";
const PRIVATE: &str = "Private bytes of a lane";
const LANES: &str = "Lanes";
const LOCAL: &str = "Local memory bytes";
const INSTRUCTIONS: &str = "Instructions";

const COLUMNS: [Column; 6] = [
    // As many as each thread has of them, whether it needs them or not.
    column("registers", REGISTERS),
    column("spilled B", SPILLED),
    // Of arrays that found no place in registers.
    column("private B", PRIVATE),
    Column { heading: "lanes", statistic: LANES, small_is_bad: true },
    column("local B", LOCAL),
    column("instructions", INSTRUCTIONS),
];

/// Compiles the shaders, Metal with SPIR-V beside it, for each family.
pub(super) fn compile(root: &Path, families: &[String], shaders: &[PathBuf]) -> Result<Vec<Gpu>, String> {
    let compilers = implementation::opencl(&root.join("target/implementations"))?;
    let folder = folder_with(root.join("target/isa/opencl"), "metal.clh", include_str!("metal.clh"))?;
    let compiled = in_parallel(shaders, |path| {
        let name = stem(path);
        let made = in_families(&compilers, &folder.join(&name), path, families);
        made.map_err(|error| format!("{name}: {error}")).map(|made| (name, made))
    })?;
    let gpu = |(index, family): (usize, &String)| Gpu {
        name: family.clone(),
        title: format!("{family} (IGC {})", compilers.version),
        columns: &COLUMNS,
        spills: &[SPILLED, PRIVATE],
        shaders: compiled.iter().map(|(name, made)| (name.clone(), made[index].clone())).collect(),
    };
    Ok(families.iter().enumerate().map(gpu).collect())
}

fn in_families(
    compilers: &OpenCl,
    base: &Path,
    metal: &Path,
    families: &[String],
) -> Result<Vec<Compiled>, String> {
    let text = fs::read_to_string(metal).map_err(|error| format!("{}: {error}", metal.display()))?;
    let text = opencl(&text, threads(&metal.with_extension("spv"))?)?;
    let [source, bitcode, spirv] = ["cl", "bc", "spv"].map(|extension| base.with_extension(extension));
    super::write(&source, &text)?;
    let mut clang = compilers.clang();
    clang.args(["-triple", "spir64", "-cl-std=clc++2021", "-finclude-default-header"]);
    // Literals are f32 in Metal.
    clang.args(["-cl-single-precision-constant", "-Dcl_khr_subgroup_shuffle", "-w"]);
    // ocloc does the rest.
    clang.args(["-O2", "-disable-llvm-passes", "-emit-llvm-bc", "-o"]).arg(&bitcode).arg(&source);
    implementation::output(&mut clang)?;
    let mut translator = compilers.llvm_spirv();
    translator.args(["--spirv-max-version=1.3", "--spirv-ext=+all", "-o"]).arg(&spirv).arg(&bitcode);
    implementation::output(&mut translator)?;
    families.iter().map(|family| in_family(compilers, base, &spirv, family)).collect()
}

fn in_family(compilers: &OpenCl, base: &Path, spirv: &Path, family: &str) -> Result<Compiled, String> {
    let dump = base.with_extension(family);
    // The compiler numbers what it dumps where there is something already.
    let _ = fs::remove_dir_all(&dump);
    let mut ocloc = compilers.ocloc();
    ocloc.args(["compile", "-spirv_input", "-device", family, "-file"]).arg(spirv);
    ocloc.args(["--format", "zebin", "-output", "shader", "-out_dir"]).arg(&dump);
    ocloc.env("IGC_ShaderDumpEnable", "1").env("IGC_DumpToCustomDir", &dump);
    implementation::output(&mut ocloc)?;
    // The binary is ELF with a section of text.
    let binary = super::files(&dump, "bin")?;
    let binary = fs::read(&binary[0]).map_err(|error| format!("{}: {error}", binary[0].display()))?;
    let binary = String::from_utf8_lossy(&binary);
    // It tells of one kernel after another, and the compiler adds one where there are tables of constants.
    let (_, own) = binary.split_once("- name:            entry\n").ok_or("the binary has no kernel")?;
    let own = own.split("- name:").next().unwrap_or_default();
    let lanes = number_after(own, "simd_size:").ok_or("the binary does not say how many lanes it has")?;
    // Both are left out where there is none.
    let local = number_after(own, "slm_size:").unwrap_or(0);
    let private = own.split_once("private_space").and_then(|(_, rest)| number_after(rest, "size:"));
    // What spills is tried again, and every try is dumped: the second as `NAME_1_simd16`, sorted before
    // the first.
    let tries = super::files(&dump, "asm")?;
    let kept = tries.iter().find(|path| stem(path).ends_with(&format!("_simd{lanes}")));
    let assembly = kept.ok_or_else(|| format!("{} has no kernel of {lanes} lanes", dump.display()))?;
    let text = fs::read(assembly).map_err(|error| format!("{}: {error}", assembly.display()))?;
    let text = String::from_utf8_lossy(&text);
    // What else is dumped is megabytes of what came between.
    super::write(&base.with_extension(format!("{family}.asm")), &text)?;
    let _ = fs::remove_dir_all(&dump);
    let program = xe::parse(&text);
    let statistics = [
        (REGISTERS, number_after(&text, "numGRF=")),
        // Left out where there is none.
        (SPILLED, Some(number_after(&text, "//.spill size ").unwrap_or(0))),
        (PRIVATE, Some(private.unwrap_or(0))),
        (LANES, Some(lanes)),
        (LOCAL, Some(local)),
        (INSTRUCTIONS, number_after(&text, "//.instCount ")),
    ];
    let statistics = statistics.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(Compiled::new(statistics.collect::<Statistics>(), loops::loops(&program)))
}

const OPENCL: Dialect = Dialect {
    builtin,
    workgroup: "__local ",
    global: "__global ",
    restrict: "__restrict",
    uniform: "__constant ",
    uniform_address: "*",
};

/// A shader as an OpenCL kernel for workgroups of some threads.
fn opencl(metal: &str, threads: u32) -> Result<String, String> {
    let shader = Shader::new(metal)?;
    let entry = shader.entry(&OPENCL)?;
    Ok(format!(
        "#include \"metal.clh\"\n{}\n__attribute__((reqd_work_group_size({threads}, 1, 1))) __kernel void {entry}",
        shader.text
    ))
}

/// What Metal calls by these names, in OpenCL. Workgroups have one dimension.
fn builtin(name: &str) -> Result<&'static str, String> {
    Ok(match name {
        "threadgroup_position_in_grid" => "metal::threadgroup_position_in_grid()",
        "threadgroups_per_grid" => "metal::threadgroups_per_grid()",
        "thread_index_in_threadgroup" => "get_local_id(0)",
        "simdgroup_index_in_threadgroup" => "get_sub_group_id()",
        "thread_index_in_simdgroup" => "get_sub_group_local_id()",
        "threads_per_simdgroup" => "get_max_sub_group_size()",
        _ => return Err(format!("the kernel wants {name}, which is not known here")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::msl::tests::METAL;
    use super::opencl;

    #[test]
    fn the_kernel_gets_an_entry_point() {
        let text = opencl(METAL, 64).unwrap();
        let entry = "__attribute__((reqd_work_group_size(64, 1, 1))) __kernel void entry(__constant shader::Dims* \
                     p1, __global const shader::type_3* __restrict p2, __global shader::type_10* __restrict p4) \
                     {\n    __local shader::type_8 p3;\n    \
                     shader::main_(metal::threadgroup_position_in_grid(), *p1, *p2, p3, *p4);\n}\n";
        assert!(text.ends_with(entry), "{text}");
    }
}
