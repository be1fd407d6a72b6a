//! Guests that fail: their error messages, and what is kept of them.

use crate::Guests;

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
