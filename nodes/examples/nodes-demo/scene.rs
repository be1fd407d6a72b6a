//! [`Scene`]: what is shown, one after the other.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use manifold_dispatcher::api::ObjectId;
use manifold_dispatcher::{Phase, SpanKind};
use manifold_testing::nats::Nats;
use manifold_trace::Trace;
use tokio::task::JoinHandle;

use crate::Failure;
use crate::machine::{Files, Machine};
use crate::page::{Lane, Page};

/// A hundred thousand files of two milliseconds.
const ALL: Files = Files { directories: 250, files: 400, millis: 1 };
/// A part of them, for what happens several times.
const SOME: Files = Files { directories: 100, files: 400, millis: 1 };
/// How long a node counts as alive after it was last heard of.
const TIME_TO_LIVE: f64 = 5.0;

/// A node in a process of its own.
struct Helper {
    process: Child,
    trace: PathBuf,
    killed: Option<Instant>,
}

impl Helper {
    fn start(server: &Nats, trace: PathBuf) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["helper", &server.address()]).arg(&trace);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().ok_or("no output")?;
        let mut ready = String::new();
        BufReader::new(output).read_line(&mut ready)?;
        Ok(Self { process, trace, killed: None })
    }

    fn signal(&self, signal: &str) -> Result<(), Failure> {
        let id = self.process.id().to_string();
        Command::new("kill").args([signal, &id]).status()?;
        Ok(())
    }

    fn kill(&mut self) -> Result<(), Failure> {
        self.killed = Some(Instant::now());
        self.process.kill()?;
        Ok(())
    }

    /// Ends the node, and reads its trace.
    fn end(mut self) -> Result<Trace, Failure> {
        drop(self.process.stdin.take());
        self.process.wait()?;
        Ok(Trace::read(&self.trace)?)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The scenes, and what is known from the first.
pub(crate) struct Scene {
    output: PathBuf,
}

/// A call on one node and two helpers.
struct Shared {
    origin: std::sync::Arc<Machine>,
    helpers: Vec<Helper>,
    trace: PathBuf,
    run: JoinHandle<Result<(String, Instant), String>>,
    began: Instant,
    wall: Duration,
}

impl Scene {
    pub(crate) fn new(output: &Path) -> Self {
        Self { output: output.to_owned() }
    }

    fn trace(&self, name: &str) -> PathBuf {
        self.output.join(format!("{name}.trace"))
    }

    /// One node without others: the outcome and the time that the others are compared with.
    pub(crate) async fn alone(&self, page: &mut Page) -> Result<(), Failure> {
        for (name, files) in [("alone", ALL), ("alone-some", SOME)] {
            let machine = Machine::start(None, false, &self.trace(name)).await?;
            let start = Instant::now();
            let completion = machine.fold(files, "").await?;
            page.expected(name, completion.text()?, start.elapsed());
            machine.end().await?;
        }
        page.row("one node, 100,000 files", "alone", "", true);
        Ok(())
    }

    async fn begin(&self, server: &Nats, name: &str, files: Files) -> Result<Shared, Failure> {
        let trace = self.trace(name);
        let origin = Machine::start(Some(&server.address()), false, &trace).await?;
        let helpers = ["b", "c"]
            .map(|helper| Helper::start(server, self.trace(&format!("{name}-{helper}"))))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        origin.meets(2).await;
        let origin = std::sync::Arc::new(origin);
        let (caller, salt) = (std::sync::Arc::clone(&origin), name.to_owned());
        let (began, wall) = (Instant::now(), now());
        let run = tokio::spawn(async move {
            let completion = caller.fold(files, &salt).await.map_err(|error| error.to_string())?;
            Ok((completion.text().map_err(|error| error.to_string())?, Instant::now()))
        });
        Ok(Shared { origin, helpers, trace, run, began, wall })
    }

    pub(crate) async fn three_nodes(&self, page: &mut Page, server: &Nats) -> Result<(), Failure> {
        let shared = self.begin(server, "three", ALL).await?;
        let Ended { text, time, traces, twice, .. } = shared.end().await?;
        let gain = page.time("alone") / time;
        let holds = text == page.text("alone") && twice.is_empty() && gain >= 2.5 * 0.95;
        let found = format!(
            "{time:.1} s: {gain:.2} times one node (asked: 2.5); {} units, {} of {} runs twice",
            units(&traces),
            twice.len(),
            runs(&traces)
        );
        page.row("three nodes, 100,000 files", "the same outcome, no run twice", &found, holds);
        page.picture("Three nodes, 100,000 files", lanes(&traces, &[None; 3]));
        Ok(())
    }

    pub(crate) async fn a_node_is_killed(
        &self,
        page: &mut Page,
        server: &Nats,
    ) -> Result<(), Failure> {
        let mut shared = self.begin(server, "killed", SOME).await?;
        tokio::time::sleep(Duration::from_secs_f64(page.time("alone-some") / 6.0)).await;
        shared.helpers[0].kill()?;
        let killed = shared.wall + shared.began.elapsed();
        let after = shared.began.elapsed().as_secs_f64();
        let Ended { text, time, traces, twice, .. } = shared.end().await?;
        let dead: HashSet<_> = started(&traces[1]).into_iter().collect();
        let elsewhere = twice.iter().filter(|request| !dead.contains(*request)).count();
        // What was lost is at most what the dead node had.
        let bound = after + TIME_TO_LIVE + 2.0 + page.time("alone-some");
        let holds = text == page.text("alone-some") && time < bound;
        let found = format!(
            "{time:.1} s, {:.1} s after the kill; {} runs twice, of which {elsewhere} are not in the \
             trace of the dead node (its last half second is lost)",
            time - after,
            twice.len(),
        );
        page.row("one of three is killed (kill -9)", "the same outcome", &found, holds);
        page.picture("Node b is killed", lanes(&traces, &[None, Some(killed.as_secs_f64()), None]));
        Ok(())
    }

    pub(crate) async fn a_node_is_stopped(
        &self,
        page: &mut Page,
        server: &Nats,
    ) -> Result<(), Failure> {
        let shared = self.begin(server, "stopped", SOME).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        shared.helpers[0].signal("-STOP")?;
        let Ended { text, time, .. } = {
            let id = shared.helpers[0].process.id().to_string();
            let resume = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs_f64(2.0 * TIME_TO_LIVE)).await;
                Command::new("kill").args(["-CONT", &id]).status()
            });
            let ended = shared.outcome().await?;
            resume.await??;
            ended.read().await?
        };
        let holds = text == page.text("alone-some");
        let found = format!("{time:.1} s");
        page.row("one of three is stopped for 10 s", "the same outcome", &found, holds);
        Ok(())
    }

    pub(crate) async fn the_server_is_away(
        &self,
        page: &mut Page,
        server: &mut Nats,
    ) -> Result<(), Failure> {
        let shared = self.begin(server, "away", SOME).await?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.kill();
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.resume();
        let Ended { text, time, twice, .. } = shared.end().await?;
        let holds = text == page.text("alone-some");
        let found = format!("{time:.1} s; {} runs twice", twice.len());
        page.row("the server is away for 1 s", "the same outcome", &found, holds);
        Ok(())
    }

    pub(crate) async fn two_ask_at_once(
        &self,
        page: &mut Page,
        server: &Nats,
    ) -> Result<(), Failure> {
        let files = Files { directories: 20, ..SOME };
        let mut machines = Vec::new();
        for name in ["one", "other"] {
            let trace = self.trace(name);
            machines.push(Machine::start(Some(&server.address()), false, &trace).await?);
        }
        let [one, other] = &machines[..] else { return Err("two machines".into()) };
        one.meets(1).await;
        let (first, second) = tokio::join!(one.fold(files, "both"), other.fold(files, "both"));
        let same = first?.outcome == second?.outcome;
        let counts: Vec<_> =
            machines.iter().map(|machine| machine.dispatcher.stats().runs).collect();
        let holds = same && counts.iter().sum::<u64>() == 20 * 400 + 21;
        let found = format!("{} and {} runs", counts[0], counts[1]);
        page.row("two ask for the same at once", "one runs it", &found, holds);
        for machine in machines {
            machine.end().await?;
        }
        Ok(())
    }

    /// Files that take no time: what the server costs while nobody helps.
    pub(crate) async fn nobody_helps(&self, page: &mut Page, server: &Nats) -> Result<(), Failure> {
        let files = Files { directories: 250, files: 400, millis: 0 };
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for round in 0..7 {
            for (times, address) in [(&mut without, None), (&mut with, Some(server.address()))] {
                let trace = self.trace("nobody");
                let machine = Machine::start(address.as_deref(), false, &trace).await?;
                let start = Instant::now();
                machine.fold(files, &format!("nobody {round}")).await?;
                times.push(start.elapsed().as_secs_f64());
                machine.end().await?;
            }
        }
        let (without, with) = (median(&mut without), median(&mut with));
        let frames = 250.0 * 400.0 + 251.0;
        let found = format!(
            "{:.1} µs a frame instead of {:.1}: {:.3} times (asked: 1.03)",
            with / frames * 1e6,
            without / frames * 1e6,
            with / without
        );
        let holds = with / without < 1.03 * 1.05;
        page.row("small frames, and nobody helps", "hardly slower", &found, holds);
        Ok(())
    }
}

/// A call that has ended, and what the nodes recorded.
struct Ended {
    text: String,
    /// In seconds.
    time: f64,
    /// Of the node that asked, and of the helpers.
    traces: Vec<Trace>,
    /// The requests that were started twice.
    twice: Vec<ObjectId>,
}

/// A call that has ended, before the nodes do.
struct Outcome {
    text: String,
    time: f64,
    origin: Machine,
    trace: PathBuf,
    helpers: Vec<Helper>,
}

impl Shared {
    async fn outcome(self) -> Result<Outcome, Failure> {
        let (text, ended) = self.run.await??;
        let time = ended.duration_since(self.began).as_secs_f64();
        let Ok(origin) = std::sync::Arc::try_unwrap(self.origin) else {
            return Err("the machine is still used".into());
        };
        Ok(Outcome { text, time, origin, trace: self.trace, helpers: self.helpers })
    }

    async fn end(self) -> Result<Ended, Failure> {
        self.outcome().await?.read().await
    }
}

impl Outcome {
    async fn read(self) -> Result<Ended, Failure> {
        self.origin.end().await?;
        let mut traces = vec![Trace::read(&self.trace)?];
        for helper in self.helpers {
            traces.push(helper.end()?);
        }
        let mut counts: HashMap<ObjectId, usize> = HashMap::new();
        for request in traces.iter().flat_map(started) {
            *counts.entry(request).or_default() += 1;
        }
        let twice = counts.into_iter().filter(|(_, count)| *count > 1);
        let twice = twice.map(|(request, _)| request).collect();
        Ok(Ended { text: self.text, time: self.time, traces, twice })
    }
}

/// Returns the requests that a node has started.
fn started(trace: &Trace) -> Vec<ObjectId> {
    let runs = trace.spans().iter().filter(|span| span.kind() == SpanKind::Run);
    runs.filter_map(|span| trace.request(span)).collect()
}

fn runs(traces: &[Trace]) -> usize {
    traces.iter().map(|trace| started(trace).len()).sum()
}

/// Returns how many runs were given away, and came back with an outcome.
fn units(traces: &[Trace]) -> usize {
    let all = traces.iter().flat_map(|trace| trace.spans());
    all.filter(|span| span.kind() == SpanKind::Elsewhere).count()
}

/// Returns what each node ran, with the time at which it was killed, in seconds since 1970.
fn lanes(traces: &[Trace], killed: &[Option<f64>]) -> Vec<Lane> {
    let names = ["a (asks)", "b", "c"];
    let lanes = traces.iter().zip(names).zip(killed);
    lanes
        .map(|((trace, name), killed)| {
            let began = trace.began().as_secs_f64();
            let time = |time: Duration| began + time.as_secs_f64();
            let bars = |kind: SpanKind| {
                let spans = trace.spans().iter().filter(move |span| span.kind() == kind);
                spans.map(move |span| (time(span.began()), time(span.ended()))).collect()
            };
            // Directories wait for their files, and a file waits for its turn.
            let files = trace
                .spans()
                .iter()
                .filter(|span| span.kind() == SpanKind::Run && span.phase(Phase::Nested).is_zero());
            let files = files.map(|span| {
                let ended = time(span.ended());
                (ended - span.phase(Phase::Compute).as_secs_f64(), ended)
            });
            let files = files.collect();
            Lane { name: name.to_owned(), units: bars(SpanKind::Call), files, killed: *killed }
        })
        .collect()
}

fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
