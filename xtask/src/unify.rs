//! Checks that `manifold-unify` asks for the features that V8 needs, so that nothing else is built
//! again when V8 joins.

use std::collections::{BTreeMap, BTreeSet};

use crate::process::{Result, cargo, output};
use crate::v8;

/// The features of each package, and which combinations of them are built.
type Features = BTreeMap<String, BTreeSet<String>>;

/// Errors if a package that is built without V8 has other features when V8 is built as well.
pub(crate) fn check() -> Result {
    if !v8::is_available()? {
        return Ok(());
    }
    let with = features(&v8::workspace_selection()?)?;
    let mut missing = String::new();
    for (package, without) in features(&v8::selection_without())? {
        let with = with.get(&package).unwrap_or(&without);
        if *with != without {
            missing +=
                &format!("  {package}\n    without V8: {without:?}\n    with V8:    {with:?}\n");
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "these packages would be built again when V8 joins:\n{missing}Add their features to \
         `dependencies` and `build-dependencies` in unify/Cargo.toml."
    ))
}

/// Returns the features of the third-party packages of a selection, for all platforms of this
/// machine.
fn features(selection: &[String]) -> Result<Features> {
    let mut tree = cargo();
    tree.args(["tree", "--workspace", "--edges", "normal,build", "--prefix", "none"]);
    tree.args(["--format", "{p}\t{f}"]).args(selection);
    let mut features = Features::new();
    for line in output(&mut tree)?.lines() {
        // A package that was listed before is marked with an asterisk.
        let line = line.trim_end_matches(" (*)");
        if let Some((package, of_package)) = line.split_once('\t')
            && !package.contains("(/")
        {
            features.entry(package.to_owned()).or_default().insert(of_package.to_owned());
        }
    }
    Ok(features)
}
