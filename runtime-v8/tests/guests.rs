//! TypeScript and JavaScript guests: their entry, modules, globals, errors, determinism and limits.

#[path = "guests/modules.rs"]
mod modules;
#[path = "guests/published_packages.rs"]
mod published_packages;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Dispatcher, Event, Invocation, Observer, Policy};
use manifold_runtime_api::{
    EntryMode, Limit, Limits, ObjectId, ObjectRef, Reason, Result, Runtime, TreeEntry,
};
use manifold_runtime_v8::V8Runtime;

/// Records the log messages of guests.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Logged { message, .. } = event {
            self.0.lock().unwrap().push((*message).to_owned());
        }
    }
}

struct Guests {
    dispatcher: Dispatcher,
    host: ObjectId,
    log: Arc<Log>,
}

impl Guests {
    fn new() -> Self {
        Self::with(V8Runtime::new().unwrap(), Limits::default())
    }

    fn with(runtime: V8Runtime, limits: Limits) -> Self {
        let log = Arc::new(Log::default());
        let host = runtime.host_image().id();
        let builder = Dispatcher::builder().runtime(runtime).limits(limits);
        let dispatcher = builder.observer(Arc::clone(&log)).build().unwrap();
        Self { dispatcher, host, log }
    }

    fn tree(&self, files: &[(&str, &str)]) -> ObjectId {
        let entries = files.iter().map(|(path, text)| match path.split_once('/') {
            None => TreeEntry::new(
                *path,
                EntryMode::Blob,
                self.dispatcher.put_blob((*text).to_owned()).unwrap(),
            ),
            Some((directory, path)) => {
                TreeEntry::new(directory, EntryMode::Tree, self.tree(&[(path, text)]))
            }
        });
        self.dispatcher.put_tree(entries.collect::<Vec<_>>()).unwrap()
    }

    async fn run_module(&self, module: ObjectRef, policy: Policy) -> Result<ObjectRef> {
        let image = self.dispatcher.put_image(self.host, module)?;
        let hello = ObjectRef::blob(self.dispatcher.put_blob("hello")?);
        let args = self.dispatcher.put_tree([argument("in", hello)])?;
        let invocation = Invocation::new(image).args(args).salt("pinch").policy(policy);
        Ok(self.dispatcher.run(invocation).await?.outcome)
    }

    /// Runs a guest of one file and returns its outcome as text.
    async fn run(&self, code: &str) -> Result<String> {
        let module = ObjectRef::blob(self.dispatcher.put_blob(code.to_owned())?);
        Ok(self.text(self.run_module(module, Policy::Reuse).await?))
    }

    /// Runs a guest that is a tree of files and returns its outcome as text.
    async fn run_tree(&self, files: &[(&str, &str)]) -> Result<String> {
        let module = ObjectRef::tree(self.tree(files));
        Ok(self.text(self.run_module(module, Policy::Reuse).await?))
    }

    fn text(&self, outcome: ObjectRef) -> String {
        String::from_utf8_lossy(&self.dispatcher.read(outcome.id).unwrap().content).into_owned()
    }

    /// Runs a guest that fails and returns its error message.
    async fn fails(&self, code: &str) -> String {
        self.run(code).await.unwrap_err().to_string()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_can_return_text_bytes_tree_entries_an_outcome_or_nothing_after_out() {
    let guests = Guests::new();
    assert_eq!(guests.run("export default () => 'täxt';").await.unwrap(), "täxt");
    assert_eq!(
        guests.run("export default async () => new Uint8Array([104, 105]);").await.unwrap(),
        "hi"
    );
    let subarray = "export default () => new Uint8Array([1, 104, 105, 2]).subarray(1, 3);";
    assert_eq!(guests.run(subarray).await.unwrap(), "hi");
    let outcome = "import { putBlob } from 'manifold:guest';
        export default async () => ({ kind: 'blob', hash: await putBlob('named') });";
    assert_eq!(guests.run(outcome).await.unwrap(), "named");
    let out = "import { out, putBlob } from 'manifold:guest';
        export default async () => { out('blob', await putBlob('early')); };";
    assert_eq!(guests.run(out).await.unwrap(), "early");

    let entries = "import { putBlob } from 'manifold:guest';
        const nameBytes = new Uint8Array([0xff]);
        export default async () => [
            { name: 'z', mode: '100755', hash: await putBlob('run me') },
            { nameBytes, kind: 'blob', hash: await putBlob('') },
            { name: 'a', kind: 'tree', hash: '4b825dc642cb6eb9a060e54bf8d69288fbee4904' },
        ];";
    let module = ObjectRef::blob(guests.dispatcher.put_blob(entries).unwrap());
    let outcome = guests.run_module(module, Policy::Reuse).await.unwrap();
    let tree = guests.dispatcher.read_tree(outcome.id).unwrap();
    let entries: Vec<_> =
        tree.entries().iter().map(|entry| (entry.name.to_vec(), entry.mode)).collect();
    let expected = [
        (b"a".to_vec(), EntryMode::Tree),
        (b"z".to_vec(), EntryMode::Executable),
        (vec![0xff], EntryMode::Blob),
    ];
    assert_eq!(entries, expected);

    let twice = "import { out, putBlob } from 'manifold:guest';
        export default async () => { const b = await putBlob(''); await out('blob', b); return 'more'; };";
    assert!(matches!(guests.run(twice).await.unwrap_err().reason(), Reason::OutcomeTwice));
    let none = guests.run("export default () => {};").await.unwrap_err();
    assert!(matches!(none.reason(), Reason::NoOutcome), "{none}");
    let fail = "import { fail } from 'manifold:guest'; export default async () => { await fail('my words'); };";
    assert_eq!(guests.fails(fail).await, "my words");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_receives_its_job_and_round_trips_tree_entries() {
    let guests = Guests::new();
    let job = "export default (job) => JSON.stringify(job);";
    let image = guests.dispatcher.put_blob(job).unwrap();
    let image = guests.dispatcher.put_image(guests.host, ObjectRef::blob(image)).unwrap();
    let told = guests.run(job).await.unwrap();
    assert!(told.contains(&format!(r#""salt":"pinch","image":"{image}""#)), "{told}");
    assert!(told.contains(r#""std":"""#), "{told}");

    let names = [&b"plain"[..], "ümlaut".as_bytes(), b"\xff\xfe"];
    let entries = names.map(|name| {
        TreeEntry::new(name, EntryMode::Symlink, guests.dispatcher.put_blob("to").unwrap())
    });
    let id = guests.dispatcher.put_tree(entries).unwrap();
    let code = format!(
        "import {{ putTree, tree }} from 'manifold:guest';
        export default async () => {{
            const entries = await tree('{id}');
            const again = await putTree(entries);
            return JSON.stringify([again === '{id}', entries.map(e => [e.name, e.kind, e.mode, e.nameBytes?.length])]);
        }};"
    );
    let seen = guests.run(&code).await.unwrap();
    let expected = r#"[true,[["plain","blob","120000",null],["ümlaut","blob","120000",null],["\\xFF\\xFE","blob","120000",2]]]"#;
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_module_can_import_only_each_other() {
    let guests = Guests::new();
    let files = [
        (
            "main.ts",
            "import { twice } from './lib/twice.ts'; import type { Text } from './types.ts'; export default (): Text => twice('a');",
        ),
        ("types.ts", "export type Text = string;"),
        (
            "lib/twice.ts",
            "import { once } from '../once.mjs'; export const twice = (text: string) => once(text) + once(text);",
        ),
        ("once.mjs", "export const once = (text) => `(${text})`;"),
        ("unused.ts", "this is no code"),
        ("readme.md", "nor is this"),
    ];
    assert_eq!(guests.run_tree(&files).await.unwrap(), "(a)(a)");
    let javascript = [
        (
            "main.js",
            "import { a } from './a.js'; export default () => a; export const b = 'round';",
        ),
        ("a.js", "import { b } from './main.js'; export const a = { toString: () => b } + '';"),
    ];
    let error = guests.run_tree(&javascript).await.unwrap_err().to_string();
    assert!(
        error.contains("Cannot access 'b' before initialization (a.js:1:"),
        "a cycle of imports behaves as in JavaScript: {error}"
    );

    for (main, problem) in [
        ("import './missing.ts'; export default () => '';", "the module has no file missing.ts"),
        ("import './lib/../../x.ts'; export default () => '';", "outside the module's tree"),
        ("import '/etc/passwd'; export default () => '';", "by a relative path"),
        ("import './readme.md'; export default () => '';", "only files that end in .ts"),
        ("import 'npm:left-pad'; export default () => '';", "by a relative path"),
        ("export default () => <b>hi</b>;", "main.ts:1:"),
        ("let a: = 1;", "main.ts:1:8: SyntaxError"),
    ] {
        let error = guests.run_tree(&[("main.ts", main), ("readme.md", "")]).await.unwrap_err();
        assert!(matches!(error.reason(), Reason::BadModule { .. }), "{error:?}");
        assert!(error.to_string().contains(problem), "{main}: {error}");
    }
    let nothing = guests.run_tree(&[("other.ts", "")]).await.unwrap_err().to_string();
    assert!(nothing.contains("has no file main.ts"), "{nothing}");
    let wrong = guests
        .fails("import { nothing } from 'manifold:guest'; export default () => nothing;")
        .await;
    assert!(wrong.contains("nothing"), "{wrong}");

    let mut limits = Limits::default();
    limits.module_bytes = 1000;
    let small = Guests::with(V8Runtime::new().unwrap(), limits);
    let error =
        small.run(&format!("export default () => '{}';", "x".repeat(1000))).await.unwrap_err();
    assert!(matches!(error.breached_limit(), Some(Limit::Module { bytes: 1000, .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_has_the_guests_message_file_and_line() {
    let guests = Guests::new();
    let files = [
        (
            "main.ts",
            "import { check } from './lib/check.ts';\n\ninterface Input { size: number }\n\nexport default async (): Promise<string> => {\n  const input: Input = { size: 3 };\n  await null;\n  return check(input.size);\n};\n",
        ),
        (
            "lib/check.ts",
            "enum Size { Small = 1 }\n\n// Checks.\nexport function check(size: number): string {\n  if (size > Size.Small) {\n    throw new RangeError(`${size} is too much`);\n  }\n  return '';\n}\n",
        ),
    ];
    let error = guests.run_tree(&files).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "RangeError: 3 is too much (lib/check.ts:6:11 in check ← main.ts:8:10 in default)"
    );

    let plain = "export default () => {\n  throw new Error('plain');\n};";
    assert_eq!(guests.fails(plain).await, "plain (main.ts:2:9 in default)");
    assert_eq!(guests.fails("export default () => { throw 'a text'; };").await, "a text");
    let missing = guests.fails("import { get } from 'manifold:guest';\nexport default async () =>\n  await get('0123456789012345678901234567890123456789');").await;
    assert!(
        missing.contains("0123456789012345678901234567890123456789")
            && missing.contains("main.ts:3:"),
        "{missing}"
    );
    let id = guests
        .fails("import { tree } from 'manifold:guest'; export default () => tree('me');")
        .await;
    assert!(id.contains("operation tree: `hash`"), "{id}");
    let text = guests
        .fails("import { run } from 'manifold:guest'; export default () => run(5, 'x');")
        .await;
    assert!(text.contains("operation run: `image` must be a string, not number"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_can_inspect_the_error_of_an_operation() {
    let guests = Guests::new();
    let code = "import { ManifoldError, putTree, run, runMany, tree } from 'manifold:guest';
        export default async () => {
            const nothing = await putTree([]), requests = [{ image: '/cas/std/none', args: nothing }];
            const [{ error }] = await runMany(requests);
            const caught = await run('/cas/std/none', nothing).catch((error) => error);
            const wrong = await tree('e69de29bb2d1d6434b8b29ae775ad8c2e48c5391').catch((error) => error);
            return [error, caught, wrong].map((e) => [e instanceof ManifoldError, e.kind, e.chain.length > 0]).join(' ');
        };";
    assert_eq!(
        guests.run(code).await.unwrap(),
        "true,request,true true,request,true true,request,true"
    );
}

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

/// A guest that returns everything it can observe of the clock, random numbers, locale, time zone,
/// processor and globals.
const WITNESS: &str = r#"
    function reachable(from: object, path: string, seen: Set<unknown>): string[] {
        if (seen.has(from)) return [];
        seen.add(from);
        const properties = Object.entries(Object.getOwnPropertyDescriptors(from)).flatMap(([name, property]) =>
            [property.value, property.get, property.set].filter((value) => value && /object|function/.test(typeof value))
                .flatMap((value) => reachable(value, `${path}.${name}`, seen)));
        return [`${path}: ${Reflect.ownKeys(from).map(String)}`, ...properties];
    }
    const f64 = new Float64Array(1), bytes = new Uint8Array(f64.buffer);
    function notANumber(x: number) { f64[0] = x / (x * 1); return bytes.join(); }
    export default async () => {
        const seen = new Set<string>();
        for (let i = 0; i < 100_000; i++) seen.add(notANumber(0));
        const error = new Error("here");
        return JSON.stringify([
            Date.now(), new Date(), Date(), new Date(2020, 6, 1).getTime(), new Date("2020-07-01T00:00").getTimezoneOffset(),
            new Date(0).toLocaleString(), (1234567.891).toLocaleString(), ["ä", "z", "a"].sort((a, b) => a.localeCompare(b)),
            new Date(0).toLocaleDateString("de", { dateStyle: "full" }), new Date(0).toLocaleTimeString(undefined, { timeZoneName: "short" }),
            [1, 2, 3].map(Math.random), [...seen], error.stack,
            reachable(globalThis, "", new Set()), new Date(86_400_000) instanceof Date, Object.prototype.toString.call(new Date(5)), Date.UTC(1970), Date.length, Date.name,
        ]);
    };"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_a_guest_observes_is_a_function_of_the_key() {
    let guests = Guests::new();
    let module = ObjectRef::blob(guests.dispatcher.put_blob(WITNESS).unwrap());
    let first = guests.text(guests.run_module(module, Policy::DoNotCache).await.unwrap());
    let seen: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(seen[0], 0);
    assert_eq!(seen[1], "1970-01-01T00:00:00.000Z");
    assert_eq!(seen[2], "Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)");
    assert_eq!(seen[4], 0);
    assert_eq!(seen[5], "1/1/1970, 12:00:00 AM");
    assert_eq!(seen[8], "Donnerstag, 1. Januar 1970");
    assert!(seen[9].as_str().unwrap().ends_with("UTC"), "{seen}");
    assert_eq!(
        seen[11].as_array().unwrap().len(),
        1,
        "the bits of a NaN change with the number of iterations: {}",
        seen[11]
    );
    for _ in 0..20 {
        // Independent of earlier jobs in this isolate or another, and of jobs that run beside it.
        let (again, _) = tokio::join!(
            guests.run_module(module, Policy::DoNotCache),
            guests.fails("export default () => { Math.random(); throw 1; };")
        );
        assert_eq!(guests.text(again.unwrap()), first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn globals_prepared_ahead_equal_those_created_on_demand() {
    let guests = Guests::with(V8Runtime::builder().threads(1).build().unwrap(), Limits::default());
    let module = ObjectRef::blob(guests.dispatcher.put_blob(WITNESS).unwrap());
    let witness =
        async || guests.text(guests.run_module(module, Policy::DoNotCache).await.unwrap());
    // A new thread has prepared nothing ahead.
    let on_demand = witness().await;
    assert!(on_demand.contains(".Array.prototype: "), "{on_demand}");
    assert!(!on_demand.contains("Temporal"), "{on_demand}");
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        // The first of them gets the globals that were prepared in the meantime.
        for seen in join_all((0..4).map(|_| witness())).await {
            assert_eq!(seen, on_demand);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_leaves_no_state_for_the_next_one() {
    let guests = Guests::with(V8Runtime::builder().threads(1).build().unwrap(), Limits::default());
    let spoil = "import * as guest from 'manifold:guest';
        globalThis.leftover = Symbol.for('leftover').leftover = 1;
        Array.prototype.leftover = Object.prototype.leftover = guest.tree.leftover = Math.leftover = 1;
        Array.prototype.map = () => ['spoilt'];
        Promise.prototype.then = undefined;
        export default () => 'spoilt';";
    let look = "import * as guest from 'manifold:guest';
        export default () => [
            typeof leftover, [].leftover, ({}).leftover, guest.tree.leftover, Math.leftover, Symbol.for('leftover').leftover,
            [1].map((one) => one + 1),
        ].join();";
    let before = guests.run(look).await.unwrap();
    assert_eq!(before, "undefined,,,,,,2");
    for round in 0..50 {
        assert_eq!(guests.run(&format!("{spoil} // {round}")).await.unwrap_or_default(), "");
        assert_eq!(guests.run(&format!("{look} // {round}")).await.unwrap(), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_arrive_in_an_order_that_only_the_guest_determines() {
    let guests = Guests::new();
    let slow = "export default () => { let n = 0; for (let i = 0; i < 2_000_000; i++) n += i; return `slow`; };";
    let fast = "export default () => 'fast';";
    let image = |code: &str| {
        let module = ObjectRef::blob(guests.dispatcher.put_blob(code.to_owned()).unwrap());
        guests.dispatcher.put_image(guests.host, module).unwrap()
    };
    let racer = format!(
        "import {{ get, putTree, run }} from 'manifold:guest';
        export default async () => {{
            const args = await putTree([]), order = [];
            const follow = async (name, promise) => {{ await promise; order.push(name); }};
            await Promise.all([
                follow('slow', run('{}', args)), follow('fast', run('{}', args)),
                follow('tree', putTree([])), follow('again', run('{}', args)),
            ]);
            const first = await Promise.race([run('{}', args), run('{}', args)]);
            return [...order, new TextDecoder().decode(await get(first.hash))].join(' ');
        }};",
        image(slow),
        image(fast),
        image(fast),
        image(slow),
        image(fast),
    );
    let module = ObjectRef::blob(guests.dispatcher.put_blob(racer).unwrap());
    for _ in 0..10 {
        let outcome = guests.run_module(module, Policy::RecomputeAll).await.unwrap();
        assert_eq!(guests.text(outcome), "tree slow fast again slow");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn console_writes_to_the_log_which_has_a_limit() {
    let mut limits = Limits::default();
    limits.log_bytes = 100;
    let guests = Guests::with(V8Runtime::new().unwrap(), limits);
    let code = "import { log } from 'manifold:guest';
        export default () => {
            log('one'); console.warn('two', 2, { three: [3] }, null, undefined);
            for (let i = 0; i < 1000; i++) console.log('x'.repeat(30));
            return '';
        };";
    guests.run(code).await.unwrap();
    let log = guests.log.0.lock().unwrap().clone();
    assert_eq!(
        log[..3],
        ["one".to_owned(), r#"two 2 {"three":[3]} null undefined"#.to_owned(), "x".repeat(30)]
    );
    assert!(log.len() < 8 && log.last().unwrap().contains("is dropped"), "{log:?}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deeply_nested_code_runs_or_is_a_typed_error() {
    let guests = Guests::new();
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{a:", "}"),
        ("!", ""),
        ("a=>", ""),
        ("1+", "1"),
        ("1?", ":1"),
        ("if(1);else ", ";"),
        ("class A{a=", "}"),
        ("`${", "}`"),
    ] {
        for depth in [1_000, 100_000, 1_000_000] {
            let code = format!(
                "export const a = {}1{}; export default () => 'ok';",
                open.repeat(depth),
                close.repeat(depth)
            );
            match guests.run(&code).await {
                Ok(answer) => assert_eq!(answer, "ok"),
                Err(error) => assert!(
                    matches!(
                        error.reason(),
                        Reason::BadModule { .. }
                            | Reason::GuestFailed { .. }
                            | Reason::LimitBreached(_)
                    ),
                    "{open} {depth} {error}"
                ),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whether_a_job_fails_does_not_depend_on_the_speed_of_nested_runs() {
    let guests = Guests::new();
    let image = |code: &str| {
        let module = ObjectRef::blob(guests.dispatcher.put_blob(code.to_owned()).unwrap());
        guests.dispatcher.put_image(guests.host, module).unwrap()
    };
    let slow = "let n = 0; for (let i = 0; i < 500_000; i++) n += i;";
    for (first, second) in [(slow, ""), ("", slow)] {
        let bad = image(&format!("export default () => {{ {first} throw new Error('bad'); }};"));
        let good = image(&format!("export default () => {{ {second} return 'good'; }};"));
        // `bad` is requested first, so the guest receives its error first, before it awaits the
        // promise.
        let code = format!(
            "import {{ putTree, run }} from 'manifold:guest';
            export default async () => {{
                const args = await putTree([]), bad = run('{bad}', args), good = run('{good}', args);
                await good;
                try {{ await bad; }} catch {{}}
                return 'survived';
            }};"
        );
        let module = ObjectRef::blob(guests.dispatcher.put_blob(code).unwrap());
        for _ in 0..5 {
            let error = guests.run_module(module, Policy::RecomputeAll).await.unwrap_err();
            assert!(error.to_string().contains("bad"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_cannot_survive_a_breached_limit() {
    let mut limits = Limits::default();
    (limits.memory_bytes, limits.guest_request_bytes) = (16 << 20, 1000);
    let guests = Guests::with(V8Runtime::new().unwrap(), limits);
    let request = "import { putBlob } from 'manifold:guest';
        export default async () => { try { await putBlob('ä'.repeat(600)); } catch { return 'caught'; } return 'done'; };";
    let error = guests.run(request).await.unwrap_err();
    assert!(matches!(error.breached_limit(), Some(Limit::GuestRequest { bytes: 1000 })), "{error}");
    for buffers in [
        "export default () => { try { new Uint8Array(2 ** 31); } catch {} new Uint8Array(1000); return 'caught'; };",
        "export default () => { try { new TextEncoder().encode('x'.repeat(2 ** 25)); } catch {} new Uint8Array(1000); return 'caught'; };",
    ] {
        let error = guests.run(buffers).await.unwrap_err();
        assert!(matches!(error.breached_limit(), Some(Limit::Memory { .. })), "{error}");
    }
    // Memory that is garbage does not count toward the limit.
    let garbage = "export default () => { for (let i = 0; i < 200; i++) new Uint8Array(1 << 20); return 'fine'; };";
    assert_eq!(guests.run(garbage).await.unwrap(), "fine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_and_message_of_a_failing_guest_are_kept() {
    let guests = Guests::new();
    assert!(
        guests
            .fails("export default () => { console.log('before'); throw new Error('x'); };")
            .await
            .starts_with('x')
    );
    assert_eq!(*guests.log.0.lock().unwrap(), ["before"]);
    let fail = "import { fail } from 'manifold:guest'; export default () => { fail('my words'); throw new Error('x'); };";
    assert_eq!(guests.fails(fail).await, "my words");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_fills_its_isolate_does_not_affect_other_guests_in_it() {
    let mut limits = Limits::default();
    limits.memory_bytes = 32 << 20;
    let guests = Guests::with(V8Runtime::builder().threads(1).build().unwrap(), limits);
    let image = |code: &str| {
        let module = ObjectRef::blob(guests.dispatcher.put_blob(code.to_owned()).unwrap());
        guests.dispatcher.put_image(guests.host, module).unwrap()
    };
    let hog = image("export default () => { const all = []; for (;;) all.push([]); };");
    let parent = |rest: &str| {
        format!(
            "import {{ putTree, run }} from 'manifold:guest';
            export default async () => {{
                try {{ await run('{hog}', await putTree([])); }} catch (error) {{ if (error.kind !== 'limit') throw error; }}
                {rest}
            }};"
        )
    };
    assert_eq!(guests.run(&parent("return 'lives';")).await.unwrap(), "lives");
    // The parent's own limit is unchanged.
    let error = guests.run(&parent("const all = []; for (;;) all.push([]);")).await.unwrap_err();
    assert!(matches!(error.breached_limit(), Some(Limit::Memory { .. })), "{error}");
}
