//! The packages of a cargo workspace, as `cargo metadata` lists them.

use std::path::{Path, PathBuf};

use crate::json::Json;
use crate::process::{Result, cargo, output, root};

/// A package of a workspace.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The directory of its manifest.
    pub(crate) directory: PathBuf,
    /// Whether it can be published: its manifest does not contain `publish = false`.
    pub(crate) is_published: bool,
    /// Whether it has a library.
    pub(crate) is_library: bool,
    /// The names of the targets that `cargo doc` documents.
    pub(crate) documented: Vec<String>,
    pub(crate) features: Vec<String>,
    /// Which of the fields that a published package should have are missing.
    pub(crate) missing_fields: Vec<&'static str>,
}

/// Returns the packages of the workspace in `directory`, a path below the project's root.
pub(crate) fn workspace(directory: &str) -> Result<Vec<Package>> {
    let directory = root().join(directory);
    let metadata = output(
        cargo().args(["metadata", "--format-version=1", "--no-deps"]).current_dir(&directory),
    )?;
    let problem =
        |problem| format!("cannot read the metadata of {}: {problem}", directory.display());
    packages(&metadata).map_err(problem)
}

/// Returns the packages of all workspaces that can be published.
pub(crate) fn published() -> Result<Vec<Package>> {
    let mut packages = workspace(".")?;
    packages.extend(workspace(GUEST_SDK)?);
    packages.retain(|package| package.is_published);
    Ok(packages)
}

/// The workspace of the guest SDK, a path below the project's root.
pub(crate) const GUEST_SDK: &str = "guest-sdk/rust";

fn packages(metadata: &str) -> Result<Vec<Package>> {
    const FIELDS: [&str; 3] = ["description", "license", "readme"];
    let metadata = Json::parse(metadata)?;
    let mut packages = Vec::new();
    for package in metadata.items("packages") {
        let text = |name: &str| package.text(name).ok_or_else(|| format!("no field `{name}`"));
        let is_library = |target: &Json| {
            target.items("kind").iter().any(|kind| *kind == Json::Text("lib".to_owned()))
        };
        let is_documented = |target: &&Json| target.get("doc") == Some(&Json::Bool(true));
        let documented = package.items("targets").iter().filter(is_documented);
        packages.push(Package {
            name: text("name")?.to_owned(),
            version: text("version")?.to_owned(),
            directory: Path::new(text("manifest_path")?)
                .parent()
                .ok_or("a manifest without a directory")?
                .to_owned(),
            is_published: !matches!(package.get("publish"), Some(Json::List(_))),
            is_library: package.items("targets").iter().any(is_library),
            documented: documented
                .filter_map(|target| target.text("name"))
                .map(str::to_owned)
                .collect(),
            features: package.keys("features").into_iter().map(str::to_owned).collect(),
            missing_fields: FIELDS
                .into_iter()
                .filter(|field| package.text(field).is_none())
                .collect(),
        });
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_with_what_decides_about_publishing() {
        let metadata = r#"{"packages": [
            {"name": "a", "version": "0.1.0", "manifest_path": "/w/a/Cargo.toml", "publish": null,
             "description": "A", "license": "MIT", "readme": null,
             "targets": [{"name": "a", "kind": ["lib"], "doc": true}],
             "features": {"default": ["x"], "x": []}},
            {"name": "b", "version": "0.2.0", "manifest_path": "/w/b/Cargo.toml", "publish": [],
             "targets": [{"kind": ["bin"]}], "features": {}}
        ]}"#;
        let packages = packages(metadata).unwrap();
        assert_eq!(
            packages[0],
            Package {
                name: "a".into(),
                version: "0.1.0".into(),
                directory: "/w/a".into(),
                is_published: true,
                is_library: true,
                documented: vec!["a".into()],
                features: vec!["default".into(), "x".into()],
                missing_fields: vec!["readme"],
            }
        );
        assert!(!packages[1].is_published);
        assert!(!packages[1].is_library);
        assert!(packages[1].documented.is_empty());
    }
}
