//! `--trace` and `manifold trace`.

use std::fs;
use std::path::Path;

use manifold_testing::browser::{self, Page};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{fails, git, succeeds};

/// A directory with `many` files beside a directory, and a trace of its fold in `trace`, all of which
/// a store in `store` remembers.
fn traced(many: usize) -> TempDir {
    let root = TempDir::new().unwrap();
    let input = root.path().join("input");
    fs::create_dir_all(input.join("below/deeper")).unwrap();
    for number in 0..many {
        fs::write(input.join(format!("file-{number}.txt")), format!("{number}\n")).unwrap();
    }
    fs::write(input.join("below/deeper/leaf <b>.txt"), "a leaf\n").unwrap();
    let fold = ["fold", "input", "--store", "store", "--trace", "trace", "--guest", "wasm"];
    succeeds(root.path(), &fold);
    root
}

fn view(root: &Path, options: &[&str]) -> String {
    succeeds(root, &[&["trace", "trace", "--store", "store"], options].concat())
}

fn values(root: &Path, options: &[&str]) -> Value {
    serde_json::from_str(&view(root, &[&["--json"], options].concat())).unwrap()
}

#[test]
fn a_trace_says_what_ran_and_where_the_time_went() {
    let root = traced(5);
    let summary = values(root.path(), &[]);
    // Six files and three directories, of which each is folded and visited.
    assert_eq!(summary["total"]["runs"], 6 + 2 * 3, "{summary}");
    let images = summary["images"].as_array().unwrap();
    let of = |name: &str| images.iter().find(|image| image["image"] == name).unwrap();
    assert_eq!(of("fold")["counts"]["runs"], 3);
    assert_eq!(of("file-count")["counts"]["runs"], 9);
    assert_eq!(of("fold")["runtime"], "wasmtime");
    let text = view(root.path(), &[]);
    assert!(text.contains("fold input") && text.contains("file-count  wasmtime"), "{text}");

    let path = values(root.path(), &["--critical-path"]);
    let steps = path["critical_path"]["steps"].as_array().unwrap();
    let sum: f64 = steps.iter().map(|step| step["seconds_on_path"].as_f64().unwrap()).sum();
    assert!((sum - steps[0]["seconds"].as_f64().unwrap()).abs() < 1e-6, "{path}");
    let text = view(root.path(), &["--critical-path"]);
    assert!(text.contains("what would have to be faster"), "{text}");

    let waterfall = values(root.path(), &["--waterfall"]);
    let rows = waterfall["waterfall"].as_array().unwrap();
    let row = |path: &str, image: &str| {
        let is_it =
            |row: &&Value| row["path"] == path && row["image"] == image && row["kind"] == "run";
        rows.iter().find(is_it).unwrap_or_else(|| panic!("{image} {path} in {rows:?}"))
    };
    assert_eq!(row("below/deeper/leaf <b>.txt", "file-count")["level"], 4);
    assert_eq!(row("below/deeper", "fold")["level"], 3);
    assert_eq!(row(".", "fold")["level"], 1);
    let request = row("below", "fold")["request"].as_str().unwrap().to_owned();
    let below = values(root.path(), &["--waterfall", &request[..10]]);
    assert_eq!(below["waterfall"][0]["path"], "below");
    assert_eq!(below["waterfall"].as_array().unwrap().len(), 5);
    let text = view(root.path(), &["--waterfall"]);
    assert!(text.contains("fold below/deeper") && text.contains('█'), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");

    let slowest = values(root.path(), &["--slowest", "3"]);
    assert_eq!(slowest["slowest"].as_array().unwrap().len(), 3);
    assert_eq!(view(root.path(), &["--slowest", "2"]).lines().count(), 3);
}

#[test]
fn a_trace_is_written_for_perfetto() {
    let root = traced(5);
    assert_eq!(view(root.path(), &["--perfetto", "events.json"]), "");
    let events = fs::read(root.path().join("events.json")).unwrap();
    let events: Value = serde_json::from_slice(&events).unwrap();
    let events = events["traceEvents"].as_array().unwrap();
    let runs: Vec<_> = events.iter().filter(|event| event["cat"] == "run").collect();
    assert_eq!(runs.len(), 6 + 2 * 3);
    assert!(runs.iter().any(|run| run["name"] == "fold" && run["args"]["in"] == "below"));
}

#[test]
fn a_failing_command_leaves_a_trace_with_the_error() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("bad.wasm"), "no wasm").unwrap();
    let run = ["run", "bad.wasm", "--no-store", "--trace", "trace"];
    fails(root.path(), &run);
    let waterfall = values(root.path(), &["--waterfall"]);
    let rows = waterfall["waterfall"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{waterfall}");
    assert!(rows[1]["error"].as_str().unwrap().contains("WebAssembly"), "{waterfall}");
    assert_eq!(rows[1]["image"], "bad.wasm");
    assert!(view(root.path(), &["--waterfall"]).contains("bad.wasm FAILED"));
}

#[test]
fn what_is_no_trace_or_not_in_it_is_an_error() {
    let root = traced(1);
    let trace = |arguments: &[&str]| fails(root.path(), &[&["trace"], arguments].concat());
    assert!(trace(&["missing"]).contains("missing"));
    fs::write(root.path().join("text"), "some text that is long enough").unwrap();
    assert!(trace(&["text"]).contains("text is not a trace"));
    assert!(trace(&["trace", "--waterfall", "ffffffffffff"]).contains("no span of a request"));
    assert!(trace(&["trace", "--waterfall", ""]).contains("no span of a request"));
    assert!(trace(&["trace", "--html", "missing/page.html"]).contains("missing/page.html"));
    let error = fails(root.path(), &["fold", "input", "--no-store", "--trace", "missing/trace"]);
    assert!(error.contains("missing/trace"), "{error}");
}

/// Turns the wheel until the page has drawn again.
fn turn_wheel(page: &mut Page, place: (f64, f64), turns: f64) {
    page.mouse("mouseWheel", place, &json!({ "deltaX": 0, "deltaY": turns }));
    let _: Value = page.value("new Promise(done => requestAnimationFrame(() => done(0)))");
}

fn length_in_view(page: &mut Page) -> f64 {
    page.value("view.to - view.from").as_f64().unwrap()
}

#[test]
fn the_page_of_a_trace_renders_zooms_and_finds_requests() {
    let Some(program) = browser::program() else { return };
    let (root, place) = (traced(300), TempDir::new().unwrap());
    view(root.path(), &["--html", "page.html"]);
    let mut page = Page::open(&program, place.path(), &root.path().join("page.html"));

    // The root call spans the whole width, and the summary is there.
    let drawn = page.value("JSON.parse(document.body.dataset.view).boxes").as_u64().unwrap();
    assert!(drawn > 20, "{drawn}");
    let colours = page.value(
        "new Set(new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size",
    );
    assert!(colours.as_u64().unwrap() > 3, "the canvas is not blank: {colours}");
    let summary = page.value("document.getElementById('summary').innerText");
    let summary = summary.as_str().unwrap();
    assert!(summary.contains("file-count") && summary.contains("Critical path"), "{summary}");
    assert_eq!(page.value("document.documentElement.scrollWidth <= innerWidth"), true);

    // The wheel zooms around its place, a drag moves what is in view, the button shows everything.
    let all = length_in_view(&mut page);
    turn_wheel(&mut page, (300.0, 300.0), -300.0);
    let zoomed = length_in_view(&mut page);
    assert!((zoomed - all / std::f64::consts::E).abs() < all / 100.0, "{zoomed} of {all}");
    let from = page.value("view.from").as_f64().unwrap();
    let held = json!({ "button": "left", "buttons": 1, "clickCount": 1 });
    page.mouse("mousePressed", (300.0, 300.0), &held);
    page.mouse("mouseMoved", (200.0, 300.0), &held);
    page.mouse("mouseReleased", (200.0, 300.0), &held);
    assert!(page.value("view.from").as_f64().unwrap() > from);
    page.value("document.getElementById('all').click()");
    assert_eq!(length_in_view(&mut page), all);

    // A request is found by its digits, a file by its name, which is text.
    let waterfall = values(root.path(), &["--waterfall", "--lines", "1000"]);
    let rows = waterfall["waterfall"].as_array().unwrap();
    let leaf = "below/deeper/leaf <b>.txt";
    let request = rows.iter().find(|row| row["path"] == leaf).unwrap()["request"].as_str().unwrap();
    for wanted in [request, "leaf <b>"] {
        let search = format!(
            "(() => {{ const search = document.getElementById('search'); search.value = {};
               search.dispatchEvent(new Event('input'));
               search.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'Enter' }}));
               return [document.getElementById('found').textContent,
                       document.getElementById('details').innerText]; }})()",
            json!(wanted)
        );
        let found = page.value(&search);
        assert_eq!(found[0], "1 found");
        let details = found[1].as_str().unwrap();
        assert!(details.contains(leaf) && details.contains(request), "{details}");
        assert!(details.contains("compute"), "{details}");
    }
    assert!(length_in_view(&mut page) < all / 2.0, "the page zooms to what is found");

    // The other view, the other colours, and the critical path.
    let choose = |name: &str, value: &str| {
        format!(
            "(() => {{ const choice = document.getElementById('{name}'); choice.value = '{value}';
               choice.dispatchEvent(new Event('change')); return choice.value; }})()"
        )
    };
    assert_eq!(page.value(&choose("colour", "outcome")), "outcome");
    let legend = page.value("document.getElementById('legend').innerText");
    assert!(legend.as_str().unwrap().contains("run"), "{legend}");
    page.value("document.getElementById('critical').click()");
    assert_eq!(page.value(&choose("view", "icicle")), "icicle");
    let _: Value = page.value("new Promise(done => requestAnimationFrame(() => done(0)))");
    let boxes = page.value("boxes.map(box => box[3].key)");
    let boxes: Vec<String> = serde_json::from_value(boxes).unwrap();
    assert!(boxes.iter().any(|key| key == "fold"), "{boxes:?}");
    assert!(page.problems().is_empty(), "{:?}", page.problems());
    let requests = page.value("performance.getEntriesByType('resource').length");
    assert_eq!(requests, 0, "the page loads nothing");
}

#[test]
fn a_history_is_traced_with_a_root_call_for_each_commit() {
    let root = TempDir::new().unwrap();
    git(root.path(), &["init", "--quiet", "--initial-branch=main", "."]);
    for number in 0..3 {
        fs::write(root.path().join("file"), number.to_string()).unwrap();
        git(root.path(), &["add", "--all"]);
        git(root.path(), &["commit", "--quiet", "--message", "change"]);
    }
    succeeds(root.path(), &["history", "--no-store", "--json", "--trace", "trace"]);
    let summary = values(root.path(), &[]);
    assert_eq!(summary["total"]["calls"], 3, "{summary}");
    assert!(summary["ended"].as_bool().unwrap());
}

#[test]
fn a_trace_replaces_no_other_file() {
    let root = traced(3);
    fs::write(root.path().join("data"), "work of a day\n").unwrap();
    let errors = fails(root.path(), &["fold", ".", "--trace", "data"]);
    assert!(errors.contains("it exists and is not a trace"), "{errors}");
    assert_eq!(fs::read(root.path().join("data")).unwrap(), b"work of a day\n");
    let trace = fs::read(root.path().join("trace")).unwrap();
    for output in ["--html", "--perfetto"] {
        let errors = fails(root.path(), &["trace", "trace", output, "./trace"]);
        assert!(errors.contains("it is the trace"), "{errors}");
    }
    assert_eq!(fs::read(root.path().join("trace")).unwrap(), trace);
    succeeds(root.path(), &["fold", "data", "--trace", "trace"]);
    assert_ne!(fs::read(root.path().join("trace")).unwrap(), trace, "a trace is replaced");
}
