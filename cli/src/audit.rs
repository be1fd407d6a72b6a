//! `manifold audit`: runs remembered requests again, and compares the outcomes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use manifold_dispatcher::{
    Dispatcher, Event, Invocation, ObjectSource, Observer, Policy, Provenance,
};
use manifold_runtime_api::{EntryMode, ObjectId, ObjectKind, ObjectRef};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use crate::args::{Audit, UseArgs};
use crate::diff;
use crate::error::CliError;
use crate::explain::{Names, record};
use crate::input;
use crate::objects::{self, Named};
use crate::patience::Phase;
use crate::report;
use crate::repository::Repository;
use crate::session::Session;
use crate::shown::shown_in_line;

/// What a guest logs in the run that is being compared, at most this many lines of each.
const LOG_LINES: usize = 20;
/// How many runs are compared one after the other: an image that depends on time may return the same
/// twice in a moment.
const RUNS: usize = 2;

/// How a request ended when it was run again.
enum Verdict {
    Same,
    Differs {
        before: ObjectRef,
        again: ObjectRef,
    },
    /// It could not be run again, for this reason.
    Skipped(String),
}

pub(crate) async fn audit(options: Audit) -> Result<(), CliError> {
    Phase::Hashing.begin();
    let sources = match &options.input {
        Some(path) => sources(path, &options.using)?,
        None => Vec::new(),
    };
    let logs = Arc::new(Logs::default());
    let mut settings = options.using.session();
    settings.observe(Arc::clone(&logs) as Arc<dyn Observer>);
    let session = Session::new(options.using.open()?, sources, &settings)?;
    let dispatcher = &session.dispatcher;
    let chosen = choose(dispatcher, &options)?;
    let names = Names::read(dispatcher, &[session.std, session.standard]);
    Phase::Computing.begin();
    let mut rows = Vec::new();
    for record in &chosen {
        let verdict = compare(&session, record, &options.using, &logs).await?;
        rows.push((record, verdict));
    }
    Phase::Writing.begin();
    session.tracing.end()?;
    let count = |is: fn(&Verdict) -> bool| rows.iter().filter(|(_, verdict)| is(verdict)).count();
    let (same, differ, skipped) = (
        count(|verdict| matches!(verdict, Verdict::Same)),
        count(|verdict| matches!(verdict, Verdict::Differs { .. })),
        count(|verdict| matches!(verdict, Verdict::Skipped(_))),
    );
    if options.json {
        let rows: Vec<_> = rows
            .iter()
            .filter(|(_, verdict)| !matches!(verdict, Verdict::Same))
            .map(|(record, verdict)| row(dispatcher, record, verdict, &names, &logs))
            .collect();
        let value = json!({ "same": same, "differ": differ, "skipped": skipped, "requests": rows });
        report::print(report::json(&value)?.as_bytes())?;
    } else {
        let mut text = String::new();
        for (record, verdict) in &rows {
            text += &lines(dispatcher, record, verdict, &names, &logs)?;
        }
        text += &format!("{same} the same, {differ} different, {skipped} not run\n");
        report::print(text.as_bytes())?;
    }
    if differ > 0 {
        return Err(CliError::NotPure { count: differ });
    }
    if same == 0 && skipped > 0 {
        return Err(CliError::NothingAudited { count: skipped });
    }
    Ok(())
}

/// Returns the objects of a directory, and of the repository around it.
fn sources(path: &Path, using: &UseArgs) -> Result<Vec<Arc<dyn ObjectSource>>, CliError> {
    let mut sources = vec![input::directory(path, &using.reading()?)?.source];
    match Repository::for_reading(path) {
        Ok(repository) => sources.push(Arc::new(repository.objects()?)),
        Err(CliError::NotARepository { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(sources)
}

/// Returns the requests that the user named, or a sample of all that have an outcome.
fn choose(dispatcher: &Dispatcher, options: &Audit) -> Result<Vec<Provenance>, CliError> {
    if !options.requests.is_empty() {
        let find = |text: &String| record(dispatcher, objects::id(dispatcher, text)?);
        return options.requests.iter().map(find).collect();
    }
    let mut all = dispatcher.provenances()?;
    all.retain(|record| record.error.is_none());
    let count = ((all.len() as f64 * options.share).ceil() as usize).min(all.len());
    // A request's place in the order is a hash of its id and the seed.
    all.sort_by_cached_key(|record| {
        ObjectId::of(ObjectKind::Blob, format!("{} {}", options.seed, record.id).as_bytes())
    });
    all.truncate(count);
    Ok(all)
}

/// Runs a request again.
async fn compare(
    session: &Session,
    record: &Provenance,
    using: &UseArgs,
    logs: &Logs,
) -> Result<Verdict, CliError> {
    let dispatcher = &session.dispatcher;
    let Some(before) = dispatcher.look_up(record.id)? else {
        return Ok(Verdict::Skipped("its outcome is no longer there".to_owned()));
    };
    let mut invocation = Invocation::new(&*record.request.image)
        .args(record.request.args)
        .salt(&*record.request.salt)
        .unpinned()
        .policy(Policy::DoNotCache);
    invocation.std = record.request.std;
    if let Some(time) = using.deadline {
        invocation = invocation.budget(using.limits.budget().deadline(time));
    }
    for _ in 0..RUNS {
        logs.begin(record.id);
        match dispatcher.run(invocation.clone()).await {
            Ok(again) if again.outcome != before => {
                return Ok(Verdict::Differs { before, again: again.outcome });
            }
            Ok(_) => {}
            Err(error) => {
                let cause = error.root_cause().to_string();
                let hint = match error.missing_object() {
                    Some(_) => "; --input names what it was run on",
                    None => "",
                };
                return Ok(Verdict::Skipped(format!("{cause}{hint}")));
            }
        }
    }
    Ok(Verdict::Same)
}

/// The paths at which two outcomes differ.
fn changes(dispatcher: &Dispatcher, before: ObjectRef, again: ObjectRef) -> Vec<String> {
    let named = |object: ObjectRef| Named { id: object.id, mode: EntryMode::plain(object.kind) };
    match diff::changed_paths(dispatcher, named(before), named(again)) {
        Ok(paths) => paths.into_iter().map(|(path, what)| format!("{path} {what}")).collect(),
        Err(_) => Vec::new(),
    }
}

fn row(
    dispatcher: &Dispatcher,
    record: &Provenance,
    verdict: &Verdict,
    names: &Names,
    logs: &Logs,
) -> Json {
    let mut row = json!({
        "request": record.id.to_string(),
        "image": names.of(&record.request.image),
    });
    match verdict {
        Verdict::Same => {}
        Verdict::Skipped(reason) => row["skipped"] = json!(reason),
        Verdict::Differs { before, again } => {
            row["before"] = json!(before.id.to_string());
            row["again"] = json!(again.id.to_string());
            row["changes"] = json!(changes(dispatcher, *before, *again));
            row["log"] = json!(logs.of(record.id));
        }
    }
    row
}

fn lines(
    dispatcher: &Dispatcher,
    record: &Provenance,
    verdict: &Verdict,
    names: &Names,
    logs: &Logs,
) -> Result<String, CliError> {
    let image = shown_in_line(names.of(&record.request.image));
    Ok(match verdict {
        Verdict::Same => String::new(),
        Verdict::Skipped(reason) => {
            format!("not run    {} {image}: {}\n", record.id, shown_in_line(reason))
        }
        Verdict::Differs { before, again } => {
            let mut text = format!(
                "different  {} {image}\n  before {} {}\n  again  {} {}\n",
                record.id, before.kind, before.id, again.kind, again.id
            );
            let named =
                |object: &ObjectRef| Named { id: object.id, mode: EntryMode::plain(object.kind) };
            for line in diff::text(dispatcher, named(before), named(again))?.lines() {
                text += &format!("    {}\n", shown_in_line(line));
            }
            let log = logs.of(record.id);
            if !log.is_empty() {
                text += "  logged in the last run\n";
                text.extend(log.iter().map(|line| format!("    {}\n", shown_in_line(line))));
            }
            text
        }
    })
}

/// What guests log, by request.
#[derive(Default)]
struct Logs(Mutex<HashMap<ObjectId, Vec<String>>>);

impl Logs {
    fn begin(&self, request: ObjectId) {
        self.0.lock().insert(request, Vec::new());
    }

    fn of(&self, request: ObjectId) -> Vec<String> {
        self.0.lock().get(&request).cloned().unwrap_or_default()
    }
}

impl Observer for Logs {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Logged { request, message } = event
            && let Some(lines) = self.0.lock().get_mut(request)
        {
            let room = LOG_LINES.saturating_sub(lines.len());
            lines.extend(message.lines().take(room).map(str::to_owned));
        }
    }
}
