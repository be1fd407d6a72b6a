//! Run permits: how many frames compute at once, and who is next.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The caller from outside that a frame works for, directly or not.
pub(crate) type RootId = u64;

/// A fixed number of permits.
///
/// Within one root the last who asked is served first, so that a recursion goes deep before it goes wide and the number of
/// frames under way stays near depth times width. Roots take turns.
pub(crate) struct Permits {
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// Roots with somebody waiting, the next one to be served in front. No stack is empty.
    waiting: VecDeque<(RootId, Vec<oneshot::Sender<Permit>>)>,
}

/// The right to compute. Dropping it passes it on.
pub(crate) struct Permit {
    /// `None` once the right is passed on.
    permits: Option<Arc<Permits>>,
}

/// A place in the queue, taken at once; awaiting it waits for the permit.
pub(crate) enum Queued {
    Granted(Permit),
    Waiting(oneshot::Receiver<Permit>),
}

impl Permits {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { free: count, waiting: VecDeque::new() }) })
    }

    /// Asks for a permit on behalf of `root`.
    pub(crate) fn queue(self: &Arc<Self>, root: RootId) -> Queued {
        let mut state = self.state.lock();
        if state.free > 0 {
            state.free -= 1;
            return Queued::Granted(Permit { permits: Some(Arc::clone(self)) });
        }
        let (sender, receiver) = oneshot::channel();
        match state.waiting.iter_mut().find(|(waiting, _)| *waiting == root) {
            Some((_, stack)) => stack.push(sender),
            None => state.waiting.push_back((root, vec![sender])),
        }
        Queued::Waiting(receiver)
    }

    fn next(&self) -> Option<oneshot::Sender<Permit>> {
        let mut state = self.state.lock();
        let Some((root, mut stack)) = state.waiting.pop_front() else {
            state.free += 1;
            return None;
        };
        let next = stack.pop();
        if !stack.is_empty() {
            state.waiting.push_back((root, stack));
        }
        next
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(permits) = self.permits.take() else { return };
        // Whoever gave up waiting is passed over.
        while let Some(next) = permits.next() {
            match next.send(Self { permits: Some(Arc::clone(&permits)) }) {
                Ok(()) => return,
                Err(mut refused) => refused.permits = None,
            }
        }
    }
}

impl Queued {
    /// Waits for the permit.
    pub(crate) async fn permit(self) -> Permit {
        match self {
            Self::Granted(permit) => permit,
            // The sender stays in the queue until it is served, so an error cannot come before the queue itself is gone.
            Self::Waiting(receiver) => receiver.await.unwrap_or(Permit { permits: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(queued: Queued) -> oneshot::Receiver<Permit> {
        match queued {
            Queued::Waiting(receiver) => receiver,
            Queued::Granted(_) => panic!("no permit was free"),
        }
    }

    #[tokio::test]
    async fn the_last_who_asked_is_served_first_and_roots_take_turns() {
        let permits = Permits::new(1);
        let held = permits.queue(1).permit().await;
        let mut queue: Vec<_> = [1, 1, 2].map(|root| Some(waiting(permits.queue(root)))).into_iter().collect();
        let mut order = Vec::new();
        let mut held = Some(held);
        while queue.iter().any(Option::is_some) {
            drop(held.take());
            for (name, place) in queue.iter_mut().enumerate() {
                if let Some(receiver) = place
                    && let Ok(permit) = receiver.try_recv()
                {
                    held = Some(permit);
                    order.push(name);
                    *place = None;
                }
            }
        }
        assert_eq!(order, [1, 2, 0]);
    }

    #[tokio::test]
    async fn whoever_gave_up_is_passed_over() {
        let permits = Permits::new(1);
        let held = permits.queue(1).permit().await;
        let patient = waiting(permits.queue(1));
        drop(permits.queue(1));
        drop(permits.queue(1));
        drop(held);
        drop(patient.await);
        assert!(matches!(permits.queue(1), Queued::Granted(_)));
    }
}
