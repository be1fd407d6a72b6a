//! What a long fold does now: on a terminal a few lines that are drawn again and again, otherwise a
//! line now and then.

mod estimate;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use manifold_dispatcher::{Dispatcher, Event, Observer, Stats};
use manifold_runtime_api::ObjectId;
use parking_lot::Mutex;

use crate::explain::Names;
use crate::progress::can_draw;
use crate::say::say;
use crate::shown::{columns, shown_in_line};
use estimate::Estimate;

/// The time between two draws.
const INTERVAL: Duration = Duration::from_millis(100);
/// How often a line is printed where nothing can be drawn again, and when the first one is.
const LINE_INTERVAL: Duration = Duration::from_secs(30);
/// How many of the longest running frames are shown, and from what age.
const FRAMES: usize = 5;
const AGE: Duration = Duration::from_millis(500);
/// The number of parts into which frames are divided.
const SHARDS: usize = 16;

/// Returns the path of the input that a tree of arguments names, if it is known.
pub(crate) type PathOf = Arc<dyn Fn(ObjectId) -> Option<String> + Send + Sync>;

/// The frames that are in progress, and how many have run, by runtime.
#[derive(Default)]
pub(crate) struct Running([Mutex<Shard>; SHARDS]);

#[derive(Default)]
struct Shard {
    frames: HashMap<ObjectId, Frame>,
    runs: Vec<(String, u64)>,
}

/// A frame that is in progress.
#[derive(Clone)]
struct Frame {
    since: Instant,
    image: Arc<str>,
    args: ObjectId,
}

impl Running {
    fn shard(&self, request: ObjectId) -> &Mutex<Shard> {
        let first = request.as_bytes().first().copied().unwrap_or_default();
        &self.0[usize::from(first) % SHARDS]
    }

    /// Returns how many frames have started, by runtime, the busiest first.
    fn runs(&self) -> Vec<(String, u64)> {
        let mut runs: Vec<(String, u64)> = Vec::new();
        for shard in &self.0 {
            for (runtime, count) in &shard.lock().runs {
                match runs.iter_mut().find(|(other, _)| other == runtime) {
                    Some((_, sum)) => *sum += count,
                    None => runs.push((runtime.clone(), *count)),
                }
            }
        }
        runs.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        runs
    }

    /// Returns frames that have been in progress for long, the longest first.
    fn longest(&self) -> Vec<Frame> {
        let mut frames: Vec<Frame> = Vec::new();
        for shard in &self.0 {
            let shard = shard.lock();
            frames.extend(
                shard.frames.values().filter(|frame| frame.since.elapsed() >= AGE).cloned(),
            );
        }
        // A frame that waits for others began before them, so the last ones to begin say more.
        frames.sort_by_key(|frame| std::cmp::Reverse(frame.since));
        frames.truncate(FRAMES);
        frames.sort_by_key(|frame| frame.since);
        frames
    }
}

impl Observer for Running {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Started { request, image, runtime, args, .. } => {
                let frame = Frame { since: Instant::now(), image: (*image).into(), args: *args };
                let mut shard = self.shard(*request).lock();
                shard.frames.insert(*request, frame);
                match shard.runs.iter_mut().find(|(other, _)| other == runtime) {
                    Some((_, count)) => *count += 1,
                    None => shard.runs.push(((*runtime).to_owned(), 1)),
                }
            }
            Event::Settled { request, .. } => {
                self.shard(*request).lock().frames.remove(request);
            }
            _ => {}
        }
    }
}

/// What is shown of a fold.
pub(crate) struct Subject {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) running: Arc<Running>,
    /// The number of frames if nothing is remembered. `None` if it is unknown.
    pub(crate) expected: Option<u64>,
    pub(crate) path_of: PathOf,
    /// The names of images.
    pub(crate) names: Names,
}

/// Shows what a fold does until it is dropped.
pub(crate) struct Live {
    bar: Option<ProgressBar>,
    task: tokio::task::JoinHandle<()>,
}

impl Live {
    pub(crate) fn show(subject: Subject) -> Self {
        if !can_draw() {
            return Self { bar: None, task: tokio::spawn(print_lines(subject)) };
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self { bar: Some(bar.clone()), task: tokio::spawn(draw(subject, bar)) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn draw(subject: Subject, bar: ProgressBar) {
    let mut ticks = tokio::time::interval(INTERVAL);
    let before = subject.dispatcher.stats();
    let mut estimate = Estimate::new(Instant::now());
    let mut paths: HashMap<ObjectId, Option<String>> = HashMap::new();
    loop {
        ticks.tick().await;
        let done = subject.dispatcher.stats() - before;
        let width = columns(io::stderr()).unwrap_or(80);
        let mut lines = vec![summary(&subject, done, &mut estimate, width)];
        if width >= 60 {
            lines.push(counts(&subject, done));
            for frame in subject.running.longest() {
                let path = paths.entry(frame.args).or_insert_with(|| (subject.path_of)(frame.args));
                let image = subject.names.of(&frame.image);
                lines.push(format!(
                    "  {:>7.1} s  {} {}",
                    frame.since.elapsed().as_secs_f64(),
                    shown_in_line(image),
                    path.as_deref().unwrap_or_default()
                ));
            }
        }
        let cut = |line: &String| line.chars().take(width.saturating_sub(1)).collect::<String>();
        bar.set_message(lines.iter().map(cut).collect::<Vec<_>>().join("\n"));
        bar.tick();
    }
}

async fn print_lines(subject: Subject) {
    let before = subject.dispatcher.stats();
    let mut estimate = Estimate::new(Instant::now());
    let mut ticks =
        tokio::time::interval_at(tokio::time::Instant::now() + LINE_INTERVAL, LINE_INTERVAL);
    loop {
        ticks.tick().await;
        let done = subject.dispatcher.stats() - before;
        let summary = summary(&subject, done, &mut estimate, 0);
        say(&format!("{summary}; {}", counts(&subject, done).trim_start()));
    }
}

/// How far the fold is. The bar is left out below a width.
fn summary(subject: &Subject, done: Stats, estimate: &mut Estimate, width: usize) -> String {
    let Some(expected) = subject.expected.filter(|expected| *expected > 0) else {
        return format!("{} frames", done.runs);
    };
    let expected = expected.max(done.runs);
    let left = match estimate.left(Instant::now(), done.runs, expected) {
        Some(left) => format!(", {} left", rough(left)),
        None => String::new(),
    };
    let numbers = format!("{}/{expected} frames{left}", done.runs);
    if width < 80 {
        return numbers;
    }
    const BAR: u64 = 32;
    let full = (done.runs * BAR / expected) as usize;
    format!("{}{} {numbers}", "█".repeat(full), "░".repeat(BAR as usize - full))
}

/// How many frames each runtime has run, how many outcomes were remembered, and who computes.
fn counts(subject: &Subject, done: Stats) -> String {
    let runs: Vec<_> =
        subject.running.runs().iter().map(|(name, count)| format!("{name} {count}")).collect();
    let wanted = done.runs + done.hits + done.joins;
    let rate = if wanted == 0 { 0.0 } else { done.hits as f64 / wanted as f64 * 100.0 };
    let (busy, permits) = subject.dispatcher.permits();
    let runs = if runs.is_empty() { String::new() } else { format!("{}  ", runs.join(", ")) };
    format!("  {runs}hits {rate:.0} %  permits {busy}/{permits}")
}

/// Formats a time that is only an estimate.
fn rough(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..5 => "a few seconds".to_owned(),
        5..60 => format!("{} s", seconds.next_multiple_of(5)),
        60..3600 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
