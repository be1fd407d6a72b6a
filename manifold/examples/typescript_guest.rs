//! Runs a guest in TypeScript: a single file, and a tree of files.
//!
//! Run it with `cargo run --example typescript_guest --features v8`.

use std::error::Error;

use manifold::v8::V8Runtime;
use manifold::{Dispatcher, Input, Invocation, Reason};

/// A guest that is one file. Types are stripped and not checked. The default export is the entry,
/// and what it returns is the outcome.
const SHOUT: &str = r#"
    import { get, tree } from "manifold:guest";
    import type { Job } from "manifold:guest";

    export default async ({ args }: Job): Promise<string> => {
      const input = (await tree(args)).find((entry) => entry.name === "in");
      if (input === undefined) throw new Error("the argument `in` is missing");
      return new TextDecoder().decode(await get(input.hash)).toUpperCase();
    };
"#;

/// The entry of a guest that is a tree. It imports another file of the tree.
const MAIN: &str = r#"
    import { entriesOf } from "./entries.ts";

    export default async (job: { args: string }): Promise<string> =>
      (await entriesOf(job.args, "in")).map((entry) => entry.name).join(" ");
"#;

const ENTRIES: &str = r#"
    import { tree } from "manifold:guest";

    export const entriesOf = async (args: string, name: string) =>
      tree((await tree(args)).find((entry) => entry.name === name)!.hash);
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dispatcher = Dispatcher::builder().build()?;
    let v8 = dispatcher.add_runtime(V8Runtime::new()?)?;

    let shout = dispatcher.install(v8, SHOUT)?;
    let answer = dispatcher.run(Invocation::new(shout).arg("in", "hello")).await?;
    println!("{}", answer.text()?);
    assert_eq!(answer.text()?, "HELLO");

    // `Input::file("main.ts")` and the files of a directory work as well.
    let files = Input::tree([("main.ts", MAIN.into()), ("entries.ts", ENTRIES.into())]);
    let list = dispatcher.install(v8, files)?;
    let directory = Input::tree([("b.txt", "two".into()), ("a.txt", "one".into())]);
    let answer = dispatcher.run(Invocation::new(list).arg("in", directory)).await?;
    assert_eq!(answer.text()?, "a.txt b.txt");

    // An exception is the guest's error, with the position in its file.
    let error = dispatcher.run(Invocation::new(shout)).await.expect_err("`in` is missing");
    println!("{error:?}");
    assert!(matches!(
        error.root_cause().reason(),
        Reason::GuestFailed { message } if message.contains("the argument `in` is missing")
    ));
    Ok(())
}
