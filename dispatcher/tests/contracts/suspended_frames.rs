//! Invariant 5: a frame suspended in `run` or `run_many` holds no OS thread, no run permit and no
//! slot that its children need. A recursion of any depth completes with one permit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use manifold_dispatcher::api::{
    Call, Capabilities, Code, EntryMode, Host, HostImage, Job, Limits, ObjectRef, Result, Runtime,
    TreeEntry, async_trait,
};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Budget, Dispatcher, Invocation};
use manifold_standard_guests::native_guests;
use manifold_testing::{Fixture, HoldsPermits, store_chain};
use tokio::sync::Semaphore;

fn fold_fixture() -> Fixture {
    let runtime = native_guests(NativeRuntime::builder("native", "1")).build().unwrap();
    Fixture::with(runtime, |builder| builder.permits(1))
}

/// Folds `root` with `file-count` and returns the result as text.
async fn fold(fixture: &Fixture, root: ObjectRef) -> String {
    let dispatcher: &Dispatcher = &fixture.dispatcher;
    let post = dispatcher.put_blob(fixture.image("file-count")).unwrap();
    let args = dispatcher
        .put_tree([argument("in", root), argument("post", ObjectRef::blob(post))])
        .unwrap();
    let completion =
        dispatcher.run(Invocation::new(fixture.image("fold")).args(args)).await.unwrap();
    fixture.text(completion.outcome)
}

#[test]
fn a_chain_of_100_000_levels_completes_with_one_permit_on_one_thread() {
    const LEVELS: usize = 100_000;
    let fixture = fold_fixture();
    let root = store_chain(&fixture.dispatcher, LEVELS);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(fold(&fixture, ObjectRef::tree(root))), "1\n");
    assert_eq!(fixture.runs(), 2 * LEVELS + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_100_000_entries_completes_with_one_permit() {
    const ENTRIES: usize = 100_000;
    let fixture = fold_fixture();
    let dispatcher = &fixture.dispatcher;
    let entries = (0..ENTRIES).map(|number| {
        let blob = dispatcher.put_blob(number.to_string()).unwrap();
        TreeEntry::new(format!("f{number}"), EntryMode::Blob, blob)
    });
    let root = dispatcher.put_tree(entries).unwrap();
    assert_eq!(fold(&fixture, ObjectRef::tree(root)).await, format!("{ENTRIES}\n"));
}

/// Permits are granted last in, first out within a root, so a wide and deep recursion has few live
/// frames at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_frames_are_bounded_by_depth_times_width() {
    for permits in [1, 2] {
        live_frames_are_bounded(permits).await;
    }
}

/// Runs a call that branches, with so many permits.
async fn live_frames_are_bounded(permits: usize) {
    const FANOUT: usize = 6;
    const LEVELS: usize = 6;
    const WIDTH: usize = 2;
    let live = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let runtime = NativeRuntime::builder("native", "1")
        .guest("branch", {
            let most = Arc::clone(&most);
            move |guest| {
                let (live, most) = (Arc::clone(&live), Arc::clone(&most));
                async move {
                    most.fetch_max(live.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let path = guest.text("path").await?;
                    if path.len() < LEVELS {
                        let mut calls = Vec::new();
                        for child in 0..FANOUT {
                            let path =
                                guest.host().put_blob(format!("{path}{child}").into()).await?;
                            let args =
                                guest.put_tree([argument("path", ObjectRef::blob(path))]).await?;
                            calls.push(Call { image: guest.job().image.to_string(), args });
                        }
                        for result in guest.host().run_many(calls).await {
                            result?;
                        }
                    }
                    live.fetch_sub(1, Ordering::SeqCst);
                    guest.blob(path).await
                }
            }
        })
        .build()
        .unwrap();
    let fixture = Fixture::with(runtime, |builder| builder.permits(permits).width(WIDTH));
    let invocation = Invocation::new(fixture.image("branch")).args(fixture.args(&[("path", "")]));
    fixture.dispatcher.run(invocation).await.unwrap();
    let all: usize = (0..=LEVELS as u32).map(|level| FANOUT.pow(level)).sum();
    assert_eq!(fixture.runs(), all);
    let most = most.load(Ordering::SeqCst);
    // With several permits, a thread that has nothing to do begins another part of the tree.
    let bound = if permits == 1 { 1 } else { 2 * permits } * (LEVELS * WIDTH + 1);
    assert!(
        most <= bound,
        "{most} of {all} frames were live at the same time with {permits} permits"
    );
}

/// A caller or guest may start runs and poll them again later. Other runs do not wait for that
/// poll. On one thread, no run is done before the second poll.
#[tokio::test]
async fn a_started_run_that_is_not_polled_holds_no_permit() {
    let runtime = NativeRuntime::builder("native", "1")
        .guest("echo", |guest| async move {
            tokio::task::yield_now().await;
            guest.blob(guest.text("name").await?).await
        })
        .guest("patient", |guest| async move {
            let mut calls = Vec::new();
            for name in ["x", "y", "z"] {
                let name = ObjectRef::blob(guest.host().put_blob(name.into()).await?);
                calls.push(Call {
                    image: guest.text("echo").await?,
                    args: guest.put_tree([argument("name", name)]).await?,
                });
            }
            // The first two runs are started, and polled again only after the third has completed.
            let [mut x, mut y, z] = calls
                .try_into()
                .map(|calls: [Call; 3]| calls.map(|call| guest.host().run(call)))
                .unwrap();
            assert!(
                futures_util::poll!(&mut x).is_pending()
                    && futures_util::poll!(&mut y).is_pending()
            );
            let z = z.await?;
            x.await?;
            y.await?;
            Ok(z)
        })
        .build()
        .unwrap();
    let fixture = Fixture::with(runtime, |builder| builder.permits(1));
    let echo = fixture.image("echo");
    let run = |name: &str| {
        fixture.dispatcher.run(Invocation::new(&echo).args(fixture.args(&[("name", name)])))
    };
    let finish = async {
        let (mut a, mut b) = (Box::pin(run("a")), Box::pin(run("b")));
        assert!(
            futures_util::poll!(&mut a).is_pending() && futures_util::poll!(&mut b).is_pending()
        );
        run("c").await.unwrap();
        a.await.unwrap();
        b.await.unwrap();
        let patient =
            Invocation::new(fixture.image("patient")).args(fixture.args(&[("echo", &echo)]));
        fixture.dispatcher.run(patient).await.unwrap()
    };
    let completion = tokio::time::timeout(Duration::from_secs(20), finish)
        .await
        .expect("completes within the timeout");
    assert_eq!(fixture.text(completion.outcome), "z");
}

/// A native runtime that does not finish preparing a module until the gate opens.
struct SlowToPrepare(NativeRuntime, Arc<Semaphore>);

#[async_trait]
impl Runtime for SlowToPrepare {
    fn host_image(&self) -> &HostImage {
        self.0.host_image()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn prepare(&self, _: &Code, _: &Limits, _: &dyn Host) -> Result<()> {
        self.1.acquire().await.expect("the gate is not closed").forget();
        Ok(())
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        self.0.run(job, host).await
    }
}

/// A hundred guests wait for each other: none of them can go on before all have begun.
#[tokio::test]
async fn a_native_guest_that_waits_outside_holds_no_permit() {
    const GUESTS: usize = 100;
    let barrier = Arc::new(tokio::sync::Barrier::new(GUESTS));
    let runtime = NativeRuntime::builder("native", "1").guest("meet", move |guest| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            guest.blob(guest.text("in").await?).await
        }
    });
    let fixture = Fixture::with(runtime.build().unwrap(), |builder| builder.permits(1));
    let image = fixture.image("meet");
    let runs = (0..GUESTS).map(|number| {
        let args = fixture.args(&[("in", &number.to_string())]);
        fixture.dispatcher.run(Invocation::new(&image).args(args))
    });
    for (number, completion) in futures_util::future::join_all(runs).await.iter().enumerate() {
        let outcome = completion.as_ref().unwrap().outcome;
        assert_eq!(fixture.text(outcome), number.to_string());
    }
}

#[tokio::test]
async fn preparing_a_module_holds_no_permit() {
    let gate = Arc::new(Semaphore::new(0));
    let hello = |name| {
        NativeRuntime::builder(name, "1")
            .guest("hello", |guest| async move { guest.blob("hello").await })
    };
    let slow = SlowToPrepare(hello("slow").build().unwrap(), Arc::clone(&gate));
    let slow_host = slow.host_image().id();
    let fixture =
        Fixture::with(hello("quick").build().unwrap(), |builder| builder.permits(1).runtime(slow));
    let module = ObjectRef::blob(fixture.dispatcher.put_blob("hello").unwrap());
    let slow_image = fixture.dispatcher.put_image(slow_host, module).unwrap();
    let slow_run = fixture.dispatcher.run(Invocation::new(slow_image).args(fixture.args(&[])));
    let quick_run = async {
        let completion = fixture
            .dispatcher
            .run(Invocation::new(fixture.image("hello")).args(fixture.args(&[])))
            .await;
        gate.add_permits(1);
        completion
    };
    let both = async { tokio::join!(slow_run, quick_run) };
    let (slow, quick) = tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .expect("completes within the timeout");
    assert_eq!(slow.unwrap().outcome, quick.unwrap().outcome);
}

/// Permits are granted round-robin across roots, so a small fold completes before an earlier huge
/// one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_root_is_not_starved() {
    let fixture = fold_fixture();
    let dispatcher = &fixture.dispatcher;
    let huge = (0..20_000).map(|number| {
        let blob = dispatcher.put_blob(format!("huge {number}")).unwrap();
        TreeEntry::new(format!("f{number}"), EntryMode::Blob, blob)
    });
    let huge = dispatcher.put_tree(huge).unwrap();
    let small = store_chain(dispatcher, 5);
    let (huge_done, small_done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let order = AtomicUsize::new(1);
    tokio::join!(
        async {
            fold(&fixture, ObjectRef::tree(huge)).await;
            huge_done.store(order.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        },
        async {
            fold(&fixture, ObjectRef::tree(small)).await;
            small_done.store(order.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        }
    );
    assert_eq!((small_done.into_inner(), huge_done.into_inner()), (1, 2));
}

/// A turn of a root call whose frames are slow ends after a frame, whatever threads they are on.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_root_call_does_not_wait_for_the_slow_frames_of_another() {
    for permits in [1, 2] {
        let runtime = NativeRuntime::builder("slow", "1")
            .guest("leaf", |guest| async move {
                std::thread::sleep(Duration::from_millis(15));
                guest.blob(guest.bytes("number").await?).await
            })
            .guest("wide", |guest| async move {
                let image = guest.text("leaf").await?;
                let mut calls = Vec::new();
                for number in 0..120 {
                    let number = guest.host().put_blob(format!("{number}").into()).await?;
                    let args = [argument("number", ObjectRef::blob(number))];
                    calls.push(Call { image: image.clone(), args: guest.put_tree(args).await? });
                }
                guest.host().run_many(calls).await.pop().expect("there are calls")
            })
            .build()
            .unwrap();
        let fixture = Fixture::with(runtime, |builder| builder.permits(permits));
        let leaf = fixture.image("leaf");
        let run = |invocation: Invocation| {
            let dispatcher = fixture.dispatcher.clone();
            tokio::spawn(async move { dispatcher.run(invocation).await })
        };
        let wide =
            run(Invocation::new(fixture.image("wide")).args(fixture.args(&[("leaf", &leaf)])));
        while fixture.runs() < 2 {
            tokio::task::yield_now().await;
        }
        let alone = Invocation::new(&leaf).args(fixture.args(&[("number", "another")]));
        run(alone).await.unwrap().unwrap();
        let runs = fixture.runs();
        assert!(runs < 80, "{runs} of 121 runs were started before it, with {permits} permits");
        wide.await.unwrap().unwrap();
    }
}

/// A call that joins a run at the end of another root's queue does not wait for the runs before it.
#[tokio::test]
async fn a_root_that_joins_a_queued_run_is_not_starved() {
    const CHILDREN: usize = 300;
    let runtime = NativeRuntime::builder("wide", "1")
        .guest("leaf", |guest| async move {
            tokio::task::yield_now().await;
            guest.blob(guest.bytes("number").await?).await
        })
        .guest("wide", |guest| async move {
            let image = guest.text("leaf").await?;
            let mut calls = Vec::new();
            for number in 0..CHILDREN {
                let number =
                    ObjectRef::blob(guest.host().put_blob(number.to_string().into()).await?);
                calls.push(Call {
                    image: image.clone(),
                    args: guest.put_tree([argument("number", number)]).await?,
                });
            }
            for result in guest.host().run_many(calls).await {
                result?;
            }
            guest.blob("all").await
        })
        .build()
        .unwrap();
    let fixture = Fixture::with(HoldsPermits(runtime), |builder| builder.permits(1));
    let leaf = fixture.image("leaf");
    let wide = Invocation::new(fixture.image("wide")).args(fixture.args(&[("leaf", &leaf)]));
    let wide = tokio::spawn({
        let dispatcher = fixture.dispatcher.clone();
        async move { dispatcher.run(wide).await }
    });
    while fixture.runs() < 2 {
        tokio::task::yield_now().await;
    }
    // The first child runs. The second one has waited longest, and so is last in the queue.
    let first = Invocation::new(&leaf)
        .args(fixture.args(&[("number", "1")]))
        .budget(Budget::new().deadline(Duration::from_secs(5)));
    fixture.dispatcher.run(first).await.unwrap();
    assert_eq!(fixture.dispatcher.stats().joins, 1, "the call joined the queued run");
    // A root call has its turn after at most 64 runs of another one.
    assert!(fixture.runs() < 80, "{} runs were started before it", fixture.runs());
    wide.await.unwrap().unwrap();
}
