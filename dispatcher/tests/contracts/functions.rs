//! Ordinary async functions, memoized by name, version and arguments.
#![cfg(feature = "functions")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use manifold_dispatcher::api::{ErrorKind, Limit, Reason};
use manifold_dispatcher::{Budget, CallError, Dispatcher, DurableStore, MemoryStore};
use serde::{Deserialize, Serialize};

fn dispatcher() -> Dispatcher {
    Dispatcher::builder().build().unwrap()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Text {
    words: Vec<String>,
    weights: HashMap<String, f64>,
}

#[tokio::test]
async fn equal_arguments_run_a_function_once() {
    let dispatcher = dispatcher();
    let runs = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&runs);
    let double = dispatcher
        .function("double", 1, move |text: Text| {
            counter.fetch_add(1, Ordering::Relaxed);
            async move { Text { words: [&text.words[..], &text.words[..]].concat(), ..text } }
        })
        .unwrap();
    // The order in which a map was filled does not change the key.
    let names = ["a", "b", "c", "d", "e", "f"];
    let weights = names.map(|name| (name.to_owned(), f64::from(name.as_bytes()[0])));
    let words = vec!["to".to_owned(), "be".to_owned()];
    let text = Text { words: words.clone(), weights: weights.clone().into_iter().collect() };
    let other = Text { words, weights: weights.into_iter().rev().collect() };
    let result = double.call(text).await.unwrap();
    assert_eq!(result.words, ["to", "be", "to", "be"]);
    assert_eq!(double.clone().call(other).await.unwrap(), result);
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn values_that_json_cannot_express_are_kept() {
    let identity =
        dispatcher()
            .function("identity", 1, |values: Vec<(f64, u128, Option<char>)>| async { values });
    let values = vec![(f64::INFINITY, u128::MAX, Some('é')), (-0.0, 0, None)];
    assert_eq!(identity.unwrap().call(values.clone()).await.unwrap(), values);
}

#[derive(Debug, PartialEq, thiserror::Error)]
enum ParseError {
    #[error("`{0}` is not a number")]
    NotANumber(String),
}

#[tokio::test]
async fn an_error_is_a_value_and_is_not_memoized() {
    let dispatcher = dispatcher();
    let runs = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&runs);
    let parse = dispatcher
        .try_function("parse", "1.0", move |text: String| {
            counter.fetch_add(1, Ordering::Relaxed);
            async move { text.parse::<u32>().map_err(|_| ParseError::NotANumber(text)) }
        })
        .unwrap();
    for run in 1..=2 {
        let error = parse.call("many".to_owned()).await.unwrap_err();
        let CallError::Function(value) = &error else { panic!("{error:?}") };
        assert_eq!(**value, ParseError::NotANumber("many".to_owned()));
        assert_eq!(error.to_string(), "`many` is not a number");
        assert_eq!(runs.load(Ordering::Relaxed), run);
    }
    assert_eq!(parse.call("12".to_owned()).await.unwrap(), 12);
}

#[tokio::test]
async fn callers_share_a_run_and_its_error() {
    let dispatcher = dispatcher();
    let runs = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&runs);
    let fail = dispatcher
        .try_function("fail", 1, move |(): ()| {
            counter.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err::<(), _>(ParseError::NotANumber(String::new()))
            }
        })
        .unwrap();
    let (one, two) = tokio::join!(fail.call(()), fail.call(()));
    assert!(matches!((one, two), (Err(CallError::Function(_)), Err(CallError::Function(_)))));
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_result_outlives_the_process_and_a_new_version_is_another_function() {
    let directory = tempfile::tempdir().unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    for (version, expected) in [(1, 1), (1, 1), (2, 2)] {
        // As another process would, with other functions beside it.
        let store = DurableStore::open(directory.path()).unwrap();
        let dispatcher = Dispatcher::builder().store(store).build().unwrap();
        let name = format!("another {version} {expected}");
        dispatcher.function(&name, 1, |(): ()| async {}).unwrap();
        let counter = Arc::clone(&runs);
        let square = dispatcher
            .function("square", version, move |number: u64| {
                counter.fetch_add(1, Ordering::Relaxed);
                async move { number * number }
            })
            .unwrap();
        assert_eq!(square.call(12).await.unwrap(), 144);
        dispatcher.flush().unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), expected);
    }
}

#[tokio::test]
async fn a_function_calls_itself_and_others_in_nested_runs() {
    let dispatcher = dispatcher();
    let slot = Arc::new(std::sync::OnceLock::new());
    let own = Arc::clone(&slot);
    let fibonacci = dispatcher
        .try_function("fibonacci", 1, move |number: u64| {
            let own = Arc::clone(&own);
            async move {
                if number < 2 {
                    return Ok(number);
                }
                let own: &manifold_dispatcher::Function<u64, u64, NestedError> =
                    own.get().expect("it is set before the first call");
                let one = Box::pin(own.call(number - 1)).await.map_err(NestedError::new)?;
                let two = Box::pin(own.call(number - 2)).await.map_err(NestedError::new)?;
                Ok(one + two)
            }
        })
        .unwrap();
    slot.set(fibonacci.clone()).unwrap();
    assert_eq!(fibonacci.call(60).await.unwrap(), 1_548_008_755_920);
    assert_eq!(dispatcher.stats().runs, 61, "each number runs once");
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NestedError(String);

impl NestedError {
    fn new(error: CallError<NestedError>) -> Self {
        Self(error.to_string())
    }
}

#[tokio::test]
async fn a_nested_call_shares_the_budget_of_the_root_call() {
    let dispatcher =
        Dispatcher::builder().budget(Budget::new().runs(3)).store(MemoryStore::new()).build();
    let dispatcher = dispatcher.unwrap();
    let leaf = dispatcher.function("leaf", 1, |number: u32| async move { number }).unwrap();
    let sum = dispatcher.try_function("sum", 1, move |count: u32| {
        let leaf = leaf.clone();
        async move {
            let mut sum = 0;
            for number in 0..count {
                sum += leaf.call(number).await?;
            }
            Ok::<_, CallError<std::convert::Infallible>>(sum)
        }
    });
    let sum = sum.unwrap();
    assert_eq!(sum.call(2).await.unwrap(), 1);
    let error = sum.call(9).await.unwrap_err();
    let CallError::Dispatch(error) = &error else { panic!("{error:?}") };
    assert_eq!(error.breached_limit(), Some(Limit::Runs { count: 3 }));
}

#[tokio::test]
async fn a_panic_and_a_second_definition_are_errors() {
    let dispatcher = dispatcher();
    let fail = dispatcher.function("fail", 1, |(): ()| async { panic!("on purpose") }).unwrap();
    let _: &manifold_dispatcher::Function<(), ()> = &fail;
    let error = fail.call(()).await.unwrap_err();
    let CallError::Dispatch(error) = &error else { panic!("{error:?}") };
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}");
    assert!(error.to_string().contains("on purpose"), "{error:?}");

    let error = dispatcher.function("fail", 1, |(): ()| async {}).unwrap_err();
    assert!(
        matches!(error.reason(), Reason::RuntimeFailed { problem, .. } if problem.contains("`fail`"))
    );
    dispatcher.function("fail", 2, |(): ()| async {}).unwrap();
}

#[tokio::test]
async fn a_hundred_functions_that_wait_take_as_long_as_one() {
    let dispatcher = Dispatcher::builder().permits(1).build().unwrap();
    let wait = dispatcher
        .function("wait", 1, |_: u32| async {
            tokio::time::sleep(Duration::from_millis(100)).await
        })
        .unwrap();
    let start = std::time::Instant::now();
    let calls = (0..100).map(|number| wait.call(number));
    futures_util::future::try_join_all(calls).await.unwrap();
    // One after the other they would take ten seconds.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_deadline_covers_the_time_that_a_function_waits() {
    let budget = Budget::new().deadline(Duration::from_millis(50));
    let dispatcher = Dispatcher::builder().budget(budget).build().unwrap();
    let never = dispatcher.function("never", 1, |(): ()| std::future::pending::<()>()).unwrap();
    let error = never.call(()).await.unwrap_err();
    let CallError::Dispatch(error) = &error else { panic!("{error:?}") };
    assert!(matches!(error.breached_limit(), Some(Limit::Deadline { .. })), "{error:?}");
}

/// The host of the function around stores them, and notes what fails.
#[tokio::test]
async fn the_arguments_of_a_nested_call_count_as_written() {
    let dispatcher = dispatcher();
    let length =
        dispatcher.function("length", 1, |text: String| async move { text.len() }).unwrap();
    let nested = dispatcher
        .function("nested", 1, move |times: usize| {
            let length = length.clone();
            async move { length.call("x".repeat(times)).await.unwrap_or(0) }
        })
        .unwrap();
    let invocation = nested.invocation(&10_000).unwrap();
    let error = dispatcher.run(invocation.clone().budget(Budget::new().written_bytes(5_000))).await;
    assert_eq!(error.unwrap_err().breached_limit(), Some(Limit::WrittenBytes { bytes: 5_000 }));
    assert_eq!(nested.call(10_000).await.unwrap(), 10_000);
}
