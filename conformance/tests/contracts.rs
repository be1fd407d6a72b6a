//! The sentences that the checks quote are those of the documentation of the traits.

use std::path::Path;

use manifold_conformance::{runtime_checks, source_checks, store_checks};

/// Returns the texts of the source files of the crates with the contracts.
fn sources() -> Vec<String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut directories = vec![workspace.join("runtime-api/src"), workspace.join("dispatcher/src")];
    let mut sources = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                sources.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    sources
}

/// The documentation comments of a source text in one line, without links and code marks.
fn prose(source: &str) -> String {
    let lines = source.lines().map(str::trim).filter_map(|line| line.strip_prefix("///"));
    let text = lines.map(|line| line.trim().trim_start_matches("- ")).collect::<Vec<_>>().join(" ");
    let mut plain = String::new();
    let mut rest = text.as_str();
    // The target of a link follows its text in parentheses.
    while let Some((before, after)) = rest.split_once("](") {
        plain.push_str(before);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    let plain = plain.replace(['[', ']', '`'], "").replace("crate::", "");
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn quotes() -> Vec<(&'static str, &'static str)> {
    let runtime = runtime_checks().into_iter().map(|check| (check.name(), check.behavior()));
    let store = store_checks().into_iter().map(|check| (check.name(), check.behavior()));
    let source = source_checks().into_iter().map(|check| (check.name(), check.behavior()));
    runtime.chain(store).chain(source).collect()
}

#[test]
fn every_quote_is_in_the_documentation() {
    let documentation: Vec<_> = sources().iter().map(|source| prose(source)).collect();
    for (name, quote) in quotes() {
        let quote = quote.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            documentation.iter().any(|text| text.contains(&quote)),
            "the contract of {name} is not in the documentation: {quote}"
        );
    }
}

/// Returns the bullets under "# Behavior" in the documentation of the trait whose declaration
/// begins with `declaration`.
fn bullets(source: &str, declaration: &str) -> Vec<String> {
    let before = source.split(declaration).next().unwrap();
    let section = before.rsplit("/// # Behavior\n").next().unwrap();
    let lines = section.lines().take_while(|line| {
        let text = line.trim_start_matches("///").trim();
        line.starts_with("///") && !text.is_empty() && !text.starts_with('#')
    });
    let mut bullets: Vec<String> = Vec::new();
    for line in lines {
        match (line.strip_prefix("/// - "), bullets.last_mut()) {
            (None, Some(last)) => {
                last.push('\n');
                last.push_str(line);
            }
            (Some(_) | None, _) => bullets.push(line.to_owned()),
        }
    }
    bullets.iter().map(|bullet| prose(bullet)).collect()
}

#[test]
fn every_bullet_of_the_traits_has_a_check() {
    let sources = sources();
    for (declaration, count) in
        [("\npub trait Runtime", 4), ("\npub trait ObjectSource", 2), ("\npub trait Store", 3)]
    {
        let source = sources.iter().find(|source| source.contains(declaration)).unwrap();
        let bullets = bullets(source, declaration);
        assert_eq!(bullets.len(), count, "{declaration}: {bullets:?}");
        for bullet in bullets {
            assert!(
                quotes().iter().any(|(_, quote)| *quote == bullet),
                "no check quotes this sentence of `{declaration}`: {bullet}"
            );
        }
    }
}
