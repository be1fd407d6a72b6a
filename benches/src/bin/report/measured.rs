//! Reads the results of criterion and of the benchmark `scale`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use manifold_benches::{Cores, Measured, OURS, Waited};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A benchmark group: lines that measure the same operation.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) lines: Vec<Line>,
}

/// One line of a group. Times are in nanoseconds for one iteration.
pub(crate) struct Line {
    pub(crate) role: Role,
    /// The benchmark id without the prefix for its role.
    pub(crate) name: String,
    pub(crate) median: f64,
    /// The lower and upper quartile of the samples.
    pub(crate) spread: (f64, f64),
    /// The number of elements that an iteration processes, if the group states it.
    pub(crate) elements: Option<u64>,
}

/// What a line of a group measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Ours,
    Floor,
    Peer,
}

impl Group {
    pub(crate) fn of(&self, role: Role) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.role == role)
    }
}

#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
    /// The number of units in an iteration, by the unit's name.
    throughput: Option<BTreeMap<String, u64>>,
}

#[derive(Deserialize)]
struct Sample {
    iters: Vec<f64>,
    times: Vec<f64>,
}

/// Returns every group with results below criterion's `directory`, sorted by name.
pub(crate) fn groups(directory: &Path) -> Result<Vec<Group>, Box<dyn Error>> {
    let mut groups = BTreeMap::<String, Vec<Line>>::new();
    collect(directory, &mut groups)?;
    let groups = groups.into_iter().map(|(name, mut lines)| {
        lines.sort_by(|one, other| {
            one.role.cmp(&other.role).then(one.median.total_cmp(&other.median))
        });
        Group { name, lines }
    });
    Ok(groups.collect())
}

/// Adds the results below `directory` to `groups`. A result is the two files `new/benchmark.json`
/// and `new/sample.json`.
fn collect(
    directory: &Path,
    groups: &mut BTreeMap<String, Vec<Line>>,
) -> Result<(), Box<dyn Error>> {
    let about = directory.join("new").join("benchmark.json");
    if about.is_file() {
        let benchmark: Benchmark = read(&about)?;
        let sample: Sample = read(&directory.join("new").join("sample.json"))?;
        if let Some(line) = line(&benchmark, &sample) {
            groups.entry(benchmark.group_id).or_default().push(line);
        }
        return Ok(());
    }
    for entry in
        fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?
    {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), groups)?;
        }
    }
    Ok(())
}

/// Returns the line for a result; `None` if it has no samples.
fn line(benchmark: &Benchmark, sample: &Sample) -> Option<Line> {
    let mut times: Vec<f64> =
        sample.times.iter().zip(&sample.iters).map(|(time, count)| time / count).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 4).copied();
    let id = benchmark.function_id.as_deref().unwrap_or_default();
    let (role, name) = if let Some(rest) = id.strip_prefix(OURS) {
        (Role::Ours, rest.trim_start_matches(", "))
    } else if let Some(rest) = id.strip_prefix("floor: ") {
        (Role::Floor, rest)
    } else {
        (Role::Peer, id.strip_prefix("peer: ").unwrap_or(id))
    };
    let name =
        [name, benchmark.value_str.as_deref().unwrap_or_default()].join(" ").trim().to_owned();
    let elements = benchmark.throughput.as_ref().and_then(|units| units.get("Elements")).copied();
    Some(Line { role, name, median: at(2)?, spread: (at(1)?, at(3)?), elements })
}

/// Everything that a report shows.
pub(crate) struct Results {
    /// What the machine is: names and values.
    pub(crate) machine: Vec<(&'static str, String)>,
    pub(crate) groups: Vec<Group>,
    pub(crate) waits: Vec<Waited>,
    pub(crate) cores: Vec<Cores>,
    pub(crate) scales: Vec<Measured>,
}

/// Returns the results of a benchmark that writes a line of JSON for each; none if the file does not
/// exist.
pub(crate) fn lines<T: DeserializeOwned>(file: &Path) -> Result<Vec<T>, Box<dyn Error>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let lines = fs::read_to_string(file)?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T, Box<dyn Error>> {
    serde_json::from_slice(&fs::read(file)?)
        .map_err(|error| format!("{}: {error}", file.display()).into())
}
