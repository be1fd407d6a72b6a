//! `manifold history`: folds every commit of a range.

mod page;
mod rows;

use std::num::NonZero;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Commit, GitObjects, Invocation, ObjectSource};
use manifold_runtime_api::{Error, ObjectKind, ObjectRef, Result as ApiResult, TreeEntry};

use crate::args::History;
use crate::arguments::Arguments;
use crate::error::{self, CliError};
use crate::huge_pages;
use crate::outcome;
use crate::patience::Phase;
use crate::progress;
use crate::repository::Repository;
use crate::say::say;
use crate::session::Session;
use rows::{Output, Row};

pub(crate) async fn history(options: History) -> Result<(), CliError> {
    huge_pages::disable();
    Phase::Hashing.begin();
    if let Some(page) = &options.html {
        check_parent(page)?;
    }
    let (objects, commits, unreadable) = commits(&options)?;
    if commits.is_empty() {
        say("note: there are no such commits");
    }
    let arguments = Arguments::read(&options.args, &options.using.reading()?)?;
    let mut sources = vec![Arc::new(objects) as Arc<dyn ObjectSource>];
    sources.extend(arguments.sources());
    let (store, cache) = options.cache.begin(&options.using)?;
    let settings = options.using.session();
    let session = options.nodes.session(store, cache, sources, settings).await?;
    let calls = Calls::new(&session, &options, &arguments).await?;
    if let Some(cache) = &session.cache {
        cache.wait().await;
    }

    Phase::Computing.begin();
    let mut output = Output::new(&options);
    let bar = progress::commits(commits.len() as u64);
    // Two for each core, so that no core waits for the last frames of a commit.
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get) * 2;
    let roots = Roots { calls: &calls, commits: commits.iter() };
    let mut results = pin!(session.dispatcher.run_each(roots, at_once));
    let mut rest = commits.iter();
    let (mut failed, mut last_error) = (0, None);
    while let (Some(result), Some(commit)) = (results.next().await, rest.next()) {
        let value = result.and_then(|completion| {
            if let Some(cache) = &session.cache {
                cache.add(&completion);
            }
            outcome::value(&session.dispatcher, completion.outcome)
        });
        let value = value.map_err(|error| {
            failed += 1;
            let text = error::render(&CliError::Failed(error.clone()));
            last_error = Some(error);
            text
        });
        // Otherwise the bar would stay between the rows of a terminal.
        bar.suspend(|| output.add(Row::new(commit, value)))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Phase::Storing.begin();
    session.leave().await;
    session.dispatcher.flush()?;
    Phase::Writing.begin();
    session.tracing.end()?;
    output.finish()?;
    let exchanged = session.finish_cache(&options.using).await;
    // Everything that is printed to standard output is rows.
    if let Some(exchanged) = exchanged.filter(|_| !options.json && !options.csv) {
        say(&exchanged.line());
    }
    if let Some(source) = unreadable {
        return Err(CliError::HistoryCut { path: options.repo.clone(), source });
    }
    let without_path = calls.without_path.load(Ordering::Relaxed);
    match (last_error, &options.path) {
        (Some(_), Some(path)) if without_path == commits.len() => {
            let (id, path) = (options.rev.clone(), path.display().to_string());
            Err(CliError::NoSuchEntry { id, path })
        }
        (Some(error), _) if failed == commits.len() => Err(error.into()),
        (Some(_), _) => {
            say(&format!("note: {failed} of {} commits have no value", commits.len()));
            Ok(())
        }
        (None, _) => Ok(()),
    }
}

/// Errors if the directory of a file that is written in the end does not exist.
fn check_parent(file: &Path) -> Result<(), CliError> {
    match file.parent() {
        Some(parent) if parent != Path::new("") && !parent.is_dir() => {
            let source = std::io::ErrorKind::NotFound.into();
            Err(CliError::Unwritable { path: file.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Opens the repository and lists the commits of the range, the earliest first. Returns also why a
/// commit could not be read, if that is so: what it reaches is missing then.
fn commits(options: &History) -> Result<(GitObjects, Vec<Commit>, Option<Error>), CliError> {
    let repository = Repository::for_reading(&options.repo)?;
    let objects = repository.objects()?;
    let (without, tip) = match options.rev.split_once("..") {
        Some((_, tip)) if tip.starts_with('.') => return Err(unsupported_range(options)),
        None if ["^!", "^@"].iter().any(|end| options.rev.ends_with(end)) => {
            return Err(unsupported_range(options));
        }
        Some((without, tip)) => (Some(without), tip),
        None => (None, &*options.rev),
    };
    let commit = |rev: &str| repository.commit(if rev.is_empty() { "HEAD" } else { rev }, &objects);
    let tip = commit(tip)?;
    let without = without.map(commit).transpose()?;
    let mut history = objects.history([tip], without)?;
    if options.first_parent {
        history = history.first_parent();
    }
    let (mut commits, mut unreadable) = (Vec::new(), None);
    for commit in history {
        match commit {
            Ok(commit) if options.since.is_some_and(|since| commit.time < since) => {}
            Ok(commit) => commits.push(commit),
            Err(error) => unreadable = unreadable.or(Some(error)),
        }
    }
    // The latest one is always among them.
    let mut commits: Vec<_> = commits.into_iter().step_by(options.every.get()).collect();
    commits.reverse();
    Ok((objects, commits, unreadable))
}

fn unsupported_range(options: &History) -> CliError {
    CliError::UnsupportedRange { rev: options.rev.clone() }
}

/// The calls for the commits.
struct Calls<'a> {
    session: &'a Session,
    options: &'a History,
    fold: String,
    /// The arguments that name the visitors, and their own.
    visitors: Vec<TreeEntry>,
    /// The number of commits so far that lack the path.
    without_path: AtomicUsize,
}

impl<'a> Calls<'a> {
    async fn new(
        session: &'a Session,
        options: &'a History,
        arguments: &Arguments<'_>,
    ) -> Result<Self, CliError> {
        let fold = session.image("fold", options.guest).await?;
        let mut visitors = Vec::new();
        for (name, visitor) in [("post", Some(&options.post)), ("pre", options.pre.as_ref())] {
            if let Some(visitor) = visitor {
                let image = session.image(visitor, options.guest).await?;
                let argument = session.text_argument(name, &image)?;
                session.hold(argument.id)?;
                visitors.push(argument);
            }
        }
        visitors.extend(arguments.for_visitors(session)?);
        Ok(Self { session, options, fold, visitors, without_path: AtomicUsize::new(0) })
    }

    fn invocation(&self, commit: &Commit) -> ApiResult<Invocation> {
        let dispatcher = &self.session.dispatcher;
        let root = self.root(commit)?;
        let arguments = self.visitors.iter().cloned().chain([argument("in", root)]);
        let args = dispatcher.put_tree(arguments)?;
        let options = &self.options;
        // Thousands of pins would keep what a collection should remove.
        let invocation = self.session.invocation(&self.fold, args, &options.salt, &options.using);
        Ok(invocation.unpinned())
    }

    /// Returns what is to be folded of a commit.
    fn root(&self, commit: &Commit) -> ApiResult<ObjectRef> {
        let mut root = ObjectRef::tree(commit.tree);
        let Some(path) = &self.options.path else { return Ok(root) };
        let missing = || {
            self.without_path.fetch_add(1, Ordering::Relaxed);
            let problem = format!("{} is not in the commit {}", path.display(), commit.id);
            Error::guest_failed(problem)
        };
        for name in names(path) {
            if root.kind != ObjectKind::Tree {
                return Err(missing());
            }
            let tree = self.session.dispatcher.read_tree(root.id)?;
            let entry = tree.get(name).ok_or_else(missing)?;
            let kind = entry.mode.object_kind().ok_or_else(missing)?;
            root = ObjectRef { kind, id: entry.id };
        }
        Ok(root)
    }
}

/// Makes the calls one after the other. A type, because a closure would keep the future that holds it
/// from being `Send` (rust-lang/rust#102211).
struct Roots<'a> {
    calls: &'a Calls<'a>,
    commits: std::slice::Iter<'a, Commit>,
}

impl Iterator for Roots<'_> {
    type Item = ApiResult<Invocation>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.calls.invocation(self.commits.next()?))
    }
}

/// Returns the names of a path in a tree.
fn names(path: &Path) -> impl Iterator<Item = &[u8]> {
    let names = path.as_os_str().as_encoded_bytes().split(|byte| *byte == b'/');
    names.filter(|name| !name.is_empty() && *name != b".")
}
