//! Invariant 1: a request is executed at most once at a time. All other callers wait for that
//! execution.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use manifold_dispatcher::Invocation;
use manifold_dispatcher::api::Error;
use manifold_dispatcher::native::NativeRuntime;
use manifold_testing::Fixture;
use tokio::sync::{Semaphore, mpsc};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_callers_of_a_cold_request_share_one_execution() {
    let gate = Arc::new(Semaphore::new(0));
    let runtime = NativeRuntime::builder("gated", "1")
        .guest("wait", {
            let gate = Arc::clone(&gate);
            move |guest| {
                let gate = Arc::clone(&gate);
                async move {
                    gate.acquire().await.map_err(|_| Error::guest_failed("closed"))?.forget();
                    guest.blob("done").await
                }
            }
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("wait")).args(fixture.args(&[]));
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (dispatcher, invocation) = (fixture.dispatcher.clone(), invocation.clone());
            tokio::spawn(async move { dispatcher.run(invocation).await })
        })
        .collect();
    while fixture.dispatcher.stats().joins < 63 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    for caller in callers {
        let completion = caller.await.unwrap().unwrap();
        assert_eq!(fixture.text(completion.outcome), "done");
    }
    assert_eq!(fixture.runs(), 1);
}

#[tokio::test]
async fn failures_are_shared_and_not_memoized() {
    let runs = Arc::new(AtomicUsize::new(0));
    let runtime = NativeRuntime::builder("flaky", "1")
        .guest("fail-once", {
            let runs = Arc::clone(&runs);
            move |guest| {
                let first = runs.fetch_add(1, Ordering::Relaxed) == 0;
                async move {
                    tokio::task::yield_now().await;
                    if first {
                        Err(Error::guest_failed("not today"))
                    } else {
                        guest.blob("better").await
                    }
                }
            }
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("fail-once")).args(fixture.args(&[]));
    let (one, two) = tokio::join!(
        fixture.dispatcher.run(invocation.clone()),
        fixture.dispatcher.run(invocation.clone())
    );
    assert_eq!(one.unwrap_err().to_string(), "not today");
    assert_eq!(two.unwrap_err().to_string(), "not today");
    assert_eq!(fixture.runs(), 1);
    let third = fixture.dispatcher.run(invocation).await.unwrap();
    assert_eq!(fixture.text(third.outcome), "better");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_execution_stops_before_the_next_one_starts() {
    const CANCELLED: usize = 50;
    let (started, mut starts) = mpsc::unbounded_channel();
    let (running, attempts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let runtime = NativeRuntime::builder("slow", "1")
        .guest("slow", move |guest| {
            let (started, running, attempts) =
                (started.clone(), Arc::clone(&running), Arc::clone(&attempts));
            async move {
                struct Running(Arc<AtomicUsize>);
                impl Drop for Running {
                    fn drop(&mut self) {
                        self.0.fetch_sub(1, Ordering::SeqCst);
                    }
                }
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two executions at a time");
                let _running = Running(running);
                started.send(()).map_err(|_| Error::guest_failed("the channel is closed"))?;
                while attempts.fetch_add(1, Ordering::SeqCst) < CANCELLED {
                    pending::<()>().await;
                }
                guest.blob("done").await
            }
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("slow")).args(fixture.args(&[]));
    for _ in 0..CANCELLED {
        let (dispatcher, invocation) = (fixture.dispatcher.clone(), invocation.clone());
        let caller = tokio::spawn(async move { dispatcher.run(invocation).await });
        starts.recv().await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    let completion = fixture.dispatcher.run(invocation).await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "done");
}
