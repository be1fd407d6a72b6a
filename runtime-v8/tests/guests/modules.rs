//! Modules in TypeScript and JavaScript: which are accepted, in which language, their errors, and
//! the limits of the transpiler.

use std::time::{Duration, Instant};

use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{
    EntryMode, Error, Limit, Limits, ObjectId, ObjectRef, Reason, Result, Runtime, TreeEntry,
};
use manifold_runtime_v8::V8Runtime;

struct Guests {
    dispatcher: Dispatcher,
    host: ObjectId,
}

impl Guests {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let runtime = V8Runtime::new().unwrap();
        let host = runtime.host_image().id();
        Self {
            dispatcher: Dispatcher::builder().runtime(runtime).limits(limits).build().unwrap(),
            host,
        }
    }

    /// Runs a guest of these files and returns its outcome as text.
    async fn run(&self, files: &[(&str, &str)]) -> Result<String> {
        let entries = files.iter().map(|(name, text)| {
            TreeEntry::new(
                *name,
                EntryMode::Blob,
                self.dispatcher.put_blob((*text).to_owned()).unwrap(),
            )
        });
        let id = self.dispatcher.put_tree(entries.collect::<Vec<_>>())?;
        let image = self.dispatcher.put_image(self.host, ObjectRef::tree(id))?;
        let outcome = self
            .dispatcher
            .run(Invocation::new(image).args(self.dispatcher.put_tree([])?))
            .await?
            .outcome;
        Ok(String::from_utf8(self.dispatcher.read(outcome.id)?.content.to_vec()).unwrap())
    }

    async fn typescript(&self, code: &str) -> Result<String> {
        self.run(&[("main.ts", code)]).await
    }

    async fn javascript(&self, code: &str) -> Result<String> {
        self.run(&[("main.js", code)]).await
    }

    async fn is_healthy(&self) {
        assert_eq!(self.typescript("export default (): string => 'ok';").await.unwrap(), "ok");
    }
}

/// Returns whether the transpiler breached one of its limits.
fn is_bounded(error: &Error) -> bool {
    matches!(error.reason(), Reason::BadModule { .. })
        && matches!(
            error.breached_limit(),
            Some(
                Limit::TranspilerStack { .. }
                    | Limit::TranspilerMemory { .. }
                    | Limit::TranspilerTime { .. }
            )
        )
}

/// Lines that a lexer without a parser misreads, because it has to guess what a `/` begins. They
/// hid all code after them from such a lexer.
const HIDING: [&str; 5] = [
    "const r = /`/;\n",
    "const r = 1 ? /[`]/ : /\\/`/;\n",
    "if (1) /`/.test('');\n",
    "const r = ((a) => a)(1) / 2; const s = /`/g;\n",
    "const t = `${/`/.test('`')}`;\n",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_nesting_fails_only_the_guest() {
    let guests = Guests::new();
    for hiding in HIDING.into_iter().chain([""]) {
        let deep = format!("{}1{}", "(".repeat(400_000), ")".repeat(400_000));
        let code = format!("{hiding}export default () => {{ const x = {deep}; return 'ok'; }};");
        let error = guests.typescript(&code).await.unwrap_err();
        assert!(is_bounded(&error), "{hiding:?}: {error:?}");
        guests.is_healthy().await;
    }
}

/// The cost of names in nested scopes grows with the square of the depth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_time_of_the_transpiler_are_bounded() {
    let mut limits = Limits::default();
    limits.compute_time = Duration::from_secs(5);
    let guests = Guests::with(limits);
    for (open, close) in [
        ("a=>{", "}"),
        ("{let a;", "}"),
        ("class A{static{", "}}"),
        ("function f(a){", "}"),
        ("`${", "}`"),
        ("x as A<", ">"),
    ] {
        let start = Instant::now();
        let code =
            format!("export default () => {{ {}1{} }};", open.repeat(20_000), close.repeat(20_000));
        match guests.typescript(&code).await {
            Ok(_) => {}
            Err(error) => assert!(
                is_bounded(&error)
                    || matches!(
                        error.reason(),
                        Reason::BadModule { .. }
                            | Reason::GuestFailed { .. }
                            | Reason::LimitBreached(_)
                    ),
                "{open}: {error:?}"
            ),
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{open}");
    }
    guests.is_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flat_code_with_many_brackets_is_accepted() {
    let guests = Guests::new();
    for line in [
        "export const r$ = /\\(/;",
        "export const r$ = '((((';",
        "export const r$ = `[[[[`",
        "// {{{{",
        "/* (((( */",
        "export const r$ = /[(]\\/{2}`/",
    ] {
        let lines: String =
            (0..1000).map(|number| line.replace('$', &number.to_string()) + "\n").collect();
        for name in ["main.ts", "main.js"] {
            let code = format!("{lines}export default () => 'ok';");
            assert_eq!(guests.run(&[(name, &code)]).await.unwrap(), "ok", "{name}: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javascript_is_not_transpiled() {
    let guests = Guests::new();
    // In TypeScript this is a call with a type argument.
    let ambiguous =
        "const min = 1, max = 3; export default () => min < max > (0) ? 'inside' : 'outside';";
    assert_eq!(guests.javascript(ambiguous).await.unwrap(), "inside");
    assert!(guests.typescript(ambiguous).await.unwrap_err().to_string().contains("not a function"));
    // Syntax that V8 supports, whether or not the transpiler does.
    let new = "using a = { [Symbol.dispose]() {} }; export default () => /(?<y>a)|(?<y>b)/.exec('b').groups.y;";
    assert_eq!(guests.javascript(new).await.unwrap(), "b");
    // Any size below the limit on modules is accepted.
    let table: String = (0..1_200_000).map(|number| format!("{},\n", number % 1000)).collect();
    let large = format!("const table = [{table}];\nexport default () => String(table.length);");
    assert!(large.len() > 5 << 20);
    assert_eq!(guests.javascript(&large).await.unwrap(), "1200000");
    let large = format!("{large}\n//{}", "x".repeat(17 << 20));
    let error = guests.javascript(&large).await.unwrap_err();
    assert!(
        matches!(error.breached_limit(), Some(Limit::Module { found, .. }) if found > 17 << 20),
        "{error}"
    );
    assert!(error.to_string().contains("16777216 are allowed"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_of_only_types_are_removed() {
    let guests = Guests::new();
    for import in [
        "import { type A } from 'a-package';",
        "import type { A } from 'a-package';",
        "import { A } from 'a-package';",
        "export { type A } from 'a-package';",
        "export type * from 'a-package';",
        "import type { A } from './types.d.ts';",
    ] {
        let code = format!("{import}\nexport default (): string => 'ok' as A;");
        assert_eq!(guests.typescript(&code).await.unwrap(), "ok", "{import}");
    }
    for import in
        ["import { a } from 'a-package'; a;", "import 'a-package';", "export * from 'a-package';"]
    {
        let error = guests
            .typescript(&format!("{import}\nexport default () => 'ok';"))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("main.ts imports \"a-package\""), "{import}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typescript_and_javascript_files_can_import_each_other() {
    let guests = Guests::new();
    let files = [
        (
            "main.ts",
            "import { a } from './a.js'; import { b } from './b.mts'; export const name: string = 'main'; export default () => a() + b;",
        ),
        (
            "a.js",
            "import { b } from './b.mts'; import { name } from './main.ts'; export const a = () => name + b;",
        ),
        ("b.mts", "export { c as b } from './c.mjs';"),
        ("c.mjs", "export const c = '!';"),
    ];
    assert_eq!(guests.run(&files).await.unwrap(), "main!!");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decorators_and_accessors_are_transpiled() {
    let guests = Guests::new();
    let code = "
        const seen: string[] = [];
        function note(value: unknown, context: { kind: string; name: string | symbol }) {
            seen.push(`${context.kind} ${String(context.name)}`);
        }
        @note class A {
            @note accessor x = 1;
            @note y: number = 2;
            @note method(): number { return this.x + this.y; }
        }
        class B { accessor plain = 4; static accessor shared = 5; }
        export default () => `${new A().method()} ${new B().plain} ${B.shared} ${seen.join(', ')}`;";
    assert_eq!(
        guests.typescript(code).await.unwrap(),
        "3 4 5 accessor x, method method, field y, class A"
    );
    // Classes in files without decorators are not transformed.
    let computed = "const make = (k: number) => class { [`m${k + 1}`](): number { return k; } };
        export default () => String((new (make(6)) as any).m7());";
    assert_eq!(guests.typescript(computed).await.unwrap(), "6");
}

/// Errors of V8 and of the transpiler have a file, a line and a column.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_in_a_module_have_a_file_line_and_column() {
    let guests = Guests::new();
    for (name, code, place) in [
        ("main.ts", "const a = 1;\nimport b = require('b');\nb;", "main.ts:2:1: SyntaxError"),
        ("main.ts", "\n\n  export = 5;", "main.ts:3:3: SyntaxError"),
        ("main.ts", "const a: = 1;", "main.ts:1:10: SyntaxError"),
        ("main.ts", "type A = string;\nclass B { constructor(@C x) {} }", "main.ts:2:"),
        ("main.ts", "interface A {}\nlet x: A;\nlet x: A;", "main.ts:3:"),
        ("main.js", "let a = 1;\nlet b = ;", "main.js:2:9: SyntaxError"),
        ("main.js", "@decorated class A {}", "main.js:1:1: SyntaxError"),
        ("main.js", "let a = 1;\n  with (a) {}", "main.js:2:3: SyntaxError"),
        ("main.js", "export default () => await 5;", "main.js:1:"),
        ("main.js", "let é = '\u{1f600}'; let b = ;", "main.js:1:"),
    ] {
        let error = guests.run(&[(name, code)]).await.unwrap_err();
        assert!(matches!(error.reason(), Reason::BadModule { .. }), "{code}: {error:?}");
        assert!(error.to_string().contains(place), "{code}: {error}");
    }
    let files = [
        ("main.ts", "interface A {}\nimport { no } from './lib.js';\nexport default () => no;"),
        ("lib.js", "export const yes = 1;"),
    ];
    let error = guests.run(&files).await.unwrap_err().to_string();
    assert!(error.contains("export named 'no'") && error.contains("main.ts:2:10"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thrown_value_is_reported_with_causes_and_fields() {
    let guests = Guests::new();
    for (thrown, words) in [
        (
            "new Error('outer', { cause: new TypeError('inner') })",
            "outer (main.js:1:30 in default); cause: TypeError: inner (main.js:1:",
        ),
        ("new Error('outer', { cause: { code: 7 } })", "; cause: {\"code\":7}"),
        ("new Error('outer', { cause: 'a text' })", "; cause: a text"),
        (
            "new AggregateError([new Error('one'), 'two', { three: 3 }], 'all')",
            "AggregateError: all (main.js:1:30 in default): [one (main.js",
        ),
        (
            "new AggregateError([new Error('one'), 'two', { three: 3 }], 'all')",
            ", two, {\"three\":3}]",
        ),
        ("{ code: 42, text: 'no' }", "{\"code\":42,\"text\":\"no\"}"),
        (
            "Object.assign(new Error('with'), { code: 'E_CODE' })",
            "with (main.js:1:44 in default) {code: E_CODE}",
        ),
        ("{ large: 1n }", "{large: 1}"),
        ("(() => { const a = { b: 1 }; a.a = a; return a; })()", "b: 1"),
        ("[1, { two: 2 }]", "[1,{\"two\":2}]"),
        ("null", "the guest threw null"),
        ("''", "the guest threw an empty string"),
        ("Symbol('s')", "Symbol(s)"),
        (
            "new SuppressedError(new Error('one'), new Error('two'), 'three')",
            "; error: one (main.js:1:",
        ),
        (
            "new SuppressedError(new Error('one'), new Error('two'), 'three')",
            "; suppressed: two (main.js:1:",
        ),
        ("new Proxy({}, { get() { throw 1; }, ownKeys() { throw 2; } })", ""),
        ("{ toString() { return 'own words'; } }", "own words"),
        ("{ get secret() { throw new Error('no'); } }", ""),
    ] {
        let error = guests
            .javascript(&format!("export default () => {{ throw {thrown}; }};"))
            .await
            .unwrap_err();
        assert!(matches!(error.reason(), Reason::GuestFailed { .. }), "{thrown}: {error:?}");
        assert!(error.to_string().contains(words), "{thrown}: {error}");
    }
    // The message is bounded in depth and width.
    let round = "const e = new Error('round'); e.cause = e; const all = new AggregateError(Array(100).fill(e), 'many'); all.cause = e; throw all;";
    let error = guests
        .javascript(&format!("export default () => {{ {round} }};"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("more") && error.contains("already shown") && error.len() < 1000,
        "{error}"
    );
}
