//! [`Stacks`]: the waiting tickets of one thread, of each root call apart.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::{RootId, Ticket};

/// The waiting tickets of one thread: a stack for each root call. Root calls take turns.
#[derive(Default)]
pub(super) struct Stacks {
    /// The root call whose turn it is, and its tickets.
    current: (RootId, VecDeque<Ticket>),
    /// How many permits it has got in this turn.
    granted: usize,
    /// When the turn began.
    began: Option<Instant>,
    /// The tickets of the other root calls. No stack is empty.
    others: HashMap<RootId, VecDeque<Ticket>>,
    /// These root calls. The front one is next.
    order: VecDeque<RootId>,
    /// The number of all tickets.
    len: usize,
    /// How many permits were released on this thread since it looked after the others, and when it
    /// did so.
    released: usize,
    looked: Option<Instant>,
    /// How often it did so.
    rounds: usize,
}

/// How long a turn is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quantum {
    pub(super) permits: usize,
    pub(super) time: Duration,
}

impl Quantum {
    /// Returns whether a turn is over in which so many permits were granted. It begins now if it has
    /// not begun.
    fn is_over(self, permits: usize, began: &mut Option<Instant>, now: Instant) -> bool {
        permits >= self.permits || now - *began.get_or_insert(now) >= self.time
    }
}

impl Stacks {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, root: RootId, ticket: Ticket) {
        self.len += 1;
        if self.current.1.is_empty() && self.order.is_empty() && self.current.0 != root {
            self.current.0 = root;
            (self.granted, self.began) = (0, None);
        }
        if self.current.0 == root {
            self.current.1.push_back(ticket);
            return;
        }
        let stack = self.others.entry(root).or_default();
        if stack.is_empty() {
            self.order.push_back(root);
        }
        stack.push_back(ticket);
    }

    /// Removes the newest ticket of the root call whose turn it is. A turn ends with its quantum, or
    /// when there are no more tickets.
    pub(super) fn pop(&mut self, quantum: Quantum, now: Instant) -> Option<Ticket> {
        if self.current.1.is_empty() || quantum.is_over(self.granted, &mut self.began, now) {
            self.next_turn(now);
        }
        self.counted(|stacks| stacks.current.1.pop_back())
    }

    /// Removes the oldest ticket of the root call whose turn is next.
    pub(super) fn pop_oldest(&mut self, now: Instant) -> Option<Ticket> {
        self.next_turn(now);
        self.counted(|stacks| stacks.current.1.pop_front())
    }

    /// Removes the oldest ticket of another root call than `root`.
    pub(super) fn pop_oldest_of_others(&mut self, root: RootId, now: Instant) -> Option<Ticket> {
        match self.order.iter().position(|next| *next != root) {
            Some(index) => {
                self.order.rotate_left(index);
                self.pop_oldest(now)
            }
            None if self.current.0 != root => self.counted(|stacks| stacks.current.1.pop_front()),
            None => None,
        }
    }

    /// Returns the root call whose turn it is.
    pub(super) fn current(&self) -> RootId {
        self.current.0
    }

    /// Passes the tickets of each root call to `take`, the oldest first, until it returns something:
    /// `true` removes the ticket and ends the search, `false` goes on to the next root call. Returns
    /// whether a ticket was removed.
    pub(super) fn remove_oldest(&mut self, mut take: impl FnMut(&Ticket) -> Option<bool>) -> bool {
        let others = self.others.iter_mut().map(|(root, stack)| (*root, stack));
        for (root, stack) in std::iter::once((self.current.0, &mut self.current.1)).chain(others) {
            let mut found = stack.iter().enumerate();
            let found = found.find_map(|(index, ticket)| take(ticket).map(|took| (index, took)));
            if let Some((index, true)) = found {
                stack.remove(index);
                self.len -= 1;
                if stack.is_empty() && root != self.current.0 {
                    self.others.remove(&root);
                    self.order.retain(|other| *other != root);
                }
                return true;
            }
        }
        false
    }

    /// Returns since when the oldest run has waited that is offered and has not been served.
    pub(super) fn oldest_offer(&self) -> Option<Instant> {
        let stacks = std::iter::once(&self.current.1).chain(self.others.values());
        let oldest =
            stacks.filter_map(|stack| stack.iter().find_map(|ticket| ticket.waits_since()));
        oldest.min()
    }

    fn counted(&mut self, pop: impl FnOnce(&mut Self) -> Option<Ticket>) -> Option<Ticket> {
        let ticket = pop(self);
        self.len -= usize::from(ticket.is_some());
        ticket
    }

    /// Counts a permit against the turn of the root call.
    pub(super) fn count_grant(&mut self) {
        self.granted += 1;
    }

    /// Counts a permit that was released on this thread. Returns a number, another one each time, when
    /// the thread is to look after the others. Frames that take longer than a turn are no reason to do
    /// so after each of them: a recursion would go wide, and such frames often hold much.
    pub(super) fn count_release(&mut self, quantum: Quantum, now: Instant) -> Option<usize> {
        self.released += 1;
        let is_over = quantum.is_over(self.released, &mut self.looked, now);
        if !is_over || self.released < quantum.permits / 8 {
            return None;
        }
        (self.released, self.looked) = (0, Some(now));
        self.rounds = self.rounds.wrapping_add(1);
        Some(self.rounds)
    }

    fn next_turn(&mut self, now: Instant) {
        (self.granted, self.began) = (0, Some(now));
        let Some(next) = self.order.pop_front() else { return };
        let tickets = self.others.remove(&next).unwrap_or_default();
        let (root, left) = std::mem::replace(&mut self.current, (next, tickets));
        if !left.is_empty() {
            self.others.insert(root, left);
            self.order.push_back(root);
        }
    }
}
