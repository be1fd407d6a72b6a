//! Guests in TypeScript and JavaScript.

use std::fs;
use std::path::Path;

use manifold_dispatcher::DurableStore;
use tempfile::TempDir;

use crate::changes::{Change, check_all, check_engine};
use crate::{bench, fails, json, manifold, succeeds};

#[test]
fn several_languages_return_the_same_result() {
    let bench = bench();
    let report = json(bench.path(), &["fold", "tree", "--guest", "wasm,ts", "--json"]);
    assert_eq!(report["agree"], true);
    let guests = report["guests"].as_array().unwrap();
    assert_eq!(
        guests.iter().map(|guest| guest["guest"].as_str().unwrap()).collect::<Vec<_>>(),
        ["wasm", "ts"]
    );
    assert!(guests.iter().all(|guest| guest["result"]["text"] == "120\n"), "{report}");
    assert_eq!(guests[0]["repeats"][0]["runs"], guests[1]["repeats"][0]["runs"]);

    // With one visitor for both languages, the second fold gets all its visits from the memo.
    for post in ["file-count.wasm", "file-count.ts"] {
        let report =
            json(bench.path(), &["fold", "tree", "--guest", "wasm,ts", "--post", post, "--json"]);
        assert_eq!(report["guests"][0]["repeats"][0]["runs"], 200, "{report}");
        assert_eq!(report["guests"][1]["repeats"][0]["runs"], 40, "{report}");
    }
    let table = succeeds(bench.path(), &["fold", "tree", "--guest", "ts,wasm", "--repeat", "2"]);
    assert_eq!(
        table.lines().filter(|line| line.starts_with(" ts ") || line.starts_with(" wasm ")).count(),
        4,
        "{table}"
    );
    assert!(fails(bench.path(), &["fold", "--guest", "cobol"]).contains("wasm, ts"));
}

#[test]
fn a_file_or_directory_can_be_run_as_a_guest() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let shout = "import { get, tree } from 'manifold:guest';\n\
        export default async ({ args }: { args: string }) =>\n\
        new TextDecoder().decode(await get((await tree(args))[0]!.hash)).toUpperCase();\n";
    fs::write(path("shout.ts"), shout).unwrap();
    assert_eq!(
        succeeds(directory.path(), &["run", "shout.ts", "--text", "in=hello", "--raw"]),
        "HELLO"
    );
    fs::write(path("plain.js"), "export default () => 'plain';").unwrap();
    assert_eq!(succeeds(directory.path(), &["run", "plain.js", "--raw"]), "plain");

    fs::create_dir_all(path("guest/lib")).unwrap();
    fs::create_dir_all(path("guest/node_modules/typescript")).unwrap();
    fs::write(
        path("guest/main.ts"),
        "import { name } from './lib/name.ts';\nexport default () => `${name}`;",
    )
    .unwrap();
    fs::write(path("guest/lib/name.ts"), "export const name: string = 'a tree';").unwrap();
    fs::write(path("guest/node_modules/typescript/huge.js"), "no code").unwrap();
    assert_eq!(succeeds(directory.path(), &["run", "guest", "--raw"]), "a tree");

    fs::write(
        path("broken.ts"),
        "export default () => {\n  throw new Error('my own words');\n};\n",
    )
    .unwrap();
    let error = fails(directory.path(), &["run", "broken.ts"]);
    assert!(error.contains("my own words (main.ts:2:9 in default)"), "{error}");
}

#[test]
fn types_prints_the_declarations() {
    let types = succeeds(Path::new("."), &["types"]);
    assert!(types.contains("declare module \"manifold:guest\""), "{types}");
}

#[tokio::test]
async fn explanations_name_another_version_of_v8() {
    check_engine("ts", "engine").await;
}

#[test]
fn explanations_name_exactly_what_changed() {
    check_all("ts");
    let library = |root: &Path, name: &str| {
        fs::create_dir_all(root.join("v")).unwrap();
        let main = "import { putBlob } from 'manifold:guest';\n\
            import { name } from './name.ts';\nexport default () => putBlob(name);\n";
        fs::write(root.join("v/main.ts"), main).unwrap();
        fs::write(root.join("v/name.ts"), format!("export const name = '{name}';\n")).unwrap();
    };
    Change {
        prepare: &|root| library(root, "one"),
        change: &|root| library(root, "two"),
        options: &["--guest", "ts", "--post", "v"],
        differences: &["post: another module", "post name.ts changed"],
        ..Change::NONE
    }
    .check();
}

/// Guests are on threads of V8 when the command fails. A store that was not closed cannot be opened by
/// someone who may only read it.
#[test]
fn a_failing_command_closes_the_store() {
    let bench = bench();
    let failing =
        ["fold", "tree", "--guest", "ts", "--store", "store", "--total-runs", "5", "--recompute"];
    for _ in 0..4 {
        assert!(!manifold(bench.path(), &failing).status.success());
        let opened = DurableStore::options().read_only(true).open(bench.path().join("store"));
        assert!(opened.is_ok(), "{:?}", opened.err());
    }
}
