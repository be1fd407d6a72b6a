//! Determinism: what a guest observes depends only on its request.

use std::time::Duration;

use futures_util::future::join_all;
use manifold_dispatcher::Policy;
use manifold_runtime_api::{Limits, ObjectRef};
use manifold_runtime_v8::V8Runtime;

use crate::Guests;

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
