//! The page that plots a history: one file that needs nothing else.

use std::collections::BTreeSet;

use serde_json::json;

use super::rows::Row;
use crate::error::CliError;

const TEMPLATE: &str = include_str!("page.html");

/// Returns a page with a line for each value that is a number.
pub(super) fn page(title: &str, rows: &[Row]) -> Result<String, CliError> {
    let numbers: Vec<_> = rows.iter().map(Row::numbers).collect();
    let names: BTreeSet<_> = numbers.iter().flat_map(|numbers| numbers.keys().copied()).collect();
    let commits = rows.iter().zip(&numbers).map(|(row, numbers)| {
        let values: Vec<_> = names.iter().map(|name| numbers.get(name)).collect();
        json!([row.commit, row.time, row.subject(), values, row.error()])
    });
    let commits: Vec<_> = commits.collect();
    let data = json!({ "title": title, "names": names, "commits": commits });
    let data = serde_json::to_string(&data).map_err(|error| CliError::Output(error.into()))?;
    // Within a script, nothing in the data may look like its end.
    let data = data.replace('<', "\\u003c");
    let title = title.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    Ok(fill(&title, &data))
}

/// Puts the title and the data into the template. What looks like a placeholder in them stays.
fn fill(title: &str, data: &str) -> String {
    let mut pieces = TEMPLATE.split("{{");
    let mut page = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (placeholder, rest) = piece.split_once("}}").unwrap_or(("", piece));
        page += match placeholder {
            "title" => title,
            "data" => data,
            _ => "",
        };
        page += rest;
    }
    page
}
