//! Gathers the statistics of all spans, of each image apart.

use std::collections::HashMap;

use hdrhistogram::Histogram;
use manifold_dispatcher::{Phase, SpanKind};

use crate::format::{Distribution, ImageStatistics, SpanRecord, Statistics};

/// Gathers statistics.
#[derive(Debug, Default)]
pub(crate) struct Gatherer {
    totals: Statistics,
    images: HashMap<(u32, u32), Image, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct Image {
    numbers: ImageStatistics,
    /// The phases, and the whole.
    times: Vec<Times>,
    hits: Times,
}

/// A distribution that is being gathered.
#[derive(Debug)]
pub(crate) struct Times {
    sum: u64,
    max: u64,
    histogram: Histogram<u64>,
}

impl Times {
    pub(crate) fn new() -> Self {
        // The bounds are those of a histogram that grows as needed, with two digits.
        let histogram = Histogram::new(2).unwrap_or_else(|_| unreachable!("two digits are valid"));
        Self { sum: 0, max: 0, histogram }
    }

    pub(crate) fn add(&mut self, time: u64) {
        self.sum = self.sum.saturating_add(time);
        self.max = self.max.max(time);
        if time > 0 {
            // The histogram grows as needed.
            let _ = self.histogram.record(time);
        }
    }

    /// Adds a distribution.
    pub(crate) fn merge(&mut self, other: &Distribution) {
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
        for (value, count) in &other.values {
            let _ = self.histogram.record_n(*value, *count);
        }
    }

    pub(crate) fn distribution(&self) -> Distribution {
        let values = self.histogram.iter_recorded();
        let values =
            values.map(|value| (value.value_iterated_to(), value.count_at_value())).collect();
        Distribution { sum: self.sum, max: self.max, values }
    }

    /// Returns the value below which a share of `count` values lies, if all that were not added are
    /// zero.
    pub(crate) fn quantile(&self, share: f64, count: u64) -> u64 {
        let zeros = count.saturating_sub(self.histogram.len());
        let rank = (share * count as f64).ceil() as u64;
        if rank <= zeros || self.histogram.is_empty() {
            return 0;
        }
        let share = (rank - zeros) as f64 / self.histogram.len() as f64;
        self.histogram.value_at_quantile(share).min(self.max)
    }

    pub(crate) const fn sum(&self) -> u64 {
        self.sum
    }

    pub(crate) const fn max(&self) -> u64 {
        self.max
    }
}

impl Gatherer {
    pub(crate) fn add(&mut self, span: &SpanRecord) {
        let totals = &mut self.totals;
        let to = span.began.saturating_add(span.duration);
        totals.from = if totals.spans == 0 { span.began } else { totals.from.min(span.began) };
        totals.to = totals.to.max(to);
        totals.spans += 1;
        totals.depth = totals.depth.max(span.depth);
        let key = (span.image, span.runtime);
        let image = self.images.entry(key).or_insert_with(|| Image {
            numbers: ImageStatistics {
                image: span.image,
                runtime: span.runtime,
                ..ImageStatistics::default()
            },
            times: (0..=Phase::ALL.len()).map(|_| Times::new()).collect(),
            hits: Times::new(),
        });
        let numbers = &mut image.numbers;
        if let Some(count) = numbers.kinds.get_mut(usize::from(span.kind)) {
            *count += 1;
        }
        match span.kind() {
            SpanKind::Hit => image.hits.add(span.duration),
            SpanKind::Run => {
                numbers.failures += u64::from(!span.is_success());
                numbers.rewinds = numbers.rewinds.saturating_add(span.rewinds);
                numbers.read_bytes = numbers.read_bytes.saturating_add(span.read_bytes);
                numbers.written_bytes = numbers.written_bytes.saturating_add(span.written_bytes);
                numbers.memory_bytes = numbers.memory_bytes.max(span.memory_bytes.unwrap_or(0));
                numbers.fuel = numbers.fuel.saturating_add(span.fuel.unwrap_or(0));
                let phases = span.phases.iter().map(|(phase, time)| (usize::from(*phase), *time));
                for (phase, time) in phases.chain([(Phase::ALL.len(), span.duration)]) {
                    if let Some(times) = image.times.get_mut(phase) {
                        times.add(time);
                    }
                }
            }
            _ => {}
        }
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let images = self.images.values().map(|image| ImageStatistics {
            phases: image.times.iter().map(Times::distribution).collect(),
            hits: image.hits.distribution(),
            ..image.numbers.clone()
        });
        Statistics { images: images.collect(), ..self.totals.clone() }
    }
}
