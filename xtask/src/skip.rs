//! Parts of a command that are skipped because something that they need is missing.

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
