//! What a guest threw, in its own words and at its own places.

use std::fmt::Write;

use deno_core::v8;

use crate::operations::text_up_to;
use crate::program::Program;

/// How much of a guest's words is kept, in bytes.
const WORDS: usize = 4096;

/// How many places of a stack are named.
const PLACES: usize = 6;

/// Renders what was thrown: its name, message and the places where it happened, as `TypeError: no (main.ts:3:5 in f ← main.ts:9:1)`.
///
/// Reading an exception may call into the guest; what goes wrong then is left out.
pub(crate) fn render(scope: &mut v8::PinScope<'_, '_>, thrown: v8::Local<'_, v8::Value>, program: &Program) -> String {
    let words = words(scope, thrown);
    let places = stack(scope, thrown).map(|stack| places(&stack, program)).unwrap_or_default();
    if places.is_empty() { words } else { format!("{words} ({})", places.join(" ← ")) }
}

fn words(scope: &mut v8::PinScope<'_, '_>, thrown: v8::Local<'_, v8::Value>) -> String {
    v8::tc_scope!(let scope, scope);
    match thrown.to_string(scope) {
        Some(text) => {
            let text = text_up_to(scope, text, WORDS);
            // The name that every error has says nothing.
            text.strip_prefix("Error: ").map(str::to_owned).unwrap_or(text)
        }
        None => "the guest threw something that is no text".to_owned(),
    }
}

fn stack(scope: &mut v8::PinScope<'_, '_>, thrown: v8::Local<'_, v8::Value>) -> Option<String> {
    v8::tc_scope!(let scope, scope);
    let thrown = v8::Local::<v8::Object>::try_from(thrown).ok()?;
    let key = v8::String::new(scope, "stack")?;
    let stack = v8::Local::<v8::String>::try_from(thrown.get(scope, key.into())?).ok()?;
    (stack.length() < 64 * WORDS).then(|| stack.to_rust_string_lossy(scope))
}

/// The places of the guest's own files, from lines such as `    at async name (main.ts:1:2)` or `    at main.ts:1:2`.
fn places(stack: &str, program: &Program) -> Vec<String> {
    let lines = stack.lines().filter_map(|line| line.trim_start().strip_prefix("at "));
    lines.filter_map(|line| place(line, program)).take(PLACES).collect()
}

fn place(line: &str, program: &Program) -> Option<String> {
    let (function, place) = match line.strip_suffix(')').and_then(|line| line.rsplit_once(" (")) {
        Some((function, place)) => (Some(function), place),
        None => (None, line.strip_prefix("async ").unwrap_or(line)),
    };
    let (rest, column) = place.rsplit_once(':')?;
    let (path, row) = rest.rsplit_once(':')?;
    let file = program.files.iter().find(|file| file.path == path)?;
    let (mut row, mut column): (u32, u32) = (row.parse().ok()?, column.parse().ok()?);
    // V8 counts from 1, source maps from 0.
    if let Some(token) =
        file.script.map.as_ref().and_then(|map| map.lookup_token(row.saturating_sub(1), column.saturating_sub(1)))
    {
        (row, column) = (token.get_src_line() + 1, token.get_src_col() + 1);
    }
    let mut text = format!("{path}:{row}:{column}");
    if let Some(function) = function.map(|function| function.strip_prefix("async ").unwrap_or(function)) {
        // Writing to a String cannot fail.
        let _ = write!(text, " in {}", function.chars().take(100).collect::<String>());
    }
    Some(text)
}
