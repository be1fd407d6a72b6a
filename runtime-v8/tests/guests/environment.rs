//! The environment of a guest: its globals, and the settings in the host image.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use manifold_runtime_api::{Limits, Runtime};
use manifold_runtime_v8::V8Runtime;

use crate::Guests;

/// Returns the names in a row of the table in the backend's README.
fn documented(heading: &str) -> BTreeSet<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let row = readme.lines().find(|line| line.starts_with(&format!("| {heading} |"))).unwrap();
    row.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_globals_match_the_documentation() {
    let guests = Guests::new();
    let globals = guests
        .run("export default () => Reflect.ownKeys(globalThis).map(String).join(' ');")
        .await
        .unwrap();
    let globals: BTreeSet<_> = globals.split(' ').map(str::to_owned).collect();
    assert_eq!(globals, documented("available"));
    let absent = documented("not available");
    assert!(absent.len() > 10, "{absent:?}");
    for name in absent {
        let code = format!("export default () => `${{typeof ({name})}}`;");
        assert_eq!(guests.run(&code).await.unwrap(), "undefined", "{name}");
    }
    let exports =
        guests.run("import * as guest from 'manifold:guest'; export default () => Object.keys(guest).join(' ');").await;
    let declared: BTreeSet<_> = manifold_runtime_v8::DECLARATIONS
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("export function ")
                .or(line.trim().strip_prefix("export class "))
        })
        .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next())
        .collect();
    assert_eq!(
        exports.unwrap().split(' ').collect::<BTreeSet<_>>(),
        declared,
        "the declarations list every export"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_encoded_and_decoded_as_utf_8() {
    let guests = Guests::new();
    let code = "export default () => {
            const bytes = new TextEncoder().encode('ä€𝄞\\ud800');
            const fatal = (() => { try { return new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([255])); } catch (e) { return e.name; } })();
            return [bytes.length, new TextDecoder().decode(bytes), new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 65, 255])), fatal,
                new TextDecoder().decode(new DataView(bytes.buffer, 2, 3))].join();
        };";
    assert_eq!(guests.run(code).await.unwrap(), "12,ä€𝄞\u{fffd},A\u{fffd},TypeError,€");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamic_code_is_an_option_that_is_part_of_the_host_image() {
    let (strict, free) =
        (V8Runtime::new().unwrap(), V8Runtime::builder().dynamic_code(true).build().unwrap());
    assert_ne!(strict.host_image().id(), free.host_image().id());
    assert_eq!(
        strict.host_image().id(),
        V8Runtime::builder().threads(7).build().unwrap().host_image().id()
    );
    let free = Guests::with(free, Limits::default());
    assert_eq!(free.run("export default () => eval('`${6 * 7}`');").await.unwrap(), "42");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_image_lists_every_setting_that_affects_guests() {
    let runtime = V8Runtime::new().unwrap();
    let node = runtime.host_image().node();
    let text = format!("{node:?}");
    for setting in
        ["engine", "flags", "prelude", "abi", "transpiler", "locale", "time zone", "dynamic code"]
    {
        assert!(text.contains(setting), "{setting}: {text}");
    }
    // The version of the transpiler in the host image is written by hand.
    let lock =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock")).unwrap();
    let locked =
        lock.split_once("name = \"deno_ast\"\nversion = \"").unwrap().1.split_once('"').unwrap().0;
    assert!(text.contains(&format!("deno_ast {locked}")), "{text}");
}
