//! Every file of `shaders/` declares the names that it uses and their sources, and these tests check the
//! declarations. The header of a file ends with lines like
//!
//! ```text
//! //@ import product/shrink: lane_sums     from this file; from a folder, whichever file of it is included
//! //@ kernel: shrunk, absorb               names that the kernel must provide
//! //@ host: COLUMNS, WORKGROUP             names that the host sets: constants and placeholders
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::constants::CONSTANTS;

type Names = BTreeSet<String>;

/// One file of `shaders/`.
struct Shader {
    /// Its path, without its extension.
    path: String,
    defined: Names,
    used: Names,
    imports: Vec<(String, Names)>,
    kernel: Names,
    host: Names,
}

/// Keywords and built-in functions of WGSL.
const LANGUAGE: &str = "fn let var const if else for while loop return break continue struct alias true false ptr \
    function array vec2 vec3 vec4 mat4x4 f32 u32 u64 bool const_assert uniform storage read read_write workgroup private \
    min max abs dot exp log sqrt select clamp bitcast transpose pack2x16float unpack2x16float workgroupBarrier \
    subgroupShuffle subgroupShuffleXor f16 arrayLength coop_matSIZE A B C coopLoad coopLoadT coopStoreT coopMultiplyAdd";

/// Placeholders that the host replaces by text.
const PLACEHOLDERS: [&str; 2] = ["THREAD_ARGUMENTS", "THREAD_NAMES"];

fn names(list: &str) -> Names {
    list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// An identifier, the character before it, and the word before it if only blanks lie between.
struct Identifier {
    name: String,
    behind: char,
    word: String,
}

/// The identifiers of code without comments.
fn identifiers(code: &str) -> Vec<Identifier> {
    let mut found = Vec::new();
    let (mut name, mut word, mut behind) = (String::new(), String::new(), ' ');
    for character in code.chars().chain([' ']) {
        if character.is_alphanumeric() || character == '_' {
            name.push(character);
            continue;
        }
        if !name.is_empty() {
            if !name.starts_with(|first: char| first.is_ascii_digit()) {
                found.push(Identifier { name: name.clone(), behind, word: word.clone() });
            }
            word = std::mem::take(&mut name);
            behind = ' ';
        }
        if !character.is_whitespace() {
            behind = character;
            word.clear();
        }
    }
    found
}

impl Shader {
    fn parse(path: String, text: &str) -> Self {
        let mut shader = Self {
            path,
            defined: Names::new(),
            used: Names::new(),
            imports: Vec::new(),
            kernel: Names::new(),
            host: Names::new(),
        };
        for directive in text.lines().filter_map(|line| line.strip_prefix("//@ ")) {
            let (what, list) =
                directive.split_once(':').unwrap_or_else(|| panic!("{}: {directive}", shader.path));
            match what.split_once(' ') {
                Some(("import", from)) => shader.imports.push((from.to_owned(), names(list))),
                None if what == "kernel" => shader.kernel = names(list),
                None if what == "host" => shader.host = names(list),
                _ => panic!("{}: what is {directive}?", shader.path),
            }
        }
        let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        // The names of built-in values are not identifiers of the file.
        let mut pieces = code.join("\n");
        while let Some(at) = pieces.find("@builtin(") {
            let end = pieces[at..].find(')').map_or(pieces.len(), |end| at + end + 1);
            pieces.replace_range(at..end, "");
        }
        let code = pieces;
        let (mut depth, mut local) = (0usize, Names::new());
        // Names at the top level are visible to other files. Names inside functions, and of fields, are not.
        for line in code.split_inclusive(['{', '}', ';']) {
            for Identifier { name, word, .. } in identifiers(line) {
                let declares = ["fn", "const", "alias", "struct", "let", "var"].contains(&word.as_str());
                if declares || declares_in_space(line, &name) {
                    if depth == 0 {
                        shader.defined.insert(name)
                    } else {
                        local.insert(name)
                    };
                }
            }
            local.extend(before_colons(line));
            depth += line.matches('{').count();
            depth -= line.matches('}').count().min(depth);
        }
        let language: Names = LANGUAGE.split_whitespace().map(str::to_owned).collect();
        for Identifier { name, behind, .. } in identifiers(&code) {
            let known = language.contains(&name) || shader.defined.contains(&name) || local.contains(&name);
            if behind != '.' && behind != '@' && !known {
                shader.used.insert(name);
            }
        }
        shader
    }

    /// All names that the file declares it uses.
    fn declared(&self) -> Names {
        let imports = self.imports.iter().flat_map(|(_, names)| names);
        imports.chain(&self.kernel).chain(&self.host).cloned().collect()
    }
}

/// Whether a piece of code declares the variable `name` with an address space.
fn declares_in_space(line: &str, name: &str) -> bool {
    let variable = line.split_once("var<").and_then(|(_, rest)| rest.split_once('>'));
    variable
        .and_then(|(_, rest)| rest.trim_start().strip_prefix(name))
        .is_some_and(|rest| rest.trim_start().starts_with(':'))
}

/// Names before a colon: parameters and fields.
fn before_colons(line: &str) -> impl Iterator<Item = String> + '_ {
    let pieces = line.split(':').count() - 1;
    let last = |piece| identifiers(piece).pop().map(|identifier| identifier.name);
    line.split(':').take(pieces).filter_map(last)
}

fn shaders() -> BTreeMap<String, Shader> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("the folder of shaders") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let parse = |file: PathBuf| {
        let path = file.strip_prefix(&root).expect("below the root").with_extension("");
        let path = path.to_str().expect("a name in ASCII").replace('\\', "/");
        let text = std::fs::read_to_string(&file).expect("it can be read");
        (path.clone(), Shader::parse(path, &text))
    };
    files.into_iter().map(parse).collect()
}

/// Whether `name` is defined, or comes from a definition with TENSOR in it, which exists once for each
/// tensor.
fn provides(defined: &Names, name: &str) -> bool {
    let for_a_tensor = |pattern: &String| {
        pattern.split_once("TENSOR").is_some_and(|(before, after)| {
            name.len() > before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        })
    };
    defined.contains(name) || defined.iter().any(for_a_tensor)
}

#[test]
fn every_file_takes_what_it_says_from_where_it_says() {
    let shaders = shaders();
    assert!(shaders.len() > 40, "only {} files", shaders.len());
    let mut problems = Vec::new();
    for shader in shaders.values() {
        let path = &shader.path;
        let declared = shader.declared();
        let in_text = |name: &&String| !["TENSOR", "WIDTH", "STRIDE"].contains(&name.as_str());
        let used: Names = shader.used.iter().filter(in_text).cloned().collect();
        for name in used.difference(&declared) {
            problems.push(format!("{path} uses {name}, and does not say from where"));
        }
        for name in declared.difference(&used) {
            problems.push(format!("{path} says that it takes {name}, and does not"));
        }
        for (from, names) in &shader.imports {
            let among = |other: &&Shader| {
                from.split(", ").any(|from| other.path == from || other.path.starts_with(&format!("{from}/")))
            };
            let sources: Vec<&Shader> = shaders.values().filter(among).collect();
            for name in names.iter().filter(|name| !sources.iter().any(|from| provides(&from.defined, name)))
            {
                problems.push(format!("{path} imports {name} from {from}, which does not have it"));
            }
        }
        for name in &shader.kernel {
            let of_tensor = name.contains("TENSOR");
            if !of_tensor && !shaders.values().any(|other| provides(&other.defined, name)) {
                problems.push(format!("{path} wants {name} of its kernel, and no file has it"));
            }
        }
        for name in &shader.host {
            let constant = CONSTANTS.iter().any(|(constant, _)| constant == name);
            if !constant && !PLACEHOLDERS.contains(&name.as_str()) {
                problems.push(format!("{path} wants {name} of the host, which does not set it"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let wanted: Names = shaders.values().flat_map(|shader| shader.host.clone()).collect();
    let unknown: Vec<_> = CONSTANTS.iter().filter(|(name, _)| !wanted.contains(*name)).collect();
    assert!(unknown.is_empty(), "no file uses {unknown:?}");
}
