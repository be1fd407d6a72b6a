//! Memoizes ordinary async functions, durably: the second of two processes computes nothing.
//!
//! Run it with `cargo run --example typed_memo --features functions,durable`. It starts itself
//! twice, with the directory of a store in an environment variable.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::process::Command;

use manifold::{CallError, Dispatcher, DurableStore};
use serde::{Deserialize, Serialize};

/// The result of a function. Arguments and results are serde types.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Summary {
    words: usize,
    lengths: BTreeMap<usize, u32>,
}

/// The error of a function, which its callers get as a value.
#[derive(Debug)]
enum SummaryError {
    Empty,
    Words(CallError<Infallible>),
}

impl fmt::Display for SummaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the text has no words"),
            Self::Words(_) => f.write_str("cannot find the words of the text"),
        }
    }
}

impl Error for SummaryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Empty => None,
            Self::Words(error) => Some(error),
        }
    }
}

/// The environment variable that makes this program work on a store.
const STORE: &str = "TYPED_MEMO_STORE";

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(store) = std::env::var_os(STORE) {
        let runs = tokio::runtime::Runtime::new()?.block_on(summarize(store.as_ref()))?;
        println!("{runs}");
        return Ok(());
    }
    let store = tempfile::tempdir()?;
    let cold = process(store.path())?;
    let warm = process(store.path())?;
    println!("the first process ran {cold} functions, the second {warm}");
    assert_eq!((cold.as_str(), warm.as_str()), ("2", "0"));
    Ok(())
}

/// Runs this program again, on `store`, and returns what it prints.
fn process(store: &Path) -> Result<String, Box<dyn Error>> {
    let output = Command::new(std::env::current_exe()?).env(STORE, store).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Calls two memoized functions and returns how many runs that took.
async fn summarize(store: &Path) -> Result<u64, Box<dyn Error>> {
    let dispatcher = Dispatcher::builder().store(DurableStore::open(store)?).build()?;

    // The key is the name, the version and the arguments. Change the version when the results of
    // the function change.
    let words = dispatcher.function("words", 1, |text: String| async move {
        text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>()
    })?;
    let summary = dispatcher.try_function("summary", 1, move |text: String| {
        let words = words.clone();
        async move {
            // A nested call. It is memoized, too. The function cannot fail, but the call can, for
            // example if it exceeds the budget.
            let words = words.call(text).await.map_err(SummaryError::Words)?;
            if words.is_empty() {
                return Err(SummaryError::Empty);
            }
            let mut lengths = BTreeMap::new();
            for word in &words {
                *lengths.entry(word.len()).or_default() += 1;
            }
            Ok(Summary { words: words.len(), lengths })
        }
    })?;

    let result = summary.call("to be or not to be".to_owned()).await?;
    assert_eq!(result, Summary { words: 6, lengths: BTreeMap::from([(2, 5), (3, 1)]) });
    // Until here the first process has run both functions, the second one none.
    let runs = dispatcher.stats().runs;

    // An error is not memoized. Callers match on the value that the function returned.
    match summary.call(String::new()).await {
        Err(CallError::Function(error)) => assert!(matches!(*error, SummaryError::Empty)),
        other => panic!("expected the function's own error, found {other:?}"),
    }
    dispatcher.flush()?;
    Ok(runs)
}
