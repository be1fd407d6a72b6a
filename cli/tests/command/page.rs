//! The page of `manifold history`, in a real browser.

use std::fs;
use std::path::Path;

use manifold_testing::browser::{self, Page};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{git, manifold};

/// The number of commits. They are a day apart.
const COMMITS: usize = 9;
/// The commit without the path that is folded.
const GAP: usize = 4;

/// A repository with a growing directory `src`, which one commit does not have.
fn repository() -> TempDir {
    let root = TempDir::new().unwrap();
    git(root.path(), &["init", "--quiet", "--initial-branch=main", "."]);
    for number in 0..COMMITS {
        fs::create_dir_all(root.path().join("src")).unwrap();
        let lines = "fn f() {}\n// TODO: write\n".repeat(number + 1);
        fs::write(root.path().join("src/main.rs"), lines).unwrap();
        if number == GAP {
            fs::remove_dir_all(root.path().join("src")).unwrap();
        }
        git(root.path(), &["add", "--all"]);
        let date = format!("2024-05-{:02}T12:00:00Z", number + 1);
        commit(root.path(), &format!("change \"{number}\" <b>it</b>"), &date);
    }
    root
}

/// Commits what is in the index, be it nothing new.
fn commit(root: &Path, message: &str, date: &str) {
    let status = std::process::Command::new("git")
        .args(["-c", "user.name=test", "-c", "user.email=test@localhost"])
        .args(["commit", "--quiet", "--allow-empty", "--message", message])
        .envs([("GIT_AUTHOR_DATE", date), ("GIT_COMMITTER_DATE", date)])
        .current_dir(root)
        .status();
    assert!(status.unwrap().success());
}

/// Writes the page and opens it. Returns `None` if there is no browser.
fn open(root: &Path, place: &Path) -> Option<Page> {
    let program = browser::program()?;
    let history = ["history", "--json", "--path", "src", "--post", "lines-by-language"];
    let output = manifold(root, &[&history[..], &["--html", "page.html"]].concat());
    assert!(output.status.success());
    Some(Page::open(&program, place, &root.join("page.html")))
}

/// Returns the place in the window of a commit, as its number.
fn place_of(page: &mut Page, commit: usize) -> (f64, f64) {
    let place = page.value(&format!(
        "(() => {{ const box = plot.getBoundingClientRect();
            return [box.left + scales().x(commits[{commit}][TIME]), box.top + box.height / 2]; }})()"
    ));
    (place[0].as_f64().unwrap(), place[1].as_f64().unwrap())
}

/// Returns the numbers of the commits in view.
fn in_view(page: &mut Page) -> Vec<usize> {
    let commits = page.value(
        "commits.map((commit, index) => commit[TIME] >= from && commit[TIME] <= to ? index : null)
            .filter(index => index !== null)",
    );
    serde_json::from_value(commits).unwrap()
}

#[test]
fn the_page_of_a_history_shows_points_and_zooms() {
    let (root, place) = (repository(), TempDir::new().unwrap());
    let Some(mut page) = open(root.path(), place.path()) else { return };

    // Four columns of one language, and a gap in each line.
    let lines =
        page.value("[...plot.querySelectorAll('path.line')].map(line => line.getAttribute('d'))");
    let lines: Vec<String> = serde_json::from_value(lines).unwrap();
    assert_eq!(lines.len(), 4);
    for line in &lines {
        assert_eq!(
            (line.matches('M').count(), line.matches('L').count()),
            (2, COMMITS - 3),
            "{line}"
        );
    }
    assert_eq!(page.value("plot.querySelectorAll('line.gap').length"), 1);
    let labels = page.value("[...plot.querySelectorAll('text')].map(text => text.textContent)");
    let labels: Vec<String> = serde_json::from_value(labels).unwrap();
    assert!(labels.iter().any(|label| label == "2024-05-01"), "{labels:?}");
    assert!(labels.iter().any(|label| label == "2024-05-09"), "{labels:?}");
    assert_eq!(page.value("document.documentElement.scrollWidth <= innerWidth"), true);

    let third = place_of(&mut page, 2);
    page.mouse("mouseMoved", third, &json!({}));
    let note = page.value("note.hidden ? '' : note.innerText");
    let note = note.as_str().unwrap();
    assert!(note.contains("change \"2\" <b>it</b>"), "a subject is text: {note}");
    assert!(note.contains("2024-05-03") && note.contains("Rust code: 3"), "{note}");
    let gap = place_of(&mut page, GAP);
    page.mouse("mouseMoved", gap, &json!({}));
    let note = page.value("note.innerText");
    assert!(note.as_str().unwrap().contains("src is not in the commit"), "{note}");

    // The wheel zooms around its place, a drag to its range, a double click out again.
    assert_eq!(in_view(&mut page).len(), COMMITS);
    page.mouse("mouseWheel", third, &json!({ "deltaX": 0, "deltaY": -700 }));
    let _: Value = page.value("new Promise(done => requestAnimationFrame(() => done(0)))");
    let zoomed = in_view(&mut page);
    assert!(zoomed.contains(&2) && zoomed.len() < COMMITS, "{zoomed:?}");
    page.click(third, 2);
    assert_eq!(in_view(&mut page).len(), COMMITS);
    let (start, end) = (place_of(&mut page, 4), place_of(&mut page, 7));
    let held = json!({ "button": "left", "buttons": 1, "clickCount": 1 });
    page.mouse("mousePressed", (start.0 - 4.0, start.1), &held);
    page.mouse("mouseMoved", end, &held);
    page.mouse("mouseReleased", (end.0 + 4.0, end.1), &held);
    assert_eq!(in_view(&mut page), [4, 5, 6, 7]);

    // A box of the legend hides a line.
    let first = page.value(
        "(() => { const box = legend.querySelector('input').getBoundingClientRect();
            return [box.left + box.width / 2, box.top + box.height / 2]; })()",
    );
    page.click((first[0].as_f64().unwrap(), first[1].as_f64().unwrap()), 1);
    assert_eq!(page.value("plot.querySelectorAll('path.line').length"), 3);

    assert!(page.problems().is_empty(), "{:?}", page.problems());
    let requests = page.value("performance.getEntriesByType('resource').length");
    assert_eq!(requests, 0, "the page loads nothing");
}

#[test]
fn a_commit_with_a_time_that_is_no_date_is_shown() {
    let Some(program) = browser::program() else { return };
    let (root, place) = (repository(), TempDir::new().unwrap());
    commit(root.path(), "microseconds", "@1700000000000000 +0000");
    assert!(manifold(root.path(), &["history", "--html", "page.html"]).status.success());
    let mut page = Page::open(&program, place.path(), &root.path().join("page.html"));
    assert_eq!(page.value("plot.querySelectorAll('path.line').length"), 1);
    assert!(page.problems().is_empty(), "{:?}", page.problems());
}

#[test]
fn the_page_of_an_empty_history_is_no_error() {
    let Some(program) = browser::program() else { return };
    let (root, place) = (repository(), TempDir::new().unwrap());
    let arguments = ["history", "--since", "2099-01-01", "--html", "page.html"];
    assert!(manifold(root.path(), &arguments).status.success());
    let mut page = Page::open(&program, place.path(), &root.path().join("page.html"));
    assert_eq!(page.value("plot.querySelectorAll('path.line').length"), 0);
    assert!(page.problems().is_empty(), "{:?}", page.problems());
}
