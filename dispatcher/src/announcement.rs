//! A value that comes once, and is told to all who wait for it.
//!
//! tokio's `watch` channel tells values that change, and goes through eight lists of waiters at every change and at its end: a
//! twentieth of a small frame.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;

use crate::sync::Mutex;

pub(crate) struct Announcement<T>(Mutex<State<T>>);

struct State<T> {
    value: Option<T>,
    /// Who waits, by number.
    waiting: SmallVec<[(u64, Waker); 1]>,
    next: u64,
}

impl<T: Clone> Announcement<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State { value: None, waiting: SmallVec::new(), next: 0 }))
    }

    /// Announces `value`, unless something was announced before.
    pub(crate) fn announce(&self, value: T) {
        let waiting = {
            let mut state = self.0.lock();
            if state.value.is_some() {
                return;
            }
            state.value = Some(value);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    pub(crate) fn is_announced(&self) -> bool {
        self.0.lock().value.is_some()
    }

    /// Waits for the value.
    pub(crate) fn wait(&self) -> Waiting<'_, T> {
        Waiting { announcement: self, number: None }
    }
}

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
        let place = state.waiting.iter_mut().find(|(other, _)| Some(*other) == number);
        // Dropped when the lock is free again.
        let mut _before = None;
        match place {
            Some((_, waker)) if waker.will_wake(context.waker()) => {}
            Some((_, waker)) => _before = Some(std::mem::replace(waker, context.waker().clone())),
            None => {
                let next = state.next;
                state.next += 1;
                state.waiting.push((next, context.waker().clone()));
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
            let place = state.waiting.iter().position(|(other, _)| *other == number);
            place.map(|place| state.waiting.swap_remove(place))
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

    // Some come early, some late, some leave and come again: everybody who stays is told, and nobody's waker is kept.
    #[test]
    fn everybody_who_waits_is_told() {
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
                                let mut left = announcement.wait();
                                let _ = (&mut left).now_or_never();
                            }
                            assert_eq!(announcement.wait().await, 7);
                        })
                    })
                    .collect();
                let speaker = {
                    let announcement = Arc::clone(&announcement);
                    spawn(async move {
                        announcement.announce(7);
                        announcement.announce(8);
                    })
                };
                block_on(futures_util::future::join_all(waiting.into_iter().chain([speaker])));
                assert!(announcement.is_announced() && announcement.0.lock().waiting.is_empty());
            },
            2000,
        );
    }

    #[test]
    fn one_that_is_polled_again_has_one_place() {
        shuttle::check_random(
            || {
                let announcement = Announcement::<u8>::new();
                let mut waiting = announcement.wait();
                for _ in 0..3 {
                    assert!((&mut waiting).now_or_never().is_none());
                }
                assert_eq!(announcement.0.lock().waiting.len(), 1);
                drop(waiting);
                assert!(announcement.0.lock().waiting.is_empty());
            },
            10,
        );
    }
}
