//! The rows of a history, as a table, JSON lines, comma-separated values, or a page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use gix::date::Time;
use gix::date::time::format;
use manifold_dispatcher::Commit;
use serde::Serialize;
use serde_json::Value as Json;

use super::page;
use crate::args::History;
use crate::error::CliError;
use crate::outcome::{self, Value, number_or_text};
use crate::report::{json, print};
use crate::shown::{shown, shown_in_line};

/// A commit and its value.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) commit: String,
    /// Seconds since 1970.
    #[serde(skip)]
    pub(super) time: i64,
    #[serde(rename = "time")]
    date: String,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    texts: BTreeMap<String, String>,
}

/// The columns of comma-separated values before the values, and the one after them.
const COLUMNS: [&str; 3] = ["commit", "time", "subject"];
const ERROR: &str = "error";
/// The name of the column of a value that has no name.
const VALUE: &str = "value";

/// Returns the name of the column of a value. It differs from those of the other columns.
fn column(name: &str) -> String {
    match name {
        "" => VALUE.to_owned(),
        name if [VALUE, ERROR].contains(&name) || COLUMNS.contains(&name) => {
            format!("{VALUE} {name}")
        }
        name => name.to_owned(),
    }
}

impl Row {
    /// A row with a value, or with the text of an error.
    pub(super) fn new(commit: &Commit, value: Result<Value, String>) -> Self {
        let (texts, error) = match value {
            Ok(Value::One(text)) => (BTreeMap::from([(String::new(), text)]), None),
            Ok(Value::Several(texts)) => (texts, None),
            Err(error) => (BTreeMap::new(), Some(error.trim_end().to_owned())),
        };
        let value = match texts.get("") {
            _ if error.is_some() => None,
            Some(text) => Some(number_or_text(text)),
            None => Some(Json::Object(outcome::json(&texts))),
        };
        Self {
            commit: commit.id.to_string(),
            time: commit.time,
            date: Time::new(commit.time, 0).format_or_unix(format::ISO8601_STRICT),
            subject: commit.subject.to_string(),
            value,
            error,
            texts,
        }
    }

    /// Returns the values that are numbers, by name.
    pub(super) fn numbers(&self) -> BTreeMap<&str, f64> {
        let numbers = self.texts.iter();
        let numbers = numbers.filter_map(|(name, text)| Some((&**name, text.parse().ok()?)));
        numbers.filter(|(_, number): &(_, f64)| number.is_finite()).collect()
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    fn table_line(&self) -> String {
        let day = self.date.get(..10).unwrap_or(&self.date);
        let texts: Vec<_> = self
            .texts
            .iter()
            .map(
                |(name, text)| {
                    if name.is_empty() { text.clone() } else { format!("{name}={text}") }
                },
            )
            .collect();
        let value = match &self.error {
            Some(error) => error.lines().next().unwrap_or_default().to_owned(),
            None => texts.join(" "),
        };
        let commit = self.commit.get(..12).unwrap_or(&self.commit);
        let line = format!("{commit}  {day}  {value:>12}  {}", self.subject);
        shown_in_line(&line) + "\n"
    }

    fn csv_line(&self, names: &BTreeSet<&str>) -> String {
        let own = [&*self.commit, &self.date, &self.subject].into_iter();
        let values = names.iter().map(|name| self.texts.get(*name).map_or("", String::as_str));
        let error = self.error.as_deref().unwrap_or_default();
        csv(own.chain(values).chain([error]))
    }
}

/// Encodes a line of comma-separated values (RFC 4180).
fn csv<'a>(fields: impl Iterator<Item = &'a str>) -> String {
    let quoted = fields.map(|field| {
        let field = shown(field);
        if field.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field
        }
    });
    quoted.collect::<Vec<_>>().join(",") + "\r\n"
}

/// Where the rows go.
pub(super) struct Output {
    format: Format,
    page: Option<PathBuf>,
    title: String,
    /// The rows, if they are needed in the end.
    rows: Vec<Row>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Table,
    Json,
    Csv,
}

impl Output {
    pub(super) fn new(options: &History) -> Self {
        let format = match options {
            History { json: true, .. } => Format::Json,
            History { csv: true, .. } => Format::Csv,
            _ => Format::Table,
        };
        let title = match &options.path {
            Some(path) => format!("{} of {}, {}", options.post, path.display(), options.rev),
            None => format!("{}, {}", options.post, options.rev),
        };
        Self { format, page: options.html.clone(), title, rows: Vec::new() }
    }

    /// Adds a row, and prints it unless the columns depend on all rows.
    pub(super) fn add(&mut self, row: Row) -> Result<(), CliError> {
        match self.format {
            Format::Table => print(row.table_line().as_bytes())?,
            Format::Json => print(json(&row)?.as_bytes())?,
            Format::Csv => {}
        }
        if self.format == Format::Csv || self.page.is_some() {
            self.rows.push(row);
        }
        Ok(())
    }

    /// Prints what depends on all rows, and writes the page.
    pub(super) fn finish(self) -> Result<(), CliError> {
        if self.format == Format::Csv {
            let names: BTreeSet<&str> =
                self.rows.iter().flat_map(|row| row.texts.keys()).map(String::as_str).collect();
            let head = COLUMNS.map(str::to_owned).into_iter();
            let head = head.chain(names.iter().map(|name| column(name))).chain([ERROR.to_owned()]);
            let lines = self.rows.iter().map(|row| row.csv_line(&names));
            let head: Vec<_> = head.collect();
            let head = csv(head.iter().map(String::as_str));
            let text: String = std::iter::once(head).chain(lines).collect();
            print(text.as_bytes())?;
        }
        if let Some(path) = self.page {
            let page = page::page(&self.title, &self.rows)?;
            fs::write(&path, page).map_err(|source| CliError::Unwritable { path, source })?;
        }
        Ok(())
    }
}
