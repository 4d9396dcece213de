//! `cargo xtask predict`: the planner's cost model on GPUs by their published numbers, put into the docs.

use std::path::Path;

use crate::{cargo, document};

/// What stands above the tables.
const HEADING: &str = "## Predictions for GPUs: nothing here was measured

What the planner's own cost model (`src/plan/cost.rs`) says of GPUs by published or assumed numbers. **Of these GPUs only the
H100 has run the kernels** (above), and it took up to 1.4 times as long, the frozen layer at few tokens 1.7 times. So these
are predictions, not results, and their order is worth more than their values. The model assumes that a thread has several
loads on their way at a time (four rows of the parameters, four tokens of the outer products, all that a thread adds to before
the rows), and knows little of what a compiler makes of a kernel. At T <= 16 no kernel can come near the limit, since
a dispatch takes longer to start than memory takes for its bytes. `cargo xtask predict` writes this section.";

pub(crate) fn run(root: &Path) -> Result<(), String> {
    let folder = root.join("target/predict");
    cargo(&["bench", "--bench", "predict", "--", "--out"], &[folder.clone().into_os_string()])?;
    let path = folder.join("predictions.md");
    let tables = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    document::replace(root, "predictions", &format!("{HEADING}\n\n{tables}"))?;
    println!("the predictions are now in {}", document::PATH);
    Ok(())
}
