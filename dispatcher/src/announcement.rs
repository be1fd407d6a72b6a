//! A value that is published once to every task that waits for it.
//!
//! tokio's `watch` channel publishes values that change. It goes through eight lists of waiters at
//! every change and when it is dropped, which would take a twentieth of the time of a small frame.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;

use crate::sync::Mutex;

/// A value that is published once. Any number of tasks can wait for it.
pub(crate) struct Announcement<T>(Mutex<State<T>>);

struct State<T> {
    value: Option<T>,
    /// The wakers of the waiting tasks, each with a number.
    waiters: SmallVec<[(u64, Waker); 1]>,
    next: u64,
}

impl<T: Clone> Announcement<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State { value: None, waiters: SmallVec::new(), next: 0 }))
    }

    /// Publishes `value` and wakes the waiting tasks. Does nothing if a value was published before.
    pub(crate) fn announce(&self, value: T) {
        let waiters = {
            let mut state = self.0.lock();
            if state.value.is_some() {
                return;
            }
            state.value = Some(value);
            std::mem::take(&mut state.waiters)
        };
        waiters.into_iter().for_each(|(_, waker)| waker.wake());
    }

    pub(crate) fn is_announced(&self) -> bool {
        self.0.lock().value.is_some()
    }

    /// Returns a future that resolves to the value.
    pub(crate) fn wait(&self) -> Waiting<'_, T> {
        Waiting { announcement: self, number: None }
    }
}

/// The future of [`Announcement::wait`].
pub(crate) struct Waiting<'a, T> {
    announcement: &'a Announcement<T>,
    number: Option<u64>,
}

impl<T: Clone> Future for Waiting<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let announcement = self.announcement;
        let mut state = announcement.0.lock();
        if let Some(value) = &state.value {
            return Poll::Ready(value.clone());
        }
        let number = self.number;
        let place = state.waiters.iter_mut().find(|(other, _)| Some(*other) == number);
        // The replaced waker is dropped after the lock is released.
        let mut _replaced = None;
        match place {
            Some((_, waker)) if waker.will_wake(context.waker()) => {}
            Some((_, waker)) => _replaced = Some(std::mem::replace(waker, context.waker().clone())),
            None => {
                let next = state.next;
                state.next += 1;
                state.waiters.push((next, context.waker().clone()));
                self.number = Some(next);
            }
        }
        drop(state);
        Poll::Pending
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let waker = {
            let mut state = self.announcement.0.lock();
            let place = state.waiters.iter().position(|(other, _)| *other == number);
            place.map(|place| state.waiters.swap_remove(place))
        };
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use shuttle::future::{block_on, spawn, yield_now};
    use shuttle::rand::{Rng, thread_rng};

    use super::*;

    // Tasks wait early or late, and some stop waiting and start again. Every task that keeps
    // waiting gets the value, and no waker is kept.
    #[test]
    fn every_waiter_gets_the_first_value() {
        shuttle::check_random(
            || {
                let announcement = Arc::new(Announcement::new());
                let waiting: Vec<_> = (0..4)
                    .map(|_| {
                        let announcement = Arc::clone(&announcement);
                        spawn(async move {
                            if thread_rng().gen_bool(0.5) {
                                yield_now().await;
                            }
                            if thread_rng().gen_bool(0.3) {
                                let mut abandoned = announcement.wait();
                                let _ = (&mut abandoned).now_or_never();
                            }
                            assert_eq!(announcement.wait().await, 7);
                        })
                    })
                    .collect();
                let announcer = {
                    let announcement = Arc::clone(&announcement);
                    spawn(async move {
                        announcement.announce(7);
                        announcement.announce(8);
                    })
                };
                block_on(futures_util::future::join_all(waiting.into_iter().chain([announcer])));
                assert!(announcement.is_announced() && announcement.0.lock().waiters.is_empty());
            },
            2000,
        );
    }

    #[test]
    fn polling_again_registers_no_second_waker() {
        shuttle::check_random(
            || {
                let announcement = Announcement::<u8>::new();
                let mut waiting = announcement.wait();
                for _ in 0..3 {
                    assert!((&mut waiting).now_or_never().is_none());
                }
                assert_eq!(announcement.0.lock().waiters.len(), 1);
                drop(waiting);
                assert!(announcement.0.lock().waiters.is_empty());
            },
            10,
        );
    }
}
