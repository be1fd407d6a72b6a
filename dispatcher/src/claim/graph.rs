//! [`WaitGraph`]: which flights wait for which.

use std::collections::{HashMap, HashSet};

/// A directed graph of flights, named by their serial numbers. An edge leads from a flight whose
/// frame waits to the flight that it waits for. There can be several equal edges.
#[derive(Default)]
pub(super) struct WaitGraph {
    nodes: HashMap<u64, Edges>,
}

#[derive(Default)]
struct Edges {
    /// The flights that this flight's frame waits for, each as often as the frame waits for it.
    waits_for: Vec<u64>,
    /// The flights whose frames wait for this flight.
    waiting: Vec<u64>,
}

impl WaitGraph {
    /// Adds a flight without edges.
    pub(super) fn insert(&mut self, flight: u64) {
        self.nodes.insert(flight, Edges::default());
    }

    pub(super) fn contains(&self, flight: u64) -> bool {
        self.nodes.contains_key(&flight)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds an edge. Has no effect unless the graph contains both flights.
    pub(super) fn add_edge(&mut self, waiter: u64, flight: u64) {
        if !self.contains(waiter) {
            return;
        }
        let Some(edges) = self.nodes.get_mut(&flight) else { return };
        edges.waiting.push(waiter);
        if let Some(edges) = self.nodes.get_mut(&waiter) {
            edges.waits_for.push(flight);
        }
    }

    /// Removes one edge, if there is one.
    pub(super) fn remove_edge(&mut self, waiter: u64, flight: u64) {
        if let Some(edges) = self.nodes.get_mut(&waiter) {
            remove_one(&mut edges.waits_for, flight);
        }
        if let Some(edges) = self.nodes.get_mut(&flight) {
            remove_one(&mut edges.waiting, waiter);
        }
    }

    /// Removes a flight with all its edges. Returns the flights whose frames waited for it.
    pub(super) fn remove(&mut self, flight: u64) -> Vec<u64> {
        let Some(Edges { waits_for, waiting }) = self.nodes.remove(&flight) else {
            return Vec::new();
        };
        for below in waits_for {
            if let Some(edges) = self.nodes.get_mut(&below) {
                remove_one(&mut edges.waiting, flight);
            }
        }
        for above in &waiting {
            if let Some(edges) = self.nodes.get_mut(above) {
                remove_one(&mut edges.waits_for, flight);
            }
        }
        waiting
    }

    /// Returns whether `flight` waits for `waiter`, directly or indirectly, so that `waiter` must
    /// not wait for `flight`.
    ///
    /// A flight that was just claimed waits for nothing, so only joining a flight can close a
    /// cycle, and only joining checks. The search alternates between both ends and stops when
    /// either is exhausted. So it takes at most twice the number of edges below `flight` or above
    /// `waiter`, whichever is less.
    pub(super) fn depends_on(&self, flight: u64, waiter: u64) -> bool {
        let (mut below, mut above) = (Search::from(flight), Search::from(waiter));
        if flight == waiter {
            return true;
        }
        loop {
            match below.step(|flight| self.waits_for(flight)) {
                None => return false,
                Some(found) if above.visited.contains(&found) => return true,
                Some(_) => {}
            }
            match above.step(|flight| self.waiting(flight)) {
                None => return false,
                Some(found) if below.visited.contains(&found) => return true,
                Some(_) => {}
            }
        }
    }

    /// Returns the flights on a path along the waits from `from` to `to`, both included.
    pub(super) fn path(&self, from: u64, to: u64) -> Option<Vec<u64>> {
        let mut visited = HashSet::from([from]);
        let mut stack = vec![(from, self.waits_for(from).iter())];
        while let Some((flight, rest)) = stack.last_mut() {
            if *flight == to {
                return Some(stack.iter().map(|(flight, _)| *flight).collect());
            }
            match rest.next() {
                Some(next) if visited.insert(*next) => {
                    stack.push((*next, self.waits_for(*next).iter()));
                }
                Some(_) => {}
                None => drop(stack.pop()),
            }
        }
        None
    }

    fn waits_for(&self, flight: u64) -> &[u64] {
        self.nodes.get(&flight).map_or(&[], |edges| &edges.waits_for)
    }

    fn waiting(&self, flight: u64) -> &[u64] {
        self.nodes.get(&flight).map_or(&[], |edges| &edges.waiting)
    }
}

fn remove_one(flights: &mut Vec<u64>, flight: u64) {
    if let Some(index) = flights.iter().position(|other| *other == flight) {
        flights.swap_remove(index);
    }
}

/// A graph search over flights that follows one edge at a time.
struct Search {
    visited: HashSet<u64>,
    /// The flights that may have edges left to follow, each with the index of its next edge.
    pending: Vec<(u64, usize)>,
}

impl Search {
    fn from(flight: u64) -> Self {
        Self { visited: HashSet::from([flight]), pending: vec![(flight, 0)] }
    }

    /// Follows the next edge and returns the flight that it leads to. `None` if no edge is left.
    fn step<'a>(&mut self, edges: impl Fn(u64) -> &'a [u64]) -> Option<u64> {
        loop {
            let (flight, next) = self.pending.last_mut()?;
            let Some(to) = edges(*flight).get(*next).copied() else {
                self.pending.pop();
                continue;
            };
            *next += 1;
            if self.visited.insert(to) {
                self.pending.push((to, 0));
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
            removed in prop::collection::vec(0usize..24, 0..8),
            gone in prop::option::of(0u64..8),
        ) {
            let mut graph = WaitGraph::default();
            (0..8).for_each(|flight| graph.insert(flight));
            let mut left = edges.clone();
            for (waiter, flight) in &edges {
                graph.add_edge(*waiter, *flight);
            }
            for index in removed {
                if index < left.len() {
                    let (waiter, flight) = left.remove(index);
                    graph.remove_edge(waiter, flight);
                }
            }
            if let Some(gone) = gone {
                let mut waiting = graph.remove(gone);
                waiting.retain(|waiter| *waiter != gone);
                waiting.sort();
                let mut expected: Vec<_> = left
                    .iter()
                    .filter(|(waiter, flight)| *flight == gone && *waiter != gone)
                    .map(|(waiter, _)| *waiter)
                    .collect();
                expected.sort();
                prop_assert_eq!(waiting, expected);
                left.retain(|(waiter, flight)| *waiter != gone && *flight != gone);
            }
            for from in 0..8 {
                let reached = reachable(&left, from);
                for to in 0..8 {
                    prop_assert_eq!(graph.depends_on(from, to), reached.contains(&to));
                    let path = graph.path(from, to);
                    prop_assert_eq!(path.is_some(), reached.contains(&to));
                    for step in path.unwrap_or_default().windows(2) {
                        prop_assert!(left.contains(&(step[0], step[1])));
                    }
                }
            }
        }
    }
}
