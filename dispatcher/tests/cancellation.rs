//! Invariant 3: work is cancelled when, and only when, its last waiter is gone. Cancelled work is not memoized.

mod fixture;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fixture::Fixture;
use manifold_dispatcher::Invocation;
use manifold_dispatcher::api::{ErrorKind, Reason};
use manifold_dispatcher::native::NativeRuntime;
use tokio::sync::{Semaphore, mpsc};

/// Tells when it is dropped.
struct Telltale(mpsc::UnboundedSender<&'static str>, &'static str);

impl Drop for Telltale {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_waiter_takes_the_whole_chain_with_it() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let runtime = NativeRuntime::builder("native", "1")
        .guest("parent", {
            let tell = tell.clone();
            move |guest| {
                let telltale = Telltale(tell.clone(), "parent");
                async move {
                    let _telltale = telltale;
                    let args = guest.put_tree([]).await?;
                    guest.run(&guest.text("child").await?, args).await
                }
            }
        })
        .guest("child", move |guest| {
            let telltale = Telltale(tell.clone(), "child");
            let _ = tell.send("started");
            async move {
                let _telltale = telltale;
                pending::<()>().await;
                guest.blob("never").await
            }
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(
        fixture.image("parent"),
        fixture.args(&[("child", &fixture.image("child"))]),
    );
    let callers = [(); 2].map(|()| {
        let (dispatcher, invocation) = (fixture.dispatcher.clone(), invocation.clone());
        tokio::spawn(async move { dispatcher.run(invocation).await })
    });
    while fixture.dispatcher.stats().joins < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(told.recv().await, Some("started"));

    let [one, two] = callers;
    one.abort();
    assert!(one.await.unwrap_err().is_cancelled());
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(told.try_recv().is_err(), "somebody still waits");

    two.abort();
    assert_eq!(told.recv().await, Some("parent"));
    assert_eq!(told.recv().await, Some("child"));
    assert_eq!(fixture.journal.memoized.lock().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_another_chain_wants_lives_on() {
    let gate = Arc::new(Semaphore::new(0));
    let (tell, mut told) = mpsc::unbounded_channel();
    let runtime = NativeRuntime::builder("native", "1")
        .guest("parent", |guest| async move {
            let args = guest.put_tree([]).await?;
            guest.run(&guest.text("child").await?, args).await
        })
        .guest("child", {
            let gate = Arc::clone(&gate);
            move |guest| {
                let gate = Arc::clone(&gate);
                let _ = tell.send("started");
                async move {
                    gate.acquire().await.expect("the gate stays").forget();
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
        let invocation = Invocation::new(fixture.image("parent"), args);
        tokio::spawn(async move { dispatcher.run(invocation).await })
    });
    told.recv().await;
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
async fn a_panic_wakes_the_others_and_the_next_caller_runs_afresh() {
    let panicked = Arc::new(AtomicBool::new(false));
    let gate = Arc::new(Semaphore::new(0));
    let runtime = NativeRuntime::builder("native", "1")
        .guest("panic-once", {
            let gate = Arc::clone(&gate);
            move |guest| {
                let (gate, panicked) = (Arc::clone(&gate), Arc::clone(&panicked));
                async move {
                    gate.acquire().await.expect("the gate stays").forget();
                    assert!(panicked.swap(true, Ordering::SeqCst), "the first run panics");
                    guest.blob("calm").await
                }
            }
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("panic-once"), fixture.args(&[]));
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
        assert!(
            matches!(error.reason(), Reason::Panicked { message } if message.contains("the first run panics"))
        );
    }
    gate.add_permits(1);
    let completion = fixture.dispatcher.run(invocation).await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "calm");
}
