//! Each feature of the crate `manifold` alone, so that none depends on another by accident.

use crate::lint::DENY_WARNINGS;
use crate::metadata;
use crate::process::{Result, cargo, run};
use crate::v8;

/// The package with the features.
const PACKAGE: &str = "manifold";

/// Checks the package without features, with each feature alone, and with all of them. The features
/// that need V8 are left out where it is not available.
pub(crate) fn check() -> Result {
    let packages = metadata::workspace(".")?;
    let package = packages.into_iter().find(|package| package.name == PACKAGE);
    let package = package.ok_or_else(|| format!("there is no package {PACKAGE}"))?;
    for features in selections(&package.features, v8::is_available()?) {
        // Clippy, with the profile of the other lints: their builds of dependencies serve again.
        run(cargo()
            .args(["clippy", "--quiet", "--package", PACKAGE, "--no-default-features"])
            .args(["--features", &features])
            .args(DENY_WARNINGS))
        .map_err(|problem| format!("{PACKAGE} with the features [{features}]: {problem}"))?;
    }
    Ok(())
}

/// Returns the selections of features to check, each separated by commas.
fn selections(features: &[String], v8: bool) -> Vec<String> {
    let features = features.iter().map(|feature| &**feature);
    let usable: Vec<&str> =
        features.filter(|&feature| feature != "default" && (v8 || feature != "v8")).collect();
    let each = usable.iter().map(|&feature| feature.to_owned());
    std::iter::once(String::new()).chain(each).chain([usable.join(",")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_each_and_all_features_are_selected() {
        let features = ["default", "git", "v8", "wasm"].map(str::to_owned);
        assert_eq!(selections(&features, true), ["", "git", "v8", "wasm", "git,v8,wasm"]);
        assert_eq!(selections(&features, false), ["", "git", "wasm", "git,wasm"]);
    }
}
