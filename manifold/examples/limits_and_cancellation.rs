//! Bounds calls and cancels them: a deadline, a number of runs, a depth, and a dropped future.
//!
//! Run it with `cargo run --example limits_and_cancellation`. `wasm_guest` bounds a single frame.

use std::error::Error;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use manifold::native::{NativeRuntime, argument};
use manifold::{Budget, Dispatcher, ErrorKind, Event, Invocation, Limit, Reason, Status};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let guests = NativeRuntime::builder("bounded", "1")
        .guest("wait", |_| pending())
        // Runs itself with the next number, for ever.
        .guest("count", |guest| async move {
            let number = guest.text("from").await?.parse::<u64>().unwrap_or_default() + 1;
            let number = guest.blob(number.to_string()).await?;
            let args = guest.put_tree([argument("from", number)]).await?;
            let image = guest.job().image.to_string();
            guest.run(&image, args).await
        })
        .build()?;
    let cancelled = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&cancelled);
    let dispatcher = Dispatcher::builder()
        // The bounds of every call. An invocation can only have tighter ones.
        .budget(Budget::default().deadline(Duration::from_secs(60)).runs(10_000))
        .on_event(move |event| {
            if let Event::Settled { result: Err(error), .. } = event
                && error.kind() == ErrorKind::Cancelled
            {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        })
        .build()?;
    let host = dispatcher.add_runtime(guests)?;
    let wait = dispatcher.install(host, "wait")?;
    let count = Invocation::new(dispatcher.install(host, "count")?).arg("from", "0");

    // A deadline. The error names it, and says that a retry may succeed.
    let deadline = Duration::from_millis(50);
    let invocation = Invocation::new(wait).budget(Budget::default().deadline(deadline));
    let error = dispatcher.run(invocation).await.expect_err("the guest waits for ever");
    println!("{error:?}");
    assert_eq!(error.breached_limit(), Some(Limit::Deadline { time: deadline }));
    assert_eq!(error.status(), Status::Transient);

    // A number of runs, of which all nested runs are a part.
    let invocation = count.clone().budget(Budget::default().runs(100));
    let error = dispatcher.run(invocation).await.expect_err("the guest recurses for ever");
    assert_eq!(error.breached_limit(), Some(Limit::Runs { count: 100 }));

    // A depth. It ends the run that is too deep, whose callers may go on without it.
    let invocation = count.budget(Budget::default().depth(20));
    let error = dispatcher.run(invocation).await.expect_err("the guest recurses for ever");
    assert_eq!(error.breached_limit(), Some(Limit::Depth { levels: 20 }));
    // The chain leads from the call to the frame that exceeded the budget.
    assert_eq!(error.chain().count(), 21);
    assert!(matches!(error.reason(), Reason::NestedRunFailed));
    assert!(matches!(error.root_cause().reason(), Reason::LimitBreached(Limit::Depth { .. })));

    // To cancel a call, drop its future. The run ends, because no other caller waits for it.
    let before = cancelled.load(Ordering::Relaxed);
    let call = dispatcher.run(Invocation::new(wait));
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    while cancelled.load(Ordering::Relaxed) == before {
        tokio::task::yield_now().await;
    }

    // A run that another caller waits for goes on.
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let host = {
        let gate = Arc::clone(&gate);
        let guests = NativeRuntime::builder("gated", "1").guest("open", move |guest| {
            let gate = Arc::clone(&gate);
            async move {
                let _open = gate.acquire().await.map_err(manifold::Error::runtime)?;
                guest.blob("open").await
            }
        });
        dispatcher.add_runtime(guests.build()?)?
    };
    let open = Invocation::new(dispatcher.install(host, "open")?);
    let other = tokio::spawn({
        let (dispatcher, open) = (dispatcher.clone(), open.clone());
        async move { dispatcher.run(open).await }
    });
    let impatient = dispatcher.run(open);
    assert!(tokio::time::timeout(Duration::from_millis(50), impatient).await.is_err());
    gate.add_permits(1);
    assert_eq!(other.await??.text()?, "open");
    assert_eq!(dispatcher.stats().joins, 1);
    Ok(())
}
