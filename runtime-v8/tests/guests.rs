//! TypeScript and JavaScript guests: their entry, modules, globals, errors, determinism and limits.

#[path = "guests/determinism.rs"]
mod determinism;
#[path = "guests/environment.rs"]
mod environment;
#[path = "guests/failures.rs"]
mod failures;
#[path = "guests/limits.rs"]
mod limits;
#[path = "guests/modules.rs"]
mod modules;
#[path = "guests/published_packages.rs"]
mod published_packages;

use std::sync::{Arc, Mutex};

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
