//! Every test runs under shuttle, which tries random interleavings at the locks of flights, permits
//! and frames.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use manifold_runtime_api::{ObjectId, ObjectKind};
use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};
use tokio::sync::oneshot;

use super::*;

/// A frame that has a permit.
async fn frame(permits: &Arc<Permits>, serial: u64) -> Arc<Suspension> {
    let request = ObjectId::of(ObjectKind::Blob, &serial.to_le_bytes());
    let clock = Clock::start();
    let (flight, _) = Flight::new(request, 0, Arc::clone(&clock), None);
    flight.keep_permit(permits.queue(serial).permit().await);
    Arc::new(Suspension::new(flight, Arc::clone(permits), clock, serial, true, None))
}

/// Counts the frames that compute at the same time.
#[derive(Default)]
struct Computing(AtomicUsize);

impl Computing {
    async fn step(&self, frame: &Suspension, bound: usize) {
        // A guest whose tasks still wait for nested runs is polled without a permit, because the
        // poll may be what one of them needs to go on.
        if frame.waiting.lock().has_futures() {
            return;
        }
        assert!(frame.flight().has_permit(), "a guest computes without a permit");
        assert!(self.0.fetch_add(1, Ordering::SeqCst) < bound, "too many frames compute");
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits for a nested run, which another task executes with a permit of its own. That task passes
/// the permit to the frame or gives it back.
async fn nested(frame: &Arc<Suspension>) {
    let (settle, settled) = oneshot::channel();
    let parent = Arc::clone(frame);
    spawn(async move {
        let permit = parent.permits.queue(parent.root).permit().await;
        yield_now().await;
        if thread_rng().gen_bool(0.5) {
            parent.flight.keep_permit(permit);
        } else {
            drop(permit);
        }
        let _ = settle.send(());
        if let Some(guest) = parent.flight.guest_waker() {
            guest.wake();
        }
    });
    let _ = frame.suspended(settled).await;
    frame.resume().await;
}

/// Starts a task that waits for a nested run, and waits for that task.
async fn in_a_task(frame: &Arc<Suspension>) {
    let host = Arc::clone(frame);
    let task = spawn(async move { nested(&host).await });
    match thread_rng().gen_range(0..4) {
        0 => outside().await,
        1 => nested(frame).await,
        2 => task.abort(),
        _ => {}
    }
    let _ = task.await;
}

/// Waits for something outside of the dispatcher.
async fn outside() {
    let (finish, finished) = oneshot::channel();
    spawn(async move {
        yield_now().await;
        let _ = finish.send(());
    });
    let _ = finished.await;
}

/// Waits until all permits are free: nested runs may outlast the guests that waited for them. If a
/// permit is lost, shuttle reports a deadlock.
fn wait_until_all_are_free(permits: &Arc<Permits>, count: usize) {
    let queued = (0..count).map(|_| permits.queue(99).permit());
    drop(block_on(join_all(queued)));
}

// However guests compute, wait for nested runs and wait for other things, no more of them compute
// at once than there are permits, each that computes has one, and in the end all permits are free.
#[test]
fn a_guest_computes_only_with_a_permit_and_returns_it() {
    shuttle::check_random(
        || {
            let count = thread_rng().gen_range(1..3);
            let permits = Permits::new(count);
            let computing = Arc::new(Computing::default());
            let guests = (0..4).map(|serial| {
                let (permits, computing) = (Arc::clone(&permits), Arc::clone(&computing));
                spawn(async move {
                    let frame = frame(&permits, serial).await;
                    let guest = async {
                        for _ in 0..3 {
                            match thread_rng().gen_range(0..5) {
                                0 => nested(&frame).await,
                                1 => outside().await,
                                2 => drop(join(nested(&frame), nested(&frame)).await),
                                3 => in_a_task(&frame).await,
                                _ => {}
                            }
                            computing.step(&frame, count).await;
                        }
                    };
                    frame.watched(guest).await;
                    drop(frame.flight().end());
                })
            });
            block_on(join_all(guests.collect::<Vec<_>>()));
            wait_until_all_are_free(&permits, count);
        },
        3000,
    );
}

#[test]
fn a_guest_that_waits_outside_leaves_its_permit_to_others() {
    shuttle::check_random(
        || {
            let permits = Permits::new(1);
            let (finish, finished) = oneshot::channel::<()>();
            let first = {
                let permits = Arc::clone(&permits);
                async move {
                    let frame = frame(&permits, 1).await;
                    frame.watched(finished).await.unwrap();
                    assert!(frame.flight().has_permit());
                    drop(frame.flight().end());
                }
            };
            let second = {
                let permits = Arc::clone(&permits);
                async move {
                    // With the first one's permit, or before it.
                    let frame = frame(&permits, 2).await;
                    frame.watched(async {}).await;
                    drop(frame.flight().end());
                    finish.send(()).unwrap();
                }
            };
            block_on(join(spawn(first), spawn(second)).map(drop));
            wait_until_all_are_free(&permits, 1);
        },
        500,
    );
}

#[test]
fn a_guest_that_is_dropped_while_it_waits_leaves_nothing_behind() {
    shuttle::check_random(
        || {
            let permits = Permits::new(1);
            let dropped = {
                let permits = Arc::clone(&permits);
                spawn(async move {
                    let frame = frame(&permits, 1).await;
                    let never = async {
                        if thread_rng().gen_bool(0.5) {
                            nested(&frame).await;
                        }
                        std::future::pending::<()>().await;
                    };
                    let mut guest = Box::pin(frame.watched(never));
                    for _ in 0..thread_rng().gen_range(1..4) {
                        assert!(guest.as_mut().now_or_never().is_none());
                        yield_now().await;
                    }
                    drop(guest);
                    drop(frame.flight().end());
                })
            };
            block_on(dropped).unwrap();
            wait_until_all_are_free(&permits, 1);
        },
        500,
    );
}
