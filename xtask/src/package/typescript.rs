//! The TypeScript SDK as npm would publish it.

use std::fs;
use std::process::Command;

use crate::json::Json;
use crate::npm;
use crate::process::{Result, is_runnable, output, root, target};
use crate::skip::skip;

/// Packs the SDK into `package/npm` below the target directory.
///
/// # Errors
/// Returns an error if npm fails, if the package has not the files that its `package.json` names,
/// or if npm is not installed and `MANIFOLD_REQUIRE` contains `npm`.
pub(super) fn package() -> Result {
    if !is_runnable("npm") {
        let part = "the TypeScript SDK is not packed";
        return skip("npm", part, "npm is not installed", npm::HOW_TO);
    }
    let sdk = root().join("guest-sdk/typescript");
    let packages = target().join("package").join("npm");
    fs::create_dir_all(&packages)
        .map_err(|error| format!("cannot create {}: {error}", packages.display()))?;
    let mut pack = Command::new("npm");
    pack.args(["pack", "--silent", "--pack-destination"]).arg(&packages).current_dir(&sdk);
    // The scripts of the package may print, too. The file's name comes last.
    let printed = output(&mut pack)?;
    let archive = packages.join(printed.lines().last().unwrap_or_default());
    let files = output(Command::new("tar").args(["--list", "--gzip", "--file"]).arg(&archive))?;
    let package = npm::read(&sdk)?;
    let is_missing =
        |file: &&str| !files.lines().any(|line| line.strip_prefix("package/") == Some(*file));
    match named_files(&package).into_iter().find(is_missing) {
        Some(file) => Err(format!("{} does not contain {file}", archive.display())),
        None => {
            eprintln!("package: {}", archive.display());
            Ok(())
        }
    }
}

/// Returns the files that a program may import according to `package.json`.
fn named_files(package: &Json) -> Vec<&str> {
    let mut files = Vec::new();
    for member in ["types", "exports"] {
        if let Some(value) = package.get(member) {
            collect(value, &mut files);
        }
    }
    files
}

fn collect<'a>(value: &'a Json, files: &mut Vec<&'a str>) {
    match value {
        Json::Text(path) => files.extend(path.strip_prefix("./")),
        Json::Object(members) => members.iter().for_each(|(_, value)| collect(value, files)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_all_conditions_are_found() {
        let package = Json::parse(
            r#"{"types": "./a.ts", "exports": {".": {"types": "./b.ts", "default": "./c.ts"}}}"#,
        );
        assert_eq!(named_files(&package.unwrap()), ["a.ts", "b.ts", "c.ts"]);
    }
}
