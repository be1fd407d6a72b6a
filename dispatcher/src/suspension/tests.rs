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
    let (flight, _) = Flight::new(serial, request, 0, Arc::clone(&clock));
    flight.keep_permit(permits.queue(serial).permit().await);
    Arc::new(Suspension::new(flight, Arc::clone(permits), clock, serial, true))
}

/// Counts the frames that compute at the same time.
#[derive(Default)]
struct Computing(AtomicUsize);

impl Computing {
    async fn step(&self, frame: &Suspension, bound: usize) {
        assert!(frame.flight().has_permit(), "a guest computes without a permit");
        assert!(self.0.fetch_add(1, Ordering::SeqCst) < bound, "too many frames compute");
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits for a nested run, which another task settles some time.
async fn nested(frame: &Suspension) {
    let (settle, settled) = oneshot::channel();
    spawn(async move {
        yield_now().await;
        let _ = settle.send(());
    });
    let _ = frame.suspended(settled).await;
    frame.resume().await;
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

fn all_are_free(permits: &Arc<Permits>, count: usize) -> bool {
    let queued: Vec<_> = (0..count).map(|_| permits.queue(99)).collect();
    queued.iter().all(Queued::is_granted)
}

// However guests compute, wait for nested runs and wait for other things, no more of them compute
// at once than there are permits, each that computes has one, and in the end all permits are free.
#[test]
fn a_guest_computes_only_with_a_permit_and_returns_it() {
    const PERMITS: usize = 2;
    shuttle::check_random(
        || {
            let permits = Permits::new(PERMITS);
            let computing = Arc::new(Computing::default());
            let guests = (0..4).map(|serial| {
                let (permits, computing) = (Arc::clone(&permits), Arc::clone(&computing));
                spawn(async move {
                    let frame = frame(&permits, serial).await;
                    let guest = async {
                        for _ in 0..3 {
                            match thread_rng().gen_range(0..4) {
                                0 => nested(&frame).await,
                                1 => outside().await,
                                2 => drop(join(nested(&frame), nested(&frame)).await),
                                _ => {}
                            }
                            computing.step(&frame, PERMITS).await;
                        }
                    };
                    frame.watched(guest).await;
                    drop(frame.flight().end());
                })
            });
            block_on(join_all(guests.collect::<Vec<_>>()));
            assert!(all_are_free(&permits, PERMITS));
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
            assert!(all_are_free(&permits, 1));
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
            assert!(all_are_free(&permits, 1));
        },
        500,
    );
}
