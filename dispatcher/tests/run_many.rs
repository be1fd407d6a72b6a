//! Invariant 9: `run_many` keeps order, runs duplicates once, and bounds its own width.

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fixture::Fixture;
use manifold_dispatcher::Invocation;
use manifold_dispatcher::api::{Call, Error, Outcome};
use manifold_dispatcher::native::{NativeRuntime, argument};

const CALLS: usize = 200;
const WIDTH: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_duplicates_failures_and_width() {
    let (live, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let runtime = NativeRuntime::builder("native", "1")
        .guest("many", |guest| async move {
            let image = guest.text("leaf").await?;
            let mut calls = Vec::new();
            for number in 0..CALLS {
                let number = guest.host().put_blob((number % 50).to_string().into()).await?;
                let args = guest.put_tree([argument("number", Outcome::blob(number))]).await?;
                calls.push(Call { image: image.clone(), args });
            }
            calls.push(Call { image: "nonsense".to_owned(), args: guest.job().args });
            let mut told = Vec::new();
            for result in guest.host().run_many(calls).await {
                told.push(match result {
                    Ok(outcome) => {
                        String::from_utf8_lossy(&guest.host().get(outcome.id).await?).into_owned()
                    }
                    Err(error) => format!("!{error}"),
                });
            }
            guest.blob(told.join("\n")).await
        })
        .guest("leaf", {
            let most = Arc::clone(&most);
            move |guest| {
                let (live, most) = (Arc::clone(&live), Arc::clone(&most));
                async move {
                    most.fetch_max(live.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Later calls finish earlier.
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
        fixture.dispatcher.run(Invocation::new(fixture.image("many"), args)).await.unwrap();
    let text = fixture.text(completion.outcome);
    let told: Vec<&str> = text.split('\n').collect();
    assert_eq!(told.len(), CALLS + 1);
    for (index, told) in told[..CALLS].iter().enumerate() {
        let number = index % 50;
        let expected =
            if number % 7 == 3 { format!("!{number} is unlucky") } else { number.to_string() };
        assert_eq!(*told, expected, "call {index}");
    }
    assert!(told[CALLS].starts_with("!image \"nonsense\""), "{}", told[CALLS]);
    assert_eq!(fixture.runs(), 1 + 50, "duplicates run once");
    let most = most.load(Ordering::SeqCst);
    assert!((2..=WIDTH).contains(&most), "{most} at once");
}

#[tokio::test]
async fn no_calls_at_all() {
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
        .run(Invocation::new(fixture.image("none"), fixture.args(&[])))
        .await
        .unwrap();
    assert_eq!(fixture.text(completion.outcome), "0");
}
