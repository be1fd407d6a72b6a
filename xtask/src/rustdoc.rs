//! The documentation of the workspaces, with warnings as errors.

use std::collections::BTreeSet;

use crate::metadata::{GUEST_SDK, Package, workspace};
use crate::process::{Result, cargo, root, run};
use crate::v8::{exclusion, workspace_selection};

/// Builds the documentation of all packages.
///
/// # Errors
/// Errors if rustdoc warns, or if two targets would write their pages into one directory.
pub(crate) fn check() -> Result {
    one_target_for_each_name(&workspace(".")?)?;
    let document = |directory: &str| {
        let mut command = cargo();
        command.args(["doc", "--quiet", "--workspace", "--no-deps"]);
        command.env("RUSTDOCFLAGS", "-D warnings").current_dir(root().join(directory));
        command
    };
    run(document(".").args(exclusion()?).args(workspace_selection()?))?;
    run(&mut document(GUEST_SDK))
}

/// Cargo documents targets at the same time, in directories with their names. Two with one name
/// remove each other's files, which fails now and then.
fn one_target_for_each_name(packages: &[Package]) -> Result {
    let mut names = BTreeSet::new();
    for package in packages {
        for name in &package.documented {
            if !names.insert(name.replace('-', "_")) {
                return Err(format!(
                    "the target `{name}` of {} has the name of another target that is documented: \
                     rename it, or set `doc = false` for it",
                    package.name
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, documented: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            documented: documented.iter().map(|&name| name.to_owned()).collect(),
            ..Package::default()
        }
    }

    #[test]
    fn two_documented_targets_with_one_name_are_refused() {
        let library = package("engine", &["engine_core"]);
        let problem =
            one_target_for_each_name(&[library.clone(), package("command", &["engine-core"])]);
        assert!(problem.unwrap_err().contains("`engine-core` of command"));
        one_target_for_each_name(&[library, package("command", &["command"])]).unwrap();
    }
}
