//! `manifold history`.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::{fails, git, manifold, succeeds};

/// A repository in which commit number `n` has `n + 1` files in `src`, and a line of text in each.
fn growing(commits: usize) -> TempDir {
    let root = TempDir::new().unwrap();
    git(root.path(), &["init", "--quiet", "--initial-branch=main", "."]);
    for number in 0..commits {
        fs::create_dir_all(root.path().join("src")).unwrap();
        fs::write(root.path().join(format!("src/{number}")), format!("file {number}\n")).unwrap();
        git(root.path(), &["add", "--all"]);
        git(root.path(), &["commit", "--quiet", "--message", &format!("commit \"{number}\", <b>")]);
    }
    root
}

fn rows(directory: &Path, arguments: &[&str]) -> Vec<Value> {
    let text = succeeds(directory, &[&["history", "--json"], arguments].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn values(rows: &[Value]) -> Vec<i64> {
    rows.iter().map(|row| row["value"].as_i64().unwrap()).collect()
}

#[test]
fn every_commit_has_a_value() {
    let root = growing(6);
    let all = rows(root.path(), &[]);
    assert_eq!(values(&all), [1, 2, 3, 4, 5, 6]);
    let ids = git(root.path(), &["rev-list", "--reverse", "HEAD"]);
    let ids: Vec<_> = ids.lines().map(Value::from).collect();
    assert_eq!(all.iter().map(|row| row["commit"].clone()).collect::<Vec<_>>(), ids);
    assert_eq!(all[3]["subject"], "commit \"3\", <b>");
    assert!(all[3]["time"].as_str().unwrap().starts_with("20"));
    // Each value is that of a fold of the revision.
    let fold = ["fold", ".", "--rev", "HEAD~2", "--post", "total-size", "--json"];
    let fold: Value = serde_json::from_str(&succeeds(root.path(), &fold)).unwrap();
    let sizes = values(&rows(root.path(), &["--post", "total-size"]));
    assert_eq!(fold["result"]["text"], format!("{}\n", sizes[3]));
    assert_eq!(sizes, values(&rows(root.path(), &["--post", "total-size", "--path", "src"])));
}

/// An outcome that is a tree or a table has several values.
#[test]
fn a_commit_can_have_several_values() {
    let root = growing(3);
    fs::write(root.path().join("main.rs"), "// TODO: write\n\nfn main() {}\n").unwrap();
    git(root.path(), &["add", "--all"]);
    git(root.path(), &["commit", "--quiet", "--message", "main"]);
    let all = rows(root.path(), &["--post", "todo-comments"]);
    assert_eq!(all[2]["value"], serde_json::json!({ "count": 0 }));
    assert_eq!(all[3]["value"], serde_json::json!({ "count": 1 }));
    let all = rows(root.path(), &["--post", "lines-by-language"]);
    assert_eq!(all[2]["value"], serde_json::json!({}));
    assert_eq!(all[3]["value"]["Rust code"], 1);
    let found = rows(root.path(), &["--post", "grep", "--text", "pattern=^file [12]$"]);
    let counts: Vec<_> = found.iter().map(|row| row["value"]["count"].clone()).collect();
    assert_eq!(counts, [0, 1, 2, 2]);
    let csv = succeeds(root.path(), &["history", "--csv", "--post", "lines-by-language"]);
    let columns = "Rust blanks,Rust code,Rust comments,Rust files";
    assert!(csv.starts_with(&format!("commit,time,subject,{columns},error\r\n")), "{csv}");
    assert!(csv.ends_with(",main,1,1,1,1,\r\n"), "{csv}");
}

#[test]
fn options_select_commits() {
    let root = growing(7);
    assert_eq!(values(&rows(root.path(), &["--every", "3"])), [1, 4, 7]);
    assert_eq!(values(&rows(root.path(), &["--rev", "HEAD~5..HEAD~1"])), [3, 4, 5, 6]);
    assert_eq!(values(&rows(root.path(), &["--rev", "HEAD~2.."])), [6, 7]);
    assert_eq!(values(&rows(root.path(), &["--rev", "HEAD~4"])), [1, 2, 3]);
    assert_eq!(values(&rows(root.path(), &["--since", "1 day ago"])).len(), 7);
    let none = manifold(root.path(), &["history", "--since", "2099-01-01"]);
    assert!(none.status.success() && none.stdout.is_empty());
    assert_eq!(String::from_utf8_lossy(&none.stderr), "note: there are no such commits\n");
    git(root.path(), &["checkout", "--quiet", "-b", "side", "HEAD~1"]);
    git(root.path(), &["commit", "--quiet", "--allow-empty", "--message", "beside"]);
    git(root.path(), &["checkout", "--quiet", "main"]);
    git(root.path(), &["merge", "--quiet", "--no-ff", "--message", "merge", "side"]);
    assert_eq!(rows(root.path(), &[]).len(), 9);
    assert_eq!(values(&rows(root.path(), &["--first-parent"])), [1, 2, 3, 4, 5, 6, 7, 7]);
    for (arguments, problem) in [
        (&["--rev", "no-such"][..], "\"no-such\" names nothing in the repository of ."),
        (&["--rev", &format!("{:040}..HEAD", 0)], "names nothing in the repository of ."),
        (&["--rev", &format!("{:040}", 17)], "names nothing in the repository of ."),
        (&["--rev", "HEAD:src"], "\"HEAD:src\" names a tree, not a commit"),
        (&["--rev", "HEAD:src..HEAD"], "\"HEAD:src\" names a tree, not a commit"),
        (&["--rev", "HEAD~2...HEAD"], "is a range that `history` does not support"),
        (&["--rev", "HEAD^!"], "is a range that `history` does not support"),
        (&["--rev", "HEAD^@"], "is a range that `history` does not support"),
        (&["--rev", "HEAD^!..HEAD"], "it is a range, not a single revision"),
        (&["--every", "0"], "--every"),
        (&["--since", "whenever"], "--since"),
        (&["--json", "--csv"], "--csv"),
    ] {
        let errors = manifold(root.path(), &[&["history"], arguments].concat());
        assert!(!errors.status.success());
        let errors = String::from_utf8_lossy(&errors.stderr).into_owned();
        assert!(errors.contains(problem), "{errors}");
    }
}

#[test]
fn a_commit_without_a_value_is_a_gap() {
    let root = growing(2);
    fs::create_dir(root.path().join("later")).unwrap();
    fs::write(root.path().join("later/f"), "f\n").unwrap();
    git(root.path(), &["add", "--all"]);
    git(root.path(), &["commit", "--quiet", "--message", "later"]);
    let output = manifold(root.path(), &["history", "--json", "--path", "later"]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "note: 2 of 3 commits have no value\n");
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows[0]["error"].as_str().unwrap().contains("later is not in the commit"), "{text}");
    assert!(rows[0].get("value").is_none() && rows[2].get("error").is_none());
    assert_eq!(rows[2]["value"], 1);
    // If none has a value, that is an error.
    let output = manifold(root.path(), &["history", "--path", "never"]);
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("HEAD has nothing at the path never"), "{errors}");
    assert_eq!(output.status.code(), Some(2));
    fails(&root.path().join(".."), &["history", "/"]);
}

#[test]
fn tables_and_comma_separated_values_have_a_line_for_each_commit() {
    let root = growing(3);
    let table = succeeds(root.path(), &["history"]);
    assert_eq!(table.lines().count(), 3);
    for (line, value) in table.lines().zip(1..) {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!((words[0].len(), words[2]), (12, &*value.to_string()), "{table}");
    }
    let csv = succeeds(root.path(), &["history", "--csv"]);
    let lines: Vec<_> = csv.split("\r\n").collect();
    assert_eq!(lines[0], "commit,time,subject,value,error");
    assert!(lines[1].contains(",\"commit \"\"0\"\", <b>\",1,"), "{csv}");
    assert_eq!(lines.len(), 5);

    // A value can be called as another column is.
    let license = "// SPDX-License-Identifier: time\n";
    fs::write(root.path().join("licensed.rs"), license).unwrap();
    git(root.path(), &["add", "--all"]);
    git(root.path(), &["commit", "--quiet", "--message", "licensed"]);
    let csv =
        succeeds(root.path(), &["history", "--csv", "--post", "licenses", "--rev", "HEAD~1.."]);
    assert!(csv.starts_with("commit,time,subject,value time,error\r\n"), "{csv}");
    assert!(csv.ends_with(",licensed,1,\r\n"), "{csv}");
}

#[test]
fn the_page_has_the_values_and_nothing_that_breaks_out() {
    let root = growing(3);
    git(root.path(), &["commit", "--quiet", "--allow-empty", "--message", "</script><img src=x>"]);
    succeeds(root.path(), &["history", "--html", "page.html"]);
    let page = fs::read_to_string(root.path().join("page.html")).unwrap();
    assert!(page.contains("commit \\\"2\\\"") && !page.contains("</script><img"), "{page}");
    assert!(!page.contains("http://") || page.matches("http://").count() == 1, "it loads nothing");
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    let data: Value = serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap();
    assert_eq!(data["commits"].as_array().unwrap().len(), 4);
    assert_eq!(data["commits"][2][3][0], 3.0);

    // The names of a branch and of a path are in the title.
    let branch = "x\"onload=\"alert(1)";
    git(root.path(), &["branch", branch]);
    fs::create_dir(root.path().join("{{data}}")).unwrap();
    fs::write(root.path().join("{{data}}/f"), "f\n").unwrap();
    git(root.path(), &["add", "--all"]);
    git(root.path(), &["commit", "--quiet", "--message", "{{title}}"]);
    let of_path = ["--path", "{{data}}", "--rev", "HEAD~1.."];
    for (arguments, commits) in [(&["--rev", branch][..], 4), (&of_path, 1)] {
        succeeds(root.path(), &[&["history", "--html", "page.html"], arguments].concat());
        let page = fs::read_to_string(root.path().join("page.html")).unwrap();
        assert!(!page.contains("x\"onload"), "{page}");
        let (_, data) = page.split_once("id=\"data\">").unwrap();
        let data = data.split_once("</script>").unwrap().0;
        let data: Value = serde_json::from_str(data).expect(data);
        assert_eq!(data["commits"].as_array().unwrap().len(), commits);
    }
    let errors = fails_to_write(root.path());
    assert!(errors.contains("cannot write"), "{errors}");
}

fn fails_to_write(directory: &Path) -> String {
    let output = manifold(directory, &["history", "--html", "no/such/page.html"]);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "nothing was folded before");
    String::from_utf8(output.stderr).unwrap()
}

/// What the commit reaches is missing from the output, and a script must be told.
#[test]
fn a_commit_that_cannot_be_read_is_an_error() {
    let root = growing(5);
    let damaged = git(root.path(), &["rev-parse", "HEAD~2"]);
    let file = root.path().join(".git/objects").join(&damaged[..2]).join(&damaged[2..]);
    fs::remove_file(file).unwrap();
    let output = manifold(root.path(), &["history", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("a commit in the repository of . cannot be read"), "{errors}");
    assert!(errors.contains(&damaged), "{errors}");
}

/// What was computed is not computed again.
#[test]
fn a_second_history_comes_from_the_store() {
    let root = growing(4);
    let history = ["history", "--json", "--store", "store"];
    let few_runs = [&history[..], &["--total-runs", "1"]].concat();
    assert!(!manifold(root.path(), &few_runs).status.success());
    let first = succeeds(root.path(), &history);
    assert_eq!(succeeds(root.path(), &few_runs), first);
    assert_eq!(succeeds(root.path(), &["pins", "--store", "store"]), "");
}
