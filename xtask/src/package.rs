//! `cargo xtask package`: packages every published crate as `cargo publish` would, and builds the
//! packages without the rest of the repository. Nothing is published.

mod typescript;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::metadata::{self, GUEST_SDK, Package};
use crate::process::{Result, cargo, root, run, target};
use crate::toolchain::WASM;
use crate::v8;

/// The longest package that crates.io accepts, in bytes.
const MAX_PACKAGE_BYTES: u64 = 10 << 20;

/// Packages and files in them that only the set-up creates, one of each kind.
const BUILT: [(&str, &str); 3] = [
    ("manifold-standard-guests", "modules/fold.wasm"),
    ("manifold-standard-guests", "modules/typescript/fold.ts"),
    ("manifold-runtime-docker", "init/container-init.x86_64"),
];

/// Packages the crates and the npm package, and checks them.
pub(crate) fn package() -> Result {
    let packages = metadata::published()?;
    let workspace = target().join("packaged");
    if workspace.exists() {
        fs::remove_dir_all(&workspace).map_err(|error| cannot("remove", &workspace, &error))?;
    }
    fs::create_dir_all(&workspace).map_err(|error| cannot("create", &workspace, &error))?;
    for package in &packages {
        if !package.missing_fields.is_empty() {
            let (name, fields) = (&package.name, package.missing_fields.join(", "));
            return Err(format!("the manifest of {name} has no {fields}"));
        }
    }
    for directory in [".", GUEST_SDK] {
        create_packages(directory)?;
    }
    for package in &packages {
        unpack(package, &workspace)?;
    }
    let manifest = workspace.join("Cargo.toml");
    fs::write(&manifest, workspace_manifest(&packages))
        .map_err(|error| cannot("write", &manifest, &error))?;
    // With the same versions of the dependencies their builds serve again.
    let lock = root().join("Cargo.lock");
    fs::copy(&lock, workspace.join("Cargo.lock")).map_err(|error| cannot("copy", &lock, &error))?;
    check(&workspace)?;
    typescript::package()
}

/// Creates the `.crate` files of the published packages of a workspace, a path below the root.
fn create_packages(directory: &str) -> Result {
    let packages = metadata::workspace(directory)?;
    let published = packages.iter().filter(|package| package.is_published);
    let names = published.flat_map(|package| ["--package", &*package.name]);
    run(cargo()
        .args(["package", "--quiet", "--no-verify", "--allow-dirty"])
        .args(names)
        .current_dir(root().join(directory)))
}

/// Unpacks a package into the directory `<name>-<version>` of `workspace`.
fn unpack(package: &Package, workspace: &Path) -> Result {
    let archive = target().join("package").join(format!("{}.crate", folder(package)));
    let length = fs::metadata(&archive).map_err(|error| cannot("read", &archive, &error))?.len();
    if length > MAX_PACKAGE_BYTES {
        return Err(format!(
            "{} is {length} bytes long, over the limit of crates.io of {MAX_PACKAGE_BYTES} bytes",
            archive.display()
        ));
    }
    eprintln!("package: {} ({} KiB)", folder(package), length.div_ceil(1024));
    // The files in a package are dated 2006. Cargo rebuilds what is younger than its last build.
    run(Command::new("tar")
        .args(["--extract", "--gzip", "--touch", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(workspace))?;
    // Patterns in a manifest that match no file are not an error for cargo.
    let missing = BUILT.into_iter().find(|(name, file)| {
        package.name == *name && !workspace.join(folder(package)).join(file).is_file()
    });
    missing.map_or(Ok(()), |(_, file)| Err(format!("{} has no {file}", archive.display())))
}

/// Returns the manifest of a workspace in which the packages find each other.
fn workspace_manifest(packages: &[Package]) -> String {
    let members: Vec<String> =
        packages.iter().map(|package| format!("    {:?},\n", folder(package))).collect();
    let patches: Vec<String> = packages
        .iter()
        .map(|package| format!("{} = {{ path = {:?} }}\n", package.name, folder(package)))
        .collect();
    format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\n{}]\n\n[patch.crates-io]\n{}",
        members.concat(),
        patches.concat()
    )
}

/// Returns the name of the directory in a package.
fn folder(package: &Package) -> String {
    format!("{}-{}", package.name, package.version)
}

/// Builds the unpacked packages as far as it takes to find errors.
fn check(workspace: &Path) -> Result {
    let mut all = cargo();
    all.args(["check", "--quiet", "--workspace"]).current_dir(workspace);
    if v8::is_available()? {
        all.arg("--all-features");
    } else {
        all.args(v8::exclusion()?).args(v8::selection()?);
    }
    run(&mut all)?;
    run(cargo()
        .args(["check", "--quiet", "--package", "manifold-guest", "--target", WASM])
        .current_dir(workspace))
}

fn cannot(operation: &str, path: &Path, error: &std::io::Error) -> String {
    format!("cannot {operation} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_find_each_other_in_the_workspace() {
        let package = |name: &str| Package {
            name: name.into(),
            version: "0.1.0".into(),
            directory: "/w".into(),
            is_published: true,
            is_library: true,
            ..Package::default()
        };
        assert_eq!(
            workspace_manifest(&[package("a"), package("b")]),
            "[workspace]\nresolver = \"3\"\nmembers = [\n    \"a-0.1.0\",\n    \"b-0.1.0\",\n]\n\n\
             [patch.crates-io]\na = { path = \"a-0.1.0\" }\nb = { path = \"b-0.1.0\" }\n"
        );
    }
}
