//! [`Summary`]: the statistics of a trace.

use std::collections::BTreeMap;

use manifold_dispatcher::{Phase, SpanKind};
use serde::Serialize;

use crate::format::{Distribution, WAITING};
use crate::read::Trace;
use crate::statistics::Times;

/// The statistics of a trace. They cover all spans, also those that the trace does not keep.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// The number of spans.
    pub spans: u64,
    /// How many of them the trace keeps.
    pub kept: u64,
    /// Whether the recording was ended.
    pub ended: bool,
    /// The time between the beginning of the first span and the end of the last one, in seconds.
    pub wall_seconds: f64,
    /// The largest nesting depth.
    pub depth: u32,
    /// How many frames could compute at once.
    pub permits: u64,
    /// The share of the permits that was in use on average: the time that runs spent starting,
    /// computing, in host calls and ending, over the wall time of all permits.
    pub busy: f64,
    /// An estimate of the computing time that hits and joins saved, in seconds: their number times
    /// the median time of the runs of the same image. Images that did not run count as nothing.
    pub saved_seconds: f64,
    /// The counts of all images together.
    pub total: Counts,
    /// The images, the one whose runs took longest themselves first.
    pub images: Vec<ImageSummary>,
}

/// How many spans there were of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// The number of root calls.
    pub calls: u64,
    /// The number of runs.
    pub runs: u64,
    /// The number of hits.
    pub hits: u64,
    /// The number of joins.
    pub joins: u64,
    /// The number of requests that were wanted and not run.
    pub unstarted: u64,
    /// The number of runs that were taken over, and whose outcomes came from elsewhere.
    pub elsewhere: u64,
    /// The number of runs that failed.
    pub failures: u64,
    /// The number of times that runs began again.
    pub rewinds: u64,
}

impl Counts {
    fn of(kinds: &[u64; SpanKind::ALL.len()], failures: u64, rewinds: u64) -> Self {
        let [calls, runs, hits, joins, unstarted, elsewhere] = *kinds;
        Self { calls, runs, hits, joins, unstarted, elsewhere, failures, rewinds }
    }

    fn add(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.runs = self.runs.saturating_add(other.runs);
        self.hits = self.hits.saturating_add(other.hits);
        self.joins = self.joins.saturating_add(other.joins);
        self.unstarted = self.unstarted.saturating_add(other.unstarted);
        self.elsewhere = self.elsewhere.saturating_add(other.elsewhere);
        self.failures = self.failures.saturating_add(other.failures);
        self.rewinds = self.rewinds.saturating_add(other.rewinds);
    }
}

/// The statistics of an image on a runtime.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ImageSummary {
    /// What people call the image.
    pub image: String,
    /// The runtime.
    pub runtime: String,
    /// The numbers of spans.
    pub counts: Counts,
    /// The time that its runs spent on anything but waiting, in seconds; see
    /// [`SpanRecord::own`](crate::SpanRecord::own).
    pub own_seconds: f64,
    /// The number of bytes that its runs read.
    pub read_bytes: u64,
    /// The number of bytes that its runs stored.
    pub written_bytes: u64,
    /// The largest peak memory of a run in bytes. 0 if the runtime does not know it.
    pub memory_bytes: u64,
    /// The fuel that its runs burnt. 0 if it was not measured.
    pub fuel: u64,
    /// The phases of its runs that took time, and last the whole runs, called `total`.
    pub phases: Vec<PhaseSummary>,
}

/// The distribution of a phase over runs.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PhaseSummary {
    /// The phase.
    pub phase: &'static str,
    /// The median in seconds.
    pub p50_seconds: f64,
    /// The 95th percentile in seconds.
    pub p95_seconds: f64,
    /// The longest in seconds.
    pub max_seconds: f64,
    /// The sum in seconds.
    pub sum_seconds: f64,
}

/// The phases in which a run holds a permit.
const WITH_PERMIT: [Phase; 5] =
    [Phase::Start, Phase::Compute, Phase::Host, Phase::Store, Phase::Settle];

impl Trace {
    /// Returns the statistics.
    pub fn summary(&self) -> Summary {
        // Images of the same name, such as those of two programs, are one.
        let mut images: BTreeMap<(String, String), Gathered> = BTreeMap::new();
        for image in &self.statistics.images {
            let name = self.image_name(image.image).to_owned();
            let key = (name, self.text(image.runtime).to_owned());
            images.entry(key).or_insert_with(Gathered::new).add(image);
        }
        let (mut total, mut busy, mut saved) = (Counts::default(), 0, 0.0);
        let mut summaries = Vec::new();
        for ((image, runtime), gathered) in images {
            total.add(&gathered.counts);
            busy = sum(WITH_PERMIT.map(|phase| gathered.sum(phase as usize)), busy);
            let whole = &gathered.times[Phase::ALL.len()];
            let median = seconds(whole.quantile(0.5, gathered.counts.runs));
            saved += median * (gathered.counts.hits + gathered.counts.joins) as f64;
            summaries.push(gathered.summary(image, runtime));
        }
        summaries.sort_by(|a, b| b.own_seconds.total_cmp(&a.own_seconds));
        let wall_seconds = self.wall_time().as_secs_f64();
        let all_permits = (wall_seconds * self.header.permits as f64).max(f64::MIN_POSITIVE);
        Summary {
            spans: self.statistics.spans,
            kept: self.spans().len() as u64,
            ended: self.has_ended(),
            wall_seconds,
            depth: self.statistics.depth,
            permits: self.header.permits,
            busy: seconds(busy) / all_permits,
            saved_seconds: saved,
            total,
            images: summaries,
        }
    }
}

/// The statistics of the images of one name.
struct Gathered {
    counts: Counts,
    times: Vec<Times>,
    bytes: [u64; 2],
    memory: u64,
    fuel: u64,
}

impl Gathered {
    fn new() -> Self {
        Self {
            counts: Counts::default(),
            times: (0..=Phase::ALL.len()).map(|_| Times::new()).collect(),
            bytes: [0; 2],
            memory: 0,
            fuel: 0,
        }
    }

    fn add(&mut self, image: &crate::format::ImageStatistics) {
        self.counts.add(&Counts::of(&image.kinds, image.failures, image.rewinds));
        self.bytes[0] = self.bytes[0].saturating_add(image.read_bytes);
        self.bytes[1] = self.bytes[1].saturating_add(image.written_bytes);
        self.memory = self.memory.max(image.memory_bytes);
        self.fuel = self.fuel.saturating_add(image.fuel);
        let nothing = Distribution::default();
        for (index, times) in self.times.iter_mut().enumerate() {
            times.merge(image.phases.get(index).unwrap_or(&nothing));
        }
    }

    fn sum(&self, phase: usize) -> u64 {
        self.times.get(phase).map_or(0, Times::sum)
    }

    fn summary(&self, image: String, runtime: String) -> ImageSummary {
        let names = Phase::ALL.iter().map(|phase| phase.as_str()).chain(["total"]);
        let runs = self.counts.runs;
        let phases = names.zip(&self.times).filter(|(_, times)| times.sum() > 0);
        let phases = phases.map(|(phase, times)| PhaseSummary {
            phase,
            p50_seconds: seconds(times.quantile(0.5, runs)),
            p95_seconds: seconds(times.quantile(0.95, runs)),
            max_seconds: seconds(times.max()),
            sum_seconds: seconds(times.sum()),
        });
        let whole = self.sum(Phase::ALL.len());
        let waiting = sum(WAITING.map(|phase| self.sum(phase as usize)), 0);
        ImageSummary {
            image,
            runtime,
            counts: self.counts,
            own_seconds: seconds(whole.saturating_sub(waiting)),
            read_bytes: self.bytes[0],
            written_bytes: self.bytes[1],
            memory_bytes: self.memory,
            fuel: self.fuel,
            phases: phases.collect(),
        }
    }
}

/// Adds `times` to `start`. A file can contain any numbers.
fn sum(times: impl IntoIterator<Item = u64>, start: u64) -> u64 {
    times.into_iter().fold(start, u64::saturating_add)
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
