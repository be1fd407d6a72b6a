//! The arguments of an image, as the user gives them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use manifold_dispatcher::native::argument;
use manifold_dispatcher::{ObjectSource, ScanOptions};
use manifold_runtime_api::{ObjectRef, TreeEntry};

use crate::args::ArgumentArgs;
use crate::error::CliError;
use crate::input::{self, Input};
use crate::say::warn;
use crate::session::Session;

/// The arguments of an image.
pub(crate) struct Arguments<'a> {
    values: Vec<(&'a str, Value<'a>)>,
    /// The files and directories among them.
    pub(crate) inputs: Vec<NamedInput<'a>>,
}

/// A file or directory that is an argument.
pub(crate) struct NamedInput<'a> {
    /// The name of the argument.
    pub(crate) name: &'a str,
    pub(crate) path: &'a Path,
    pub(crate) input: Input,
}

/// The value of an argument.
enum Value<'a> {
    Text(&'a str),
    /// What was read from standard input.
    Bytes(Vec<u8>),
    Object(ObjectRef),
}

impl<'a> Arguments<'a> {
    /// Reads the files and directories among the arguments. Errors if a name occurs twice.
    pub(crate) fn read(options: &'a ArgumentArgs, reading: &ScanOptions) -> Result<Self, CliError> {
        let mut arguments = Self { values: Vec::new(), inputs: Vec::new() };
        for argument in &options.args {
            let (name, value) = split(argument)?;
            let value = match given(name, value)? {
                Given::StandardInput => {
                    let is_input =
                        |(_, value): &(&str, Value<'_>)| matches!(value, Value::Bytes(_));
                    if arguments.values.iter().any(is_input) {
                        return Err(CliError::StandardInputTwice { name: name.to_owned() });
                    }
                    let mut bytes = Vec::new();
                    let read = std::io::stdin().lock().read_to_end(&mut bytes);
                    let failed = |source| CliError::Unreadable { path: "-".into(), source };
                    read.map_err(failed)?;
                    Value::Bytes(bytes)
                }
                Given::Path(path) => {
                    let input = input::directory(path, reading)?;
                    let root = input.root;
                    arguments.inputs.push(NamedInput { name, path, input });
                    Value::Object(root)
                }
                Given::Text => Value::Text(
                    value.to_str().ok_or_else(|| CliError::NotText { name: name.to_owned() })?,
                ),
            };
            arguments.values.push((name, value));
        }
        for argument in &options.texts {
            let (name, value) = argument
                .split_once('=')
                .ok_or_else(|| CliError::InvalidArgument { argument: argument.into() })?;
            arguments.values.push((name, Value::Text(value)));
        }
        let mut names = BTreeSet::new();
        if let Some((name, _)) = arguments.values.iter().find(|(name, _)| !names.insert(*name)) {
            return Err(CliError::DuplicateArgument { name: (*name).to_owned() });
        }
        Ok(arguments)
    }

    /// Returns the sources of the files and directories.
    pub(crate) fn sources(&self) -> Vec<Arc<dyn ObjectSource>> {
        self.inputs.iter().map(|named| Arc::clone(&named.input.source)).collect()
    }

    /// Stores the texts, and returns the entries of a tree of the arguments.
    pub(crate) fn entries(&self, session: &Session) -> Result<Vec<TreeEntry>, CliError> {
        let entries = self.values.iter().map(|(name, value)| match value {
            Value::Text(text) => session.text_argument(name, text),
            Value::Bytes(bytes) => {
                let id = session.dispatcher.put_blob(bytes.clone())?;
                Ok(argument(name, ObjectRef::blob(id)))
            }
            Value::Object(object) => Ok(argument(name, *object)),
        });
        entries.collect()
    }

    /// Returns the argument `with` of fold, which passes these arguments to its visitors. There is
    /// none if there are no arguments.
    pub(crate) fn for_visitors(&self, session: &Session) -> Result<Option<TreeEntry>, CliError> {
        if self.values.is_empty() {
            return Ok(None);
        }
        const OF_FOLD: [&str; 2] = ["in", "children"];
        if let Some((name, _)) = self.values.iter().find(|(name, _)| OF_FOLD.contains(name)) {
            return Err(CliError::ArgumentOfFold { name: (*name).to_owned() });
        }
        let with = session.arguments(self.entries(session)?)?;
        Ok(Some(argument("with", ObjectRef::tree(with))))
    }
}

/// Splits `NAME=VALUE`.
fn split(argument: &OsStr) -> Result<(&str, &OsStr), CliError> {
    let invalid = || CliError::InvalidArgument { argument: argument.to_owned() };
    let bytes = argument.as_bytes();
    let equals = bytes.iter().position(|byte| *byte == b'=').ok_or_else(invalid)?;
    let name = std::str::from_utf8(&bytes[..equals]).map_err(|_| invalid())?;
    Ok((name, OsStr::from_bytes(&bytes[equals + 1..])))
}

/// Where the value of an argument comes from.
enum Given<'a> {
    StandardInput,
    Path(&'a Path),
    Text,
}

/// Returns where the value of the argument `name` comes from. Warns about a text that is probably
/// meant to be a path.
fn given<'a>(name: &str, value: &'a OsStr) -> Result<Given<'a>, CliError> {
    if value == "-" {
        return Ok(Given::StandardInput);
    }
    if let Some(explicit) = value.as_bytes().strip_prefix(b"@") {
        let explicit = Path::new(OsStr::from_bytes(explicit));
        input::check_path(explicit)?;
        return Ok(Given::Path(explicit));
    }
    if let Some(path) = path(value)? {
        return Ok(Given::Path(path));
    }
    let text = value.to_string_lossy();
    let is_reference = text.contains("://") || text.starts_with("/cas/");
    if text.contains('/') && !is_reference && !text.contains(char::is_whitespace) {
        warn(&format!(
            "{name}={text} is passed as text, because there is no such path (--text {name}=… says \
             that it is text)"
        ));
    }
    Ok(Given::Text)
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
