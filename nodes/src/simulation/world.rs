//! The simulated nodes. They decide as the real ones do (`policy`), in virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use super::server::{Server, Service};
use super::work::Tree;
use super::{ANSWER, Nanos, Plan, Report};
use crate::bus::TIME_TO_LIVE;
use crate::policy::{self, Estimate, Pause, QUEUED, Share, TO_CLAIM};

/// How much a permit runs before the next event.
const QUANTUM: Nanos = 1_000_000;
/// How long an answer is waited for.
const TO_ANSWER: Nanos = 1_000_000_000;

/// Runs of one node that belong together: a call, or a unit that was taken over.
struct Job {
    node: usize,
    /// The unit, unless it is the call.
    unit: Option<usize>,
    /// How many of its runs have not ended, here and elsewhere.
    open: u64,
    began: Nanos,
}

/// A run that was given away.
struct Unit {
    tree: Tree,
    /// The job to which it belongs where it came from.
    job: usize,
    given: Nanos,
    /// Who has claimed it.
    holder: Option<usize>,
    /// Whether its outcome is in the memo, and how long it took, in microseconds.
    outcome: Option<u64>,
    /// Whether nobody waits for it any more.
    is_settled: bool,
    looks: Pause,
}

struct Node {
    speed: f64,
    waiting: VecDeque<(Tree, usize, Nanos)>,
    /// The permits in use.
    used: usize,
    /// The bytes of inputs that were read since the last answer.
    asked: u64,
    /// The units that were taken over and have not begun.
    fresh: usize,
    asks: Pause,
    is_asking: bool,
    listens_until: Nanos,
    estimate: Estimate,
    is_dead: bool,
    died: Nanos,
    /// Until when the node is cut off from the server.
    cut: (Nanos, Nanos),
}

enum Event {
    /// A permit of a node is free, after `frames` frames of a job.
    Ran {
        node: usize,
        job: usize,
        done: u64,
    },
    Ask {
        node: usize,
    },
    /// A node that wants runs has reached one that may have some.
    Asked {
        giver: usize,
        thief: usize,
    },
    /// The answer has reached the node that asked.
    Given {
        thief: usize,
        units: Vec<usize>,
    },
    /// The inputs of a unit are there.
    Begin {
        thief: usize,
        unit: usize,
    },
    /// The outcome of a unit is in the memo.
    Published {
        job: usize,
    },
    /// Whoever waits for a unit looks what has become of it.
    Look {
        unit: usize,
        again: bool,
    },
    Die {
        node: usize,
    },
    /// Every node says that it is alive.
    Presence,
}

pub(super) struct World<'a> {
    plan: &'a Plan,
    rng: fastrand::Rng,
    now: Nanos,
    events: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    scheduled: HashMap<usize, Event>,
    count: u64,
    nodes: Vec<Node>,
    jobs: Vec<Job>,
    units: Vec<Unit>,
    server: Server,
    report: Report,
    long: Nanos,
}

fn nanos(time: Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}

impl<'a> World<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let mut rng = fastrand::Rng::with_seed(plan.seed);
        let share = |share: f64| (plan.nodes as f64 * share).round() as usize;
        let (slow, cut, dead) =
            (share(plan.stragglers), share(plan.partition.0), share(plan.crashes));
        let nodes = (0..plan.nodes).map(|index| Node {
            // The node that asks is none of them.
            speed: if index > 0 && index <= slow { 0.1 } else { 1.0 },
            waiting: VecDeque::new(),
            used: 0,
            asked: 0,
            fresh: 0,
            asks: Pause::between_asks(),
            is_asking: false,
            listens_until: 0,
            estimate: Estimate::default(),
            is_dead: false,
            died: Nanos::MAX,
            cut: if index > 0 && index <= cut { plan.partition.1 } else { (0, 0) },
        });
        let nodes: Vec<_> = nodes.collect();
        let long = nanos(policy::long(plan.nodes as u64, plan.permits as u64));
        let mut world = Self {
            plan,
            now: 0,
            events: BinaryHeap::new(),
            scheduled: HashMap::new(),
            count: 0,
            nodes,
            jobs: Vec::new(),
            units: Vec::new(),
            server: Server::default(),
            report: Report::default(),
            long,
            rng: rng.fork(),
        };
        for node in 1..=dead {
            let time = rng.u64(0..1_000_000_000);
            world.at(time, Event::Die { node });
        }
        world
    }

    fn at(&mut self, time: Nanos, event: Event) {
        let id = self.count as usize;
        self.count += 1;
        self.scheduled.insert(id, event);
        self.events.push(Reverse((time.max(self.now), self.count, id)));
    }

    /// Returns when a node reaches the server, which is later while it is cut off.
    fn reaches(&self, node: usize) -> Nanos {
        let (from, to) = self.nodes[node].cut;
        let start = if (from..to).contains(&self.now) { to } else { self.now };
        start + self.plan.latency
    }

    fn is_cut(&self, node: usize) -> bool {
        let (from, to) = self.nodes[node].cut;
        (from..to).contains(&self.now)
    }

    /// Returns when a node has the answer of the server to a request.
    fn request(&mut self, node: usize, service: Service) -> Nanos {
        let at = self.reaches(node);
        self.server.serve(at, service) + self.plan.latency
    }

    fn is_lost(&mut self) -> bool {
        self.rng.f64() < self.plan.loss
    }

    /// Runs the call, and returns what it took.
    pub(super) fn run(mut self) -> Report {
        self.jobs.push(Job { node: 0, unit: None, open: 1, began: 0 });
        self.nodes[0].waiting.push_back((Tree::new(self.plan.frames, self.plan.seed), 0, 0));
        self.begin_runs(0);
        for node in 1..self.plan.nodes {
            let time = self.rng.u64(0..2_000_000);
            self.ask_at(node, time);
        }
        self.at(0, Event::Presence);
        while self.jobs[0].open > 0 {
            let Reverse((time, _, id)) = self.events.pop().expect("the call has not ended");
            self.now = time;
            if let Some(event) = self.scheduled.remove(&id) {
                self.handle(event);
            }
        }
        let mut report = self.report;
        report.time = self.now;
        report.messages = self.server.messages;
        report.entries = self.server.entries;
        report.server_busy = self.server.busy as f64 / self.now as f64;
        report.units = self.units.len() as u64;
        report
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ran { node, job, done } => {
                if !self.nodes[node].is_dead {
                    self.nodes[node].used -= 1;
                    self.ended(job, done);
                    self.begin_runs(node);
                }
            }
            Event::Ask { node } => self.ask(node),
            Event::Asked { giver, thief } => self.give(giver, thief),
            Event::Given { thief, units } => self.take(thief, units),
            Event::Begin { thief, unit } => self.begin(thief, unit),
            Event::Published { job } => self.published(job),
            Event::Look { unit, again } => self.look(unit, again),
            Event::Die { node } => {
                self.nodes[node].is_dead = true;
                self.nodes[node].died = self.now;
                self.nodes[node].waiting.clear();
            }
            Event::Presence => {
                let nodes = self.plan.nodes as u64;
                self.server.serve_all(self.now, Service::Put, nodes);
                self.server.serve_all(self.now, Service::Get, nodes);
                self.at(self.now + 1_000_000_000, Event::Presence);
            }
        }
    }

    /// Begins as many waiting runs as there are permits, the newest first.
    fn begin_runs(&mut self, node: usize) {
        while self.nodes[node].used < self.plan.permits {
            let Some((tree, job, _)) = self.nodes[node].waiting.pop_back() else { break };
            let mut frame = (self.plan.frame as f64 / self.nodes[node].speed) as Nanos;
            let is_taken = self.jobs[job].unit.is_some();
            if is_taken {
                // It waits for its inputs, which arrive many at once.
                let wait = 4 * self.plan.latency + self.plan.answer_time();
                frame += wait * self.plan.frame_bytes / ANSWER;
            }
            let (mut time, mut frames, mut done, mut open) = (0, 0, 0, vec![tree]);
            while time < QUANTUM
                && let Some(tree) = open.pop()
            {
                let whole = tree.frames * frame;
                if whole <= QUANTUM {
                    (time, frames, done) = (time + whole, frames + tree.frames, done + 1);
                    continue;
                }
                if whole > self.long && self.plan.nodes > 1 {
                    // It is claimed, and its outcome is published, while other runs go on.
                    self.server.serve_all(self.now, Service::Get, 3);
                    self.server.serve_all(self.now, Service::Put, 3);
                }
                // Its first frame runs what is nested in it.
                (time, frames, done) = (time + frame, frames + 1, done + 1);
                let nested = tree.nested();
                self.jobs[job].open += nested.len() as u64;
                open.extend(nested);
            }
            let now = self.now;
            self.nodes[node].waiting.extend(open.into_iter().map(|tree| (tree, job, now)));
            self.report.frames += frames;
            if is_taken {
                let bytes = frames * self.plan.frame_bytes;
                self.report.bytes += bytes;
                self.nodes[node].asked += bytes;
                let answers = self.nodes[node].asked / ANSWER;
                self.nodes[node].asked %= ANSWER;
                self.server.serve_all(now, Service::Message, 2 * answers);
            }
            self.nodes[node].used += 1;
            self.at(self.now + time, Event::Ran { node, job, done });
        }
        if self.has_surplus(node) {
            self.nodes[node].listens_until = self.now + nanos(policy::LISTENS);
        }
        if node > 0 && !self.nodes[node].is_asking {
            self.ask_at(node, self.now);
        }
    }

    fn has_surplus(&self, node: usize) -> bool {
        let waiting = self.nodes[node].waiting.front();
        waiting.is_some_and(|(_, _, since)| since + nanos(QUEUED) <= self.now)
    }

    fn ask_at(&mut self, node: usize, time: Nanos) {
        self.nodes[node].is_asking = true;
        self.at(time, Event::Ask { node });
    }

    /// A node asks for runs if it can run more than it has.
    fn ask(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        if this.is_dead {
            return;
        }
        if this.used + this.fresh >= self.plan.permits {
            this.asks.reset();
            // It asks again when a run ends.
            this.is_asking = false;
            return;
        }
        if self.is_cut(node) {
            let again = self.now + 200_000_000;
            return self.ask_at(node, again);
        }
        let served = self.request(node, Service::Message) - self.plan.latency;
        let listening: Vec<_> = (0..self.plan.nodes)
            .filter(|other| *other != node && self.nodes[*other].listens_until >= self.now)
            .filter(|other| !self.nodes[*other].is_dead && !self.is_cut(*other))
            .collect();
        if listening.is_empty() {
            let again = served + self.plan.latency + nanos(self.nodes[node].asks.next());
            self.nodes[node].asks.grow();
            return self.ask_at(node, again);
        }
        let giver = listening[self.rng.usize(0..listening.len())];
        if self.is_lost() {
            return self.ask_at(node, self.now + TO_ANSWER);
        }
        self.at(served + self.plan.latency, Event::Asked { giver, thief: node });
    }

    fn give(&mut self, giver: usize, thief: usize) {
        if self.nodes[giver].is_dead {
            return self.ask_at(thief, self.now + TO_ANSWER);
        }
        let (mut units, mut bytes) = (Vec::new(), 0);
        let mut share = Share::with(self.nodes[giver].waiting.len(), self.plan.enough);
        let estimate = self.nodes[giver].estimate.micros();
        while share.has_room() && share.accepts(estimate) && self.has_surplus(giver) {
            let Some((tree, job, _)) = self.nodes[giver].waiting.pop_front() else { break };
            bytes += 700;
            share.add(estimate);
            units.push(self.units.len());
            self.units.push(Unit {
                tree,
                job,
                given: self.now,
                holder: None,
                outcome: None,
                is_settled: false,
                looks: Pause::between_looks(),
            });
        }
        self.report.bytes += bytes;
        for &unit in &units {
            let first = self.units[unit].looks.next();
            self.at(self.now + nanos(first), Event::Look { unit, again: true });
        }
        let answered = self.request(giver, Service::Message);
        if self.is_lost() {
            return self.ask_at(thief, self.now + TO_ANSWER);
        }
        self.at(answered, Event::Given { thief, units });
    }

    fn take(&mut self, thief: usize, units: Vec<usize>) {
        if self.nodes[thief].is_dead {
            return;
        }
        if units.is_empty() {
            let again = self.now + nanos(self.nodes[thief].asks.next());
            self.nodes[thief].asks.grow();
            return self.ask_at(thief, again);
        }
        self.nodes[thief].asks.reset();
        for unit in units {
            self.nodes[thief].fresh += 1;
            // The claim, a look in the memo, and the first inputs from the node that gave the unit away.
            let claimed = self.request(thief, Service::Put);
            self.units[unit].holder = Some(thief);
            self.server.serve_all(claimed, Service::Get, 1);
            self.server.serve_all(claimed, Service::Message, 2);
            let ready = claimed + 6 * self.plan.latency + self.plan.answer_time();
            self.at(ready, Event::Begin { thief, unit });
        }
        self.ask_at(thief, self.now);
    }

    fn begin(&mut self, thief: usize, unit: usize) {
        if self.nodes[thief].is_dead {
            return;
        }
        self.nodes[thief].fresh -= 1;
        let job = self.jobs.len();
        self.jobs.push(Job { node: thief, unit: Some(unit), open: 1, began: self.now });
        self.nodes[thief].waiting.push_back((self.units[unit].tree, job, self.now));
        self.begin_runs(thief);
    }

    /// Some runs of a job have ended.
    fn ended(&mut self, job: usize, count: u64) {
        self.jobs[job].open -= count;
        if self.jobs[job].open == 0 && self.jobs[job].unit.is_some() {
            // The look whether there is an outcome, and the entry.
            let node = self.jobs[job].node;
            self.request(node, Service::Get);
            let published = self.request(node, Service::Put);
            self.at(published, Event::Published { job });
        }
    }

    fn published(&mut self, job: usize) {
        let Job { node, unit, began, .. } = self.jobs[job];
        let Some(unit) = unit else { return };
        self.report.bytes += self.units[unit].tree.frames * self.plan.outcome_bytes;
        let micros = (self.now - began) / 1_000;
        self.units[unit].outcome.get_or_insert(micros);
        self.server.serve_all(self.now, Service::Put, 1);
        let said = self.request(node, Service::Message);
        if !self.is_lost() && !self.is_cut(node) {
            self.at(said, Event::Look { unit, again: false });
        }
    }

    /// The node that gave a unit away looks what has become of it.
    fn look(&mut self, unit: usize, again: bool) {
        let job = self.units[unit].job;
        let node = self.jobs[job].node;
        if self.units[unit].is_settled || self.nodes[node].is_dead {
            return;
        }
        if self.is_cut(node) && self.nodes[node].cut.0 + nanos(TIME_TO_LIVE) > self.now {
            let again_at = self.now + nanos(self.units[unit].looks.next());
            return self.at(again_at, Event::Look { unit, again });
        }
        self.request(node, Service::Get);
        if let Some(micros) = self.units[unit].outcome.filter(|_| !self.is_cut(node)) {
            self.units[unit].is_settled = true;
            self.nodes[node].estimate.measured(micros);
            self.ended(job, 1);
            return;
        }
        self.request(node, Service::Get);
        let is_dead = |holder: usize| {
            let ttl = nanos(TIME_TO_LIVE);
            let holder = &self.nodes[holder];
            let (from, to) = holder.cut;
            holder.died.saturating_add(ttl) <= self.now
                || (from.saturating_add(ttl)..to).contains(&self.now)
        };
        let waited = self.now - self.units[unit].given;
        let is_lost = match self.units[unit].holder {
            None => waited > nanos(TO_CLAIM),
            Some(holder) => is_dead(holder),
        };
        if is_lost || self.is_cut(node) {
            self.units[unit].is_settled = true;
            self.report.taken_back += 1;
            let tree = self.units[unit].tree;
            self.nodes[node].waiting.push_back((tree, job, self.now));
            self.begin_runs(node);
        } else if again {
            self.units[unit].looks.grow();
            let next = self.now + nanos(self.units[unit].looks.next());
            self.at(next, Event::Look { unit, again: true });
        }
    }
}
