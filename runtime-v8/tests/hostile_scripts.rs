//! Hostile scripts, each run a hundred times in one process: every run ends with a typed error, and
//! a healthy guest still works afterwards.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{Error, Limit, Limits, ObjectId, ObjectRef, Reason, Result, Runtime};
use manifold_runtime_v8::V8Runtime;

const MIB: u64 = 1 << 20;

struct Script {
    dispatcher: Dispatcher,
    host: ObjectId,
    salt: std::cell::Cell<u32>,
}

impl Script {
    fn new(limits: Limits) -> Self {
        let runtime = Arc::new(V8Runtime::new().unwrap());
        let host = runtime.host_image().id();
        let dispatcher = Dispatcher::builder().runtime(runtime).limits(limits).build().unwrap();
        Self { dispatcher, host, salt: std::cell::Cell::new(0) }
    }

    /// Runs a guest with a new salt, so that it is never a hit.
    async fn run(&self, code: &str) -> Result<String> {
        let module = ObjectRef::blob(self.dispatcher.put_blob(code.to_owned()).unwrap());
        let image = self.dispatcher.put_image(self.host, module).unwrap();
        let greeting = ObjectRef::blob(self.dispatcher.put_blob("hello").unwrap());
        let args = self.dispatcher.put_tree([argument("in", greeting)]).unwrap();
        self.salt.set(self.salt.get() + 1);
        let invocation = Invocation::new(image).args(args).salt(self.salt.get().to_string());
        let outcome = self.dispatcher.run(invocation).await?.outcome;
        Ok(String::from_utf8(self.dispatcher.read(outcome.id)?.content.to_vec()).unwrap())
    }

    async fn is_healthy(&self) {
        let healthy = r#"
            import { get, tree } from "manifold:guest";
            export default async ({ args }) => {
                const [{ hash }] = await tree(args);
                return new TextDecoder().decode(await get(hash)).toUpperCase();
            };"#;
        assert_eq!(self.run(healthy).await.unwrap(), "HELLO");
    }
}

/// Returns the resident memory of the process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

fn limits(compute_time: Duration) -> Limits {
    let mut limits = Limits::default();
    limits.memory_bytes = 8 * MIB;
    limits.compute_time = compute_time;
    limits
}

fn limit(error: &Error) -> Option<Limit> {
    match error.reason() {
        Reason::LimitBreached(limit) => Some(*limit),
        _ => None,
    }
}

/// The expected error of a hostile guest.
#[derive(Clone, Copy)]
enum Ends {
    Memory,
    ComputeTime,
    Stack,
    Words(&'static str),
    Trap,
    Module,
}

fn check(name: &str, ends: Ends, result: Result<String>) {
    let error = match result {
        Err(error) => error,
        Ok(text) => panic!("{name} returns {text:?}"),
    };
    let breached = limit(&error);
    match ends {
        Ends::Memory => {
            assert!(matches!(breached, Some(Limit::Memory { .. })), "{name}: {error:?}")
        }
        Ends::ComputeTime => {
            assert!(matches!(breached, Some(Limit::ComputeTime { .. })), "{name}: {error:?}")
        }
        Ends::Stack => assert!(matches!(breached, Some(Limit::Stack { .. })), "{name}: {error:?}"),
        Ends::Words(words) => {
            assert!(matches!(error.reason(), Reason::GuestFailed { .. }), "{name}: {error:?}");
            assert!(error.to_string().contains(words), "{name}: {error}");
        }
        Ends::Trap => {
            assert!(matches!(error.reason(), Reason::Trapped { .. }), "{name}: {error:?}")
        }
        Ends::Module => {
            assert!(matches!(error.reason(), Reason::BadModule { .. }), "{name}: {error:?}")
        }
    }
}

/// Scripts that take seconds, or cost the process a V8 thread.
const HEAVY: &[(&str, Ends, &str)] = &[
    (
        "a string of its largest size, flat",
        Ends::Memory,
        "export default () => { const s = 'xy'.repeat(2 ** 27); return s.split('').length + ''; };",
    ),
    (
        "an array larger than any can be",
        Ends::Memory,
        "export default () => { const s = 'xy'.repeat(2 ** 28 - 16); return s.split('', 2 ** 31).length + ''; };",
    ),
    (
        "operations that are refused, without end",
        Ends::Memory,
        "import { out } from 'manifold:guest'; const big = '\\u0001'.repeat(1e4); export default () => { for (;;) out(big, '0'.repeat(40)); };",
    ),
    (
        "huge arrays",
        Ends::Memory,
        "export default () => { const all = []; for (let i = 0; i < 4; i++) all.push(new Array(2 ** 25 - 1).fill({})); return `${all.length}`; };",
    ),
];

/// Scripts that are run a hundred times each.
const HOSTILE: &[(&str, Ends, &str)] = &[
    (
        "heap of small objects",
        Ends::Memory,
        "export default () => { const all = []; for (;;) all.push({}); };",
    ),
    (
        "heap of large arrays",
        Ends::Memory,
        "export default () => { const all = []; for (;;) all.push(new Array(1e6).fill(1)); };",
    ),
    (
        "heap exhaustion that is caught",
        Ends::Memory,
        "export default () => { const all = []; for (;;) try { for (;;) all.push([]); } catch {} };",
    ),
    (
        "a string that doubles",
        Ends::Memory,
        "export default () => { let s = 'x'; const all = []; for (;;) { all.push(s = (s + s).slice(1) + s); s.charCodeAt(0); if (s.length > 2 ** 24) s = 'y'; } };",
    ),
    (
        "an array that grows",
        Ends::Memory,
        "export default () => { const a = []; for (let i = 0; ; i++) a[i] = i; };",
    ),
    (
        "a map that grows",
        Ends::Memory,
        "export default () => { const m = new Map(); for (let i = 0; ; i++) m.set(i, i); };",
    ),
    (
        "a big integer that grows",
        Ends::Memory,
        "export default () => { const all = []; let n = 1n; for (;;) all.push(n = (n << 4096n) + 1n); };",
    ),
    (
        "array buffers",
        Ends::Memory,
        "export default () => { const all = []; for (;;) all.push(new Uint8Array(1e6)); };",
    ),
    ("one huge array buffer", Ends::Memory, "export default () => new Uint8Array(2 ** 32);"),
    (
        "array buffer failures that are caught",
        Ends::Memory,
        "export default () => { const all = []; for (;;) try { all.push(new Uint8Array(1e7)); } catch { return 'caught'; } };",
    ),
    (
        "a buffer that grows",
        Ends::Words("not available"),
        "export default () => { const b = new ArrayBuffer(1, { maxByteLength: 2 ** 30 }); b.resize(2 ** 30); new Uint8Array(b).fill(1); return `${b.byteLength}`; };",
    ),
    (
        "requests without end",
        Ends::Memory,
        "import { putBlob } from 'manifold:guest'; export default () => { const b = new Uint8Array(1e6); for (;;) putBlob(b); };",
    ),
    (
        "responses that pile up",
        Ends::Memory,
        "import { get, putBlob } from 'manifold:guest'; export default async () => { const h = await putBlob(new Uint8Array(1e6)), all = []; for (let i = 0; i < 1e4; i++) all.push(get(h)); await Promise.all(all); };",
    ),
    (
        "reading without end",
        Ends::ComputeTime,
        "import { get, putBlob } from 'manifold:guest'; export default async () => { const h = await putBlob(new Uint8Array(1e6)); for (;;) await get(h); };",
    ),
    (
        "a log without end",
        Ends::ComputeTime,
        "import { log } from 'manifold:guest'; export default () => { for (;;) log(''); };",
    ),
    ("a loop", Ends::ComputeTime, "export default () => { for (;;); };"),
    (
        "a loop that catches",
        Ends::ComputeTime,
        "export default () => { for (;;) try { for (;;); } catch {} finally { continue; } };",
    ),
    ("a loop at the top", Ends::ComputeTime, "for (;;); export default () => '';"),
    (
        "microtasks without end",
        Ends::ComputeTime,
        "export default () => new Promise(() => { const again = () => queueMicrotask(again); again(); });",
    ),
    (
        "promises without end",
        Ends::ComputeTime,
        "export default async () => { for (;;) await null; };",
    ),
    (
        "a regular expression",
        Ends::ComputeTime,
        "export default () => `${/^(a+)+$/.test('a'.repeat(64) + '!')}`;",
    ),
    (
        "a sort that never ends",
        Ends::ComputeTime,
        "export default () => { [3, 2, 1].sort(() => { for (;;); }); };",
    ),
    (
        "operations without end",
        Ends::ComputeTime,
        "import { tree } from 'manifold:guest'; export default async ({ args }) => { for (;;) await tree(args); };",
    ),
    (
        "a getter of the outcome that never ends",
        Ends::ComputeTime,
        "export default () => ({ get hash() { for (;;); } });",
    ),
    (
        "an error whose toString never ends",
        Ends::ComputeTime,
        "export default () => { throw { toString() { for (;;); } }; };",
    ),
    (
        "an error whose stack never ends",
        Ends::ComputeTime,
        "export default () => { throw Object.defineProperty({}, 'stack', { get() { for (;;); } }); };",
    ),
    ("recursion", Ends::Stack, "export default () => { const f = () => f() + 1; return f(); };"),
    (
        "recursion that is caught",
        Ends::Stack,
        "export default () => { let d = 0; const f = () => { d++; f(); }; try { f(); } catch { return `${d}`; } };",
    ),
    (
        "recursion through a native function",
        Ends::Stack,
        "export default () => { const f = () => [1].map(f); try { f(); } catch (e) { return 'caught'; } };",
    ),
    (
        "a hundred thousand arguments",
        Ends::Stack,
        "export default () => { try { return `${Math.max(...new Array(1e6).fill(1))}`; } catch { return 'caught'; } };",
    ),
    (
        "eval",
        Ends::Words("Code generation from strings disallowed"),
        "export default () => eval('1');",
    ),
    (
        "new Function",
        Ends::Words("Code generation from strings disallowed"),
        "export default () => new Function('return 1')();",
    ),
    (
        "the constructor of async functions",
        Ends::Words("Code generation from strings disallowed"),
        "export default () => (async () => {}).constructor('return 1')();",
    ),
    (
        "import()",
        Ends::Words("import() is not available"),
        "export default async () => { const x = './main.ts'; await import(x); };",
    ),
    ("a promise that never settles", Ends::Trap, "export default () => new Promise(() => {});"),
    (
        "an unhandled rejection",
        Ends::Words("forgotten"),
        "export default () => { Promise.reject(new Error('forgotten')); return 'done'; };",
    ),
    (
        "broken prototypes",
        Ends::Words("mine"),
        "Promise.prototype.then = Array.prototype.push = Object.prototype.toString = () => { throw new Error('mine'); }; export default () => { [].push(1); };",
    ),
    ("a thrown undefined", Ends::Words("undefined"), "export default () => { throw undefined; };"),
    (
        "a thrown object without a text form",
        Ends::Words("without a text form"),
        "export default () => { throw Object.create(null); };",
    ),
    ("no entry", Ends::Words("no default export"), "export const a = 1;"),
    ("a default export that is a number", Ends::Words("no default export"), "export default 1;"),
    (
        "a return value of the wrong type",
        Ends::Words("the entry must return"),
        "export default () => 5;",
    ),
    ("no code", Ends::Module, "export default () => {"),
    ("an import of a package", Ends::Module, "import 'lodash'; export default () => '';"),
    (
        "an import of an address",
        Ends::Module,
        "import 'https://localhost/x.ts'; export default () => '';",
    ),
    (
        "an import of a file that is not there",
        Ends::Module,
        "import './other.ts'; export default () => '';",
    ),
    (
        "an import from outside the module",
        Ends::Module,
        "import '../other.ts'; export default () => '';",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_script_is_a_typed_error_a_hundred_times() {
    let (script, hasty) = (
        Script::new(limits(Duration::from_secs(30))),
        Script::new(limits(Duration::from_millis(25))),
    );
    script.is_healthy().await;
    let mut settled = 0;
    for round in 0..100 {
        // Two at a time, which takes half of the time on two cores.
        let (script, hasty) = (&script, &hasty);
        let scripts = futures_util::stream::iter(HOSTILE);
        scripts
            .for_each_concurrent(2, async |(name, ends, code)| {
                let script = if matches!(ends, Ends::ComputeTime) { hasty } else { script };
                check(name, *ends, script.run(code).await);
            })
            .await;
        script.is_healthy().await;
        if round == 10 {
            settled = resident();
        }
    }
    let grown = resident().saturating_sub(settled);
    println!(
        "the process has {} MiB resident, {} MiB more than after ten rounds",
        resident() / MIB,
        grown / MIB
    );
    assert!(
        grown < 128 * MIB,
        "the process has grown by {} MiB from {} MiB",
        grown / MIB,
        settled / MIB
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_costs_a_v8_thread_fails_only_its_own_job() {
    let script = Script::new(limits(Duration::from_secs(30)));
    for _ in 0..3 {
        let beside = async {
            for _ in 0..100 {
                script.is_healthy().await;
            }
        };
        let hostile = async {
            for (name, ends, code) in HEAVY {
                check(name, *ends, script.run(code).await);
            }
        };
        tokio::join!(beside, hostile);
    }
    script.is_healthy().await;
}
