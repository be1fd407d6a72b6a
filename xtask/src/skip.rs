//! Parts of a command that are skipped because something that they need is missing.

use crate::install::Need;
use crate::process::Result;

/// Prints that a part of a command is skipped.
///
/// `part` says what is not done, `problem` why, and `how_to` how to change that. `name` stands for
/// what is missing in `MANIFOLD_REQUIRE`.
///
/// # Errors
/// Returns an error instead if `MANIFOLD_REQUIRE` contains `name`.
pub(crate) fn skip(name: &str, part: &str, problem: &str, how_to: &str) -> Result {
    let required = std::env::var("MANIFOLD_REQUIRE").is_ok_and(|list| contains(&list, name));
    if required {
        return Err(format!(
            "{part}: {problem}\nThis is an error because MANIFOLD_REQUIRE contains {name}.\n\
             {how_to}"
        ));
    }
    eprintln!("\nSKIPPED: {part}: {problem}\n{how_to}\n");
    Ok(())
}

/// A program that a part of the tests needs, and what is printed without it.
pub(crate) struct Program {
    /// What stands for it in `MANIFOLD_REQUIRE`.
    pub(crate) name: &'static str,
    pub(crate) is_installed: bool,
    /// What is not done without it, and why.
    pub(crate) part: &'static str,
    pub(crate) problem: &'static str,
    pub(crate) package: Need,
}

impl Program {
    /// Returns the package of the program if it is not installed.
    pub(crate) fn need(self) -> Option<Need> {
        (!self.is_installed).then_some(self.package)
    }

    /// Prints what is skipped if the program is not installed.
    ///
    /// # Errors
    /// Returns an error instead if `MANIFOLD_REQUIRE` contains its name.
    pub(crate) fn check(self) -> Result {
        let Self { name, is_installed, part, problem, package } = self;
        if is_installed { Ok(()) } else { skip(name, part, problem, &package.how_to()) }
    }
}

/// Returns whether the comma-separated `list` contains `name`.
fn contains(list: &str, name: &str) -> bool {
    list.split(',').any(|item| item.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_name_is_found_among_others() {
        assert!(contains("v8, docker", "docker"));
        assert!(contains("v8", "v8"));
        assert!(!contains("v8,docker", "dock"));
        assert!(!contains("", "v8"));
    }
}
