//! Invariant 3: work is cancelled when, and only when, its last waiter leaves. Cancelled work is
//! not memoized.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manifold_dispatcher::Invocation;
use manifold_dispatcher::api::{ErrorKind, Reason};
use manifold_dispatcher::native::NativeRuntime;
use manifold_testing::Fixture;
use tokio::sync::{Semaphore, mpsc};

/// Sends its name when it is dropped.
struct DropSignal(mpsc::UnboundedSender<&'static str>, &'static str);

impl Drop for DropSignal {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_the_last_waiter_cancels_the_whole_chain() {
    let (sender, mut signals) = mpsc::unbounded_channel();
    let runtime = NativeRuntime::builder("native", "1")
        .guest("parent", {
            let sender = sender.clone();
            move |guest| {
                let signal = DropSignal(sender.clone(), "parent");
                async move {
                    let _signal = signal;
                    let args = guest.put_tree([]).await?;
                    guest.run(&guest.text("child").await?, args).await
                }
            }
        })
        .guest("child", move |guest| {
            let signal = DropSignal(sender.clone(), "child");
            let _ = sender.send("started");
            async move {
                let _signal = signal;
                pending::<()>().await;
                guest.blob("never").await
            }
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("parent"))
        .args(fixture.args(&[("child", &fixture.image("child"))]));
    let callers = [(); 2].map(|()| {
        let (dispatcher, invocation) = (fixture.dispatcher.clone(), invocation.clone());
        tokio::spawn(async move { dispatcher.run(invocation).await })
    });
    while fixture.dispatcher.stats().joins < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(signals.recv().await, Some("started"));

    let [one, two] = callers;
    one.abort();
    assert!(one.await.unwrap_err().is_cancelled());
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(signals.try_recv().is_err(), "the second caller still waits");

    two.abort();
    assert_eq!(signals.recv().await, Some("parent"));
    assert_eq!(signals.recv().await, Some("child"));
    assert_eq!(fixture.journal.memoized.lock().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nested_run_with_another_waiter_is_not_cancelled() {
    let gate = Arc::new(Semaphore::new(0));
    let (sender, mut starts) = mpsc::unbounded_channel();
    let runtime = NativeRuntime::builder("native", "1")
        .guest("parent", |guest| async move {
            let args = guest.put_tree([]).await?;
            guest.run(&guest.text("child").await?, args).await
        })
        .guest("child", {
            let gate = Arc::clone(&gate);
            move |guest| {
                let gate = Arc::clone(&gate);
                let _ = sender.send("started");
                async move {
                    gate.acquire().await.expect("the gate is not closed").forget();
                    guest.blob("grown up").await
                }
            }
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let child = fixture.image("child");
    let parents = ["one", "two"].map(|name| {
        let dispatcher = fixture.dispatcher.clone();
        let args = fixture.args(&[("child", &child), ("name", name)]);
        let invocation = Invocation::new(fixture.image("parent")).args(args);
        tokio::spawn(async move { dispatcher.run(invocation).await })
    });
    starts.recv().await;
    while fixture.dispatcher.stats().joins < 1 {
        tokio::task::yield_now().await;
    }
    let [one, two] = parents;
    one.abort();
    assert!(one.await.unwrap_err().is_cancelled());
    gate.add_permits(1);
    assert_eq!(fixture.text(two.await.unwrap().unwrap().outcome), "grown up");
    assert_eq!(fixture.runs(), 3, "the child ran once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_all_waiters_and_the_next_call_runs_again() {
    let panicked = Arc::new(AtomicBool::new(false));
    let gate = Arc::new(Semaphore::new(0));
    let runtime = NativeRuntime::builder("native", "1")
        .guest("panic-once", {
            let gate = Arc::clone(&gate);
            move |guest| {
                let (gate, panicked) = (Arc::clone(&gate), Arc::clone(&panicked));
                async move {
                    gate.acquire().await.expect("the gate is not closed").forget();
                    assert!(panicked.swap(true, Ordering::SeqCst), "the first run panics");
                    guest.blob("calm").await
                }
            }
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("panic-once")).args(fixture.args(&[]));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (dispatcher, invocation) = (fixture.dispatcher.clone(), invocation.clone());
            tokio::spawn(async move { dispatcher.run(invocation).await })
        })
        .collect();
    while fixture.dispatcher.stats().joins < 7 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(matches!(
            error.reason(),
            Reason::Panicked { message } if message.contains("the first run panics")
        ));
    }
    gate.add_permits(1);
    let completion = fixture.dispatcher.run(invocation).await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "calm");
}
