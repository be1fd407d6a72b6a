use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Invocation, ObjectSource};
use manifold_runtime_api::Outcome;

use crate::args::Run;
use crate::error::CliError;
use crate::input;
use crate::report::{self, OutcomeReport, RunReport};
use crate::session::Session;

/// An argument as it was given.
enum Value {
    Text(String),
    Object(Outcome),
}

pub(crate) async fn run(options: Run) -> Result<(), CliError> {
    let mut sources: Vec<Arc<dyn ObjectSource>> = Vec::new();
    let mut values = Vec::new();
    for argument in &options.args {
        let (name, value) = split(argument)?;
        if Path::new(value).exists() {
            let input = input::directory(Path::new(value))?;
            sources.push(input.source);
            values.push((name, Value::Object(input.root)));
        } else {
            values.push((name, Value::Text(value.to_owned())));
        }
    }
    for argument in &options.texts {
        let (name, value) = split(argument)?;
        values.push((name, Value::Text(value.to_owned())));
    }
    let mut names = BTreeSet::new();
    if let Some((name, _)) = values.iter().find(|(name, _)| !names.insert(*name)) {
        return Err(CliError::ArgumentTwice { name: (*name).to_owned() });
    }

    let session = Session::new(sources)?;
    let dispatcher = &session.dispatcher;
    let entries = values.into_iter().map(|(name, value)| match value {
        Value::Text(text) => session.text_argument(name, &text),
        Value::Object(object) => Ok(argument(name, object)),
    });
    let args = dispatcher.put_tree(entries.collect::<Result<Vec<_>, _>>()?)?;
    let invocation = Invocation::new(session.image(&options.image)?, args).salt(options.salt).std(session.std);
    let completion = dispatcher.run(invocation).await?;

    if options.raw {
        return report::object(&dispatcher.read(completion.outcome.id)?);
    }
    let report = RunReport {
        request: completion.request.to_string(),
        result: OutcomeReport::new(dispatcher, completion.outcome)?,
    };
    let text = if options.json { report::json(&report)? } else { report.text() };
    report::print(text.as_bytes())
}

fn split(argument: &str) -> Result<(&str, &str), CliError> {
    argument.split_once('=').ok_or_else(|| CliError::NotAnArgument { argument: argument.to_owned() })
}
