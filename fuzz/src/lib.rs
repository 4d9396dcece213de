//! Opens a checkpoint or a language model of which one file is made up, and reads all that it has.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use hydralora::checkpoint::{Checkpoint, CheckpointError};
use hydralora_llama::error::Error;
use hydralora_llama::source::Source;

/// A folder of this process, in memory where the system has such folders.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = parent.join(format!("hydralora-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
});

/// The folder of a fixture.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/checkpoints").join(name)
}

/// Reads a copy of a fixture's `other` file beside `bytes` in the place of `file`. Either it is refused, or what is
/// loaded has the shapes of its layers.
pub fn read(bytes: &[u8], file: &str, name: &str, other: &str) {
    let copy = FOLDER.join(other);
    if !copy.is_file() {
        std::fs::copy(fixture(name).join(other), &copy).expect("a copy");
    }
    std::fs::write(FOLDER.join(file), bytes).expect("a file");
    // Refusing is right.
    let _ = load(&FOLDER);
}

fn load(folder: &Path) -> Result<(), CheckpointError> {
    let checkpoint = Checkpoint::open(folder)?;
    for module in checkpoint.modules() {
        let adapter = checkpoint.adapter(&module.name)?;
        module.config.layout().and_then(|layout| layout.pack(&adapter)).expect("the shapes of its layer");
    }
    Ok(())
}

/// Reads a GGUF file. Either it is refused, or all of the model is there.
pub fn read_gguf(bytes: &[u8]) {
    let path = FOLDER.join("model.gguf");
    std::fs::write(&path, bytes).expect("a file");
    let _ = load_model(&path);
}

/// Reads a copy of a small model with `bytes` in the place of one of its files.
pub fn read_model(bytes: &[u8], file: &str) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/llama/data/tiny");
    for entry in std::fs::read_dir(model).expect("a model") {
        let entry = entry.expect("an entry");
        let copy = FOLDER.join(entry.file_name());
        if !copy.is_file() {
            std::fs::copy(entry.path(), copy).expect("a copy");
        }
    }
    std::fs::write(FOLDER.join(file), bytes).expect("a file");
    let _ = load_model(&FOLDER);
}

fn load_model(path: &Path) -> Result<(), Error> {
    let source = Source::open(path)?;
    for (module, shape) in source.modules() {
        let numbers = source.read(&module, shape)?;
        assert_eq!(numbers.len() as u64, u64::from(shape[0]) * u64::from(shape[1]), "{module}");
    }
    let tokens = source.tokenizer.prompt("The parties agree, 1 to 2: <|im_end|>")?;
    assert!(tokens.iter().all(|token| *token < source.config.vocabulary));
    source.tokenizer.decode(&tokens)?;
    Ok(())
}
