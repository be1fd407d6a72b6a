//! Searches in the graph of waits, whose nodes are flights. An edge leads from a flight whose frame
//! waits to the flight that it waits for.
//!
//! Each flight has its own edges, so a search looks at one flight after the other, while other flights
//! begin, end and give up waits. Its result is right nonetheless:
//!
//! - It misses no cycle. Only a join adds an edge to a flight that exists already, and joins take turns.
//!   Every other edge leads to a flight that was just claimed, which waits for nothing yet. So all edges
//!   of a cycle that a join would close are there before its search begins.
//! - It finds no cycle that is none. While it searches, no edge is added to a flight that existed
//!   before. So all edges of a path that it finds existed when it began, even if some are gone by now.

use std::collections::HashSet;
use std::hash::Hash;

use smallvec::SmallVec;

/// The neighbours of a flight.
pub(super) type Neighbours<N> = SmallVec<[N; 4]>;

/// Returns whether `flight` waits for `waiter`, directly or indirectly, so that `waiter` must not
/// wait for `flight`.
///
/// A flight that was just claimed waits for nothing, so only joining a flight can close a cycle, and
/// only joining checks. The search alternates between both ends and stops when either is exhausted.
/// So it looks at no more flights than twice the number of those below `flight` or above `waiter`,
/// whichever is less.
pub(super) fn depends_on<N: Clone + Eq + Hash>(
    flight: &N,
    waiter: &N,
    waits_for: impl Fn(&N) -> Neighbours<N>,
    waiting: impl Fn(&N) -> Neighbours<N>,
) -> bool {
    if flight == waiter {
        return true;
    }
    let (mut below, mut above) = (Search::from(flight), Search::from(waiter));
    loop {
        match below.step(&waits_for) {
            None => return false,
            Some(found) if above.visited.contains(&found) => return true,
            Some(_) => {}
        }
        match above.step(&waiting) {
            None => return false,
            Some(found) if below.visited.contains(&found) => return true,
            Some(_) => {}
        }
    }
}

/// Returns the flights on a path along the waits from `from` to `to`, both included.
pub(super) fn path<N: Clone + Eq + Hash>(
    from: &N,
    to: &N,
    waits_for: impl Fn(&N) -> Neighbours<N>,
) -> Option<Vec<N>> {
    let mut visited = HashSet::from([from.clone()]);
    let mut stack = vec![(from.clone(), waits_for(from).into_iter())];
    while let Some((flight, rest)) = stack.last_mut() {
        if flight == to {
            return Some(stack.into_iter().map(|(flight, _)| flight).collect());
        }
        match rest.next() {
            Some(next) if visited.insert(next.clone()) => {
                let below = waits_for(&next).into_iter();
                stack.push((next, below));
            }
            Some(_) => {}
            None => drop(stack.pop()),
        }
    }
    None
}

/// A search that follows one edge at a time.
struct Search<N> {
    visited: HashSet<N>,
    /// The flights whose edges have not been looked at.
    unseen: Vec<N>,
    /// The ends of edges that have not been followed.
    edges: Vec<smallvec::IntoIter<[N; 4]>>,
}

impl<N: Clone + Eq + Hash> Search<N> {
    fn from(flight: &N) -> Self {
        let visited = HashSet::from([flight.clone()]);
        Self { visited, unseen: vec![flight.clone()], edges: Vec::new() }
    }

    /// Follows the next edge and returns the flight that it leads to. `None` if no edge is left.
    fn step(&mut self, neighbours: impl Fn(&N) -> Neighbours<N>) -> Option<N> {
        loop {
            if let Some(flight) = self.unseen.pop() {
                self.edges.push(neighbours(&flight).into_iter());
            }
            let Some(to) = self.edges.last_mut()?.next() else {
                self.edges.pop();
                continue;
            };
            if self.visited.insert(to.clone()) {
                self.unseen.push(to.clone());
            }
            return Some(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The flights that can be reached from `from` along the edges, `from` included.
    fn reachable(edges: &[(u64, u64)], from: u64) -> HashSet<u64> {
        let mut found = HashSet::from([from]);
        loop {
            let more: Vec<_> =
                edges.iter().filter(|(a, b)| found.contains(a) && !found.contains(b)).collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more.into_iter().map(|(_, b)| *b));
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_search_over_a_list_of_edges(
            edges in prop::collection::vec((0u64..8, 0u64..8), 0..24),
        ) {
            let below = |flight: &u64| {
                edges.iter().filter(|(from, _)| from == flight).map(|(_, to)| *to).collect()
            };
            let above = |flight: &u64| {
                edges.iter().filter(|(_, to)| to == flight).map(|(from, _)| *from).collect()
            };
            for from in 0..8 {
                let reached = reachable(&edges, from);
                for to in 0..8 {
                    prop_assert_eq!(depends_on(&from, &to, below, above), reached.contains(&to));
                    let path = path(&from, &to, below);
                    prop_assert_eq!(path.is_some(), reached.contains(&to));
                    for step in path.unwrap_or_default().windows(2) {
                        prop_assert!(edges.contains(&(step[0], step[1])));
                    }
                }
            }
        }
    }
}
