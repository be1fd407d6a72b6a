//! [`Suspension`]: when a frame holds a run permit.
//!
//! A frame computes with a permit. It gives the permit up while its guest waits for nested runs,
//! and gets one again before the guest goes on, from the queue or from a nested run that settles. A
//! guest that computes only while it is polled also gives the permit up while it waits for
//! something outside of the dispatcher, such as a timer.

use std::future::{Future, poll_fn};
use std::mem::{replace, take};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::clock::{Clock, Queueing};
use crate::flight::Flight;
use crate::permits::{Permits, Queued, RootId};
use crate::span::{FrameSpan, InPhase};
use crate::sync::Mutex;

/// The permit of one frame, and the futures of its guest that wait.
pub(crate) struct Suspension {
    flight: Arc<Flight>,
    permits: Arc<Permits>,
    clock: Arc<Clock>,
    root: RootId,
    /// Whether the guest computes only while it is polled.
    computes_only_when_polled: bool,
    waiting: Mutex<Waiting>,
    /// The span of the frame, if spans are observed.
    span: Option<Arc<FrameSpan>>,
}

/// The futures of one frame that wait for nested runs or for a permit.
///
/// There can be several, and a guest does not necessarily poll one of them when another is woken.
#[derive(Default)]
struct Waiting {
    /// The number of futures that wait for nested runs.
    suspended: usize,
    /// The number of futures that wait for a permit.
    resuming: usize,
    /// The wakers of the futures that wait for a permit.
    wakers: Vec<Waker>,
    /// Whether one of the futures that wait for a permit was polled since the guest was last polled.
    polled: bool,
    /// The place in the permit queue that these futures share with a guest that returns from
    /// outside: one permit is enough for the frame, and there may be no second one. It wakes the
    /// guest's own task.
    place: Option<Queued>,
    /// Whether the place was found granted while no future took the permit.
    seen_idle: bool,
    /// Whether the guest is being polled. The state is then checked after the poll.
    polling: bool,
    /// Whether the guest waits for something outside of the dispatcher, without a permit.
    outside: Outside,
    /// Whether the guest has ended. Tasks that it left behind get no more permits or runs.
    ended: bool,
}

/// Whether a guest that computes only while it is polled has given up its permit.
#[derive(Default)]
enum Outside {
    /// It has not.
    #[default]
    No,
    /// It has, and waits. The time counts as computing in the clock, so that a deadline covers it.
    Waiting { _span: Option<InPhase> },
    /// It was woken, and waits for a permit before it is polled.
    Returning { _queueing: Queueing, _span: Option<InPhase> },
}

impl Suspension {
    pub(crate) fn new(
        flight: Arc<Flight>,
        permits: Arc<Permits>,
        clock: Arc<Clock>,
        root: RootId,
        computes_only_when_polled: bool,
        span: Option<Arc<FrameSpan>>,
    ) -> Self {
        let waiting = Mutex::default();
        Self { flight, permits, clock, root, computes_only_when_polled, waiting, span }
    }

    pub(crate) const fn span(&self) -> Option<&Arc<FrameSpan>> {
        self.span.as_ref()
    }

    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// Returns whether the guest has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.waiting.lock().ended
    }

    /// Polls the guest until it ends. While the guest can do nothing before a nested run settles or
    /// a permit is granted, the frame holds no permit: neither one from a nested run whose result
    /// the guest has not polled for yet, nor one from the queue for a future that the guest does
    /// not poll. The guest is polled whenever a permit is granted, so that this is checked.
    pub(crate) async fn watched<T>(&self, guest: impl Future<Output = T>) -> T {
        let _ended = EndGuard(self);
        let mut guest = pin!(guest);
        poll_fn(|context| {
            self.flight.set_guest_waker(context.waker());
            let (unused, wakers) = {
                let mut waiting = self.waiting.lock();
                if self.computes_only_when_polled
                    && self.poll_return(&mut waiting, context).is_pending()
                {
                    return Poll::Pending;
                }
                (waiting.polling, waiting.polled) = (true, false);
                // The futures that wait for a permit use the one of the guest or of the place.
                let can_go_on = waiting.is_granted() || self.flight.has_permit();
                let wakers = if can_go_on { take(&mut waiting.wakers) } else { Vec::new() };
                (waiting.unused_place(), wakers)
            };
            drop(unused);
            wakers.into_iter().for_each(Waker::wake);
            let polled = guest.as_mut().poll(context);
            if polled.is_pending() {
                self.release(context);
            }
            polled
        })
        .await
    }

    /// Gets a permit for a guest that has waited outside of the dispatcher, or whose last future
    /// that would have got one was dropped. The permit can also come from a nested run of a task
    /// that the guest started.
    fn poll_return(&self, waiting: &mut Waiting, context: &mut Context<'_>) -> Poll<()> {
        let has_permit = self.flight.has_permit();
        if matches!(waiting.outside, Outside::No) && (has_permit || waiting.has_futures()) {
            return Poll::Ready(());
        }
        if !has_permit {
            let place = waiting.place.take().unwrap_or_else(|| self.permits.queue(self.root));
            match place.poll(context) {
                Ok(permit) => self.flight.keep_permit(permit),
                Err(place) => {
                    waiting.place = Some(place);
                    if !matches!(waiting.outside, Outside::Returning { .. }) {
                        let returning = Outside::Returning {
                            _queueing: self.clock.queue(),
                            _span: self.span().map(|span| span.queued()),
                        };
                        self.leave(replace(&mut waiting.outside, returning));
                    }
                    return Poll::Pending;
                }
            }
        }
        self.leave(take(&mut waiting.outside));
        Poll::Ready(())
    }

    /// Records in the clock that the guest no longer waits outside of the dispatcher.
    fn leave(&self, outside: Outside) {
        if matches!(outside, Outside::Waiting { .. }) {
            self.clock.stop_computing();
        }
    }

    /// Releases the permits that the frame cannot use, after the guest was polled.
    fn release(&self, context: &Context<'_>) {
        let (permit, place, wakers) = {
            let mut waiting = self.waiting.lock();
            waiting.polling = false;
            if !waiting.has_futures() {
                if self.computes_only_when_polled
                    && let Some(permit) = self.flight.lend_permit()
                {
                    let _span = self.span().map(|span| span.outside());
                    waiting.outside = Outside::Waiting { _span };
                    drop(waiting);
                    drop(permit);
                }
                return;
            }
            let permit = self.flight.take_permit();
            // A future that was polled just now will take a permit that was granted since. A task
            // of the guest that was woken just now may take it as well, so an unused permit is
            // released only at the next poll.
            let idle = !waiting.polled && waiting.is_granted();
            let mut place = None;
            if idle && waiting.seen_idle {
                place = waiting.place.take();
            } else if idle {
                context.waker().wake_by_ref();
            }
            waiting.seen_idle = idle && place.is_none();
            let released = permit.is_some() || place.is_some();
            (permit, place, if released { take(&mut waiting.wakers) } else { Vec::new() })
        };
        drop((permit, place));
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits for nested runs without a permit.
    pub(crate) async fn suspended<T>(&self, nested: impl Future<Output = T>) -> T {
        let _suspended = Counted::new(self, |waiting| &mut waiting.suspended);
        let mut nested = pin!(nested);
        poll_fn(|context| {
            let polled = nested.as_mut().poll(context);
            if polled.is_pending() {
                // While the guest is polled, its permit is in use: it may be another task that
                // waits here. The permit is released after the poll.
                let waiting = self.waiting.lock();
                let is_in_use = waiting.ended || waiting.polling;
                let permit = if is_in_use { None } else { self.flight.take_permit() };
                drop(waiting);
                drop(permit);
            }
            polled
        })
        .await
    }

    /// Gets a permit from the queue, or from a nested run that settles in the meantime.
    pub(crate) async fn resume(&self) {
        if self.flight.has_permit() {
            return;
        }
        let _queueing = self.clock.queue();
        let _queued = self.span().map(|span| span.queued());
        let _resuming = Counted::new(self, |waiting| &mut waiting.resuming);
        poll_fn(|context| {
            let mut waiting = self.waiting.lock();
            waiting.polled = true;
            if !waiting.ended && !self.flight.has_permit() {
                let place = waiting.place.take().unwrap_or_else(|| self.permits.queue(self.root));
                let guest = self.flight.guest_waker().unwrap_or_else(|| context.waker().clone());
                match place.poll(&mut Context::from_waker(&guest)) {
                    Ok(permit) => {
                        self.flight.keep_permit(permit);
                        // A task that the guest started takes the permit. The guest has to be
                        // polled, so that it releases the permit when that task waits again or
                        // ends.
                        if !waiting.polling {
                            guest.wake();
                        }
                    }
                    Err(place) => {
                        waiting.place = Some(place);
                        if !waiting.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                            waiting.wakers.push(context.waker().clone());
                        }
                        return Poll::Pending;
                    }
                }
            }
            // The other futures of the frame use the same permit. They are woken when this future
            // is dropped.
            Poll::Ready(())
        })
        .await;
    }
}

/// Marks the guest as ended when dropped, and wakes the futures that wait for a permit.
struct EndGuard<'a>(&'a Suspension);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        let (place, outside, wakers) = {
            let mut waiting = self.0.waiting.lock();
            waiting.ended = true;
            (waiting.place.take(), take(&mut waiting.outside), take(&mut waiting.wakers))
        };
        self.0.leave(outside);
        drop(place);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Waiting {
    fn has_futures(&self) -> bool {
        self.suspended + self.resuming > 0
    }

    fn is_granted(&self) -> bool {
        self.place.as_ref().is_some_and(Queued::is_granted)
    }

    /// Takes the place in the permit queue if neither a future nor the guest waits for a permit.
    fn unused_place(&mut self) -> Option<Queued> {
        let is_used = self.resuming > 0 || matches!(self.outside, Outside::Returning { .. });
        if is_used { None } else { self.place.take() }
    }
}

/// Counts a waiting future until dropped. Then it wakes the futures that wait for a permit, so that
/// they check again.
struct Counted<'a> {
    frame: &'a Suspension,
    count: fn(&mut Waiting) -> &mut usize,
}

impl<'a> Counted<'a> {
    fn new(frame: &'a Suspension, count: fn(&mut Waiting) -> &mut usize) -> Self {
        *count(&mut frame.waiting.lock()) += 1;
        Self { frame, count }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let (place, wakers) = {
            let mut waiting = self.frame.waiting.lock();
            *(self.count)(&mut waiting) -= 1;
            (waiting.unused_place(), take(&mut waiting.wakers))
        };
        drop(place);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests;
