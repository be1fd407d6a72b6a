//! Invariant 9: `run_many` keeps the order of its calls, runs duplicates once, and bounds its
//! width.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use manifold_dispatcher::Invocation;
use manifold_dispatcher::api::{Call, Error, ObjectRef};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_testing::Fixture;

const CALLS: usize = 200;
const WIDTH: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_many_keeps_order_runs_duplicates_once_and_bounds_its_width() {
    let (live, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let runtime = NativeRuntime::builder("native", "1")
        .guest("many", |guest| async move {
            let image = guest.text("leaf").await?;
            let mut calls = Vec::new();
            for number in 0..CALLS {
                let number = guest.host().put_blob((number % 50).to_string().into()).await?;
                let args = guest.put_tree([argument("number", ObjectRef::blob(number))]).await?;
                calls.push(Call { image: image.clone(), args });
            }
            calls.push(Call { image: "nonsense".to_owned(), args: guest.job().args });
            let mut lines = Vec::new();
            for result in guest.host().run_many(calls).await {
                lines.push(match result {
                    Ok(outcome) => {
                        String::from_utf8_lossy(&guest.host().get(outcome.id).await?).into_owned()
                    }
                    Err(error) => format!("!{error}"),
                });
            }
            guest.blob(lines.join("\n")).await
        })
        .guest("leaf", {
            let most = Arc::clone(&most);
            move |guest| {
                let (live, most) = (Arc::clone(&live), Arc::clone(&most));
                async move {
                    most.fetch_max(live.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Calls with higher numbers finish earlier.
                    let number: usize = guest.text("number").await?.parse().unwrap_or_default();
                    for _ in number..50 {
                        tokio::task::yield_now().await;
                    }
                    live.fetch_sub(1, Ordering::SeqCst);
                    if number % 7 == 3 {
                        return Err(Error::guest_failed(format!("{number} is unlucky")));
                    }
                    guest.blob(number.to_string()).await
                }
            }
        })
        .build()
        .unwrap();
    let fixture = Fixture::with(runtime, |builder| builder.permits(1000));
    let args = fixture.args(&[("leaf", &fixture.image("leaf"))]);
    let completion =
        fixture.dispatcher.run(Invocation::new(fixture.image("many")).args(args)).await.unwrap();
    let text = fixture.text(completion.outcome);
    let lines: Vec<&str> = text.split('\n').collect();
    assert_eq!(lines.len(), CALLS + 1);
    for (index, line) in lines[..CALLS].iter().enumerate() {
        let number = index % 50;
        let expected =
            if number % 7 == 3 { format!("!{number} is unlucky") } else { number.to_string() };
        assert_eq!(*line, expected, "call {index}");
    }
    assert!(lines[CALLS].starts_with("!image \"nonsense\""), "{}", lines[CALLS]);
    assert_eq!(fixture.runs(), 1 + 50, "duplicates run once");
    let most = most.load(Ordering::SeqCst);
    assert!((2..=WIDTH).contains(&most), "{most} runs at the same time");
}

#[tokio::test]
async fn run_many_without_calls_returns_no_results() {
    let runtime = NativeRuntime::builder("native", "1")
        .guest("none", |guest| async move {
            let results = guest.host().run_many(Vec::new()).await;
            guest.blob(results.len().to_string()).await
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let completion = fixture
        .dispatcher
        .run(Invocation::new(fixture.image("none")).args(fixture.args(&[])))
        .await
        .unwrap();
    assert_eq!(fixture.text(completion.outcome), "0");
}
