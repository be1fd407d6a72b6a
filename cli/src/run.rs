//! `manifold run`: runs an image on arguments.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use manifold_dispatcher::native::argument;
use manifold_runtime_api::ObjectRef;

use crate::args::{Language, Run};
use crate::error::CliError;
use crate::input::{self, Input};
use crate::patience::Phase;
use crate::places;
use crate::report::{self, OutcomeReport, RunReport};
use crate::session::Session;

/// The value of an argument.
enum Value {
    Text(String),
    Object(ObjectRef),
}

pub(crate) async fn run(options: Run) -> Result<(), CliError> {
    Phase::Hashing.begin();
    let reading = options.using.reading()?;
    let mut inputs: Vec<Input> = Vec::new();
    let mut values = Vec::new();
    for argument in &options.args {
        let (name, value) = split(argument)?;
        values.push((
            name,
            match path(value)? {
                Some(path) => {
                    let input = input::directory(path, &reading)?;
                    let root = input.root;
                    inputs.push(input);
                    Value::Object(root)
                }
                None => Value::Text(
                    value
                        .to_str()
                        .ok_or_else(|| CliError::NotText { name: name.to_owned() })?
                        .to_owned(),
                ),
            },
        ));
    }
    for argument in &options.texts {
        let (name, value) = argument
            .split_once('=')
            .ok_or_else(|| CliError::InvalidArgument { argument: argument.into() })?;
        values.push((name, Value::Text(value.to_owned())));
    }
    let mut names = BTreeSet::new();
    if let Some((name, _)) = values.iter().find(|(name, _)| !names.insert(*name)) {
        return Err(CliError::DuplicateArgument { name: (*name).to_owned() });
    }

    let sources = inputs.iter().map(|input| Arc::clone(&input.source)).collect();
    let session = Session::new(options.using.open()?, sources, &options.using.session())?;
    let dispatcher = &session.dispatcher;
    let entries = values.into_iter().map(|(name, value)| match value {
        Value::Text(text) => session.text_argument(name, &text),
        Value::Object(object) => Ok(argument(name, object)),
    });
    let args = session.arguments(entries.collect::<Result<Vec<_>, _>>()?)?;
    let image = session.image(&options.image, Language::Wasm).await?;
    let invocation = session.invocation(&image, args, &options.salt, &options.using);
    Phase::Computing.begin();
    let completion = dispatcher.run(invocation).await.map_err(|error| {
        let explained = CliError::Failed(error);
        inputs.iter().fold(explained, |error, input| places::explain(error, dispatcher, input))
    })?;
    Phase::Storing.begin();
    dispatcher.flush()?;
    Phase::Writing.begin();

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

/// Splits `NAME=VALUE`.
fn split(argument: &OsStr) -> Result<(&str, &OsStr), CliError> {
    let invalid = || CliError::InvalidArgument { argument: argument.to_owned() };
    let bytes = argument.as_bytes();
    let equals = bytes.iter().position(|byte| *byte == b'=').ok_or_else(invalid)?;
    let name = std::str::from_utf8(&bytes[..equals]).map_err(|_| invalid())?;
    Ok((name, OsStr::from_bytes(&bytes[equals + 1..])))
}

/// Returns the value as a path if the path exists. Errors if it cannot be accessed, instead of
/// treating the value as text.
fn path(value: &OsStr) -> Result<Option<&Path>, CliError> {
    let path = Path::new(value);
    match path.symlink_metadata() {
        Ok(_) => Ok(Some(path)),
        Err(error) => match error.kind() {
            ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput => Ok(None),
            _ => Err(CliError::Unreadable { path: path.to_owned(), source: error }),
        },
    }
}
