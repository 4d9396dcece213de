//! Opens a checkpoint of which one file is made up, and reads all that it has.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use hydralora::checkpoint::{Checkpoint, CheckpointError};

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
