//! What a guest threw, in its own words and at its own places.

use std::fmt::Write;

use deno_core::v8;

use crate::operations::text_up_to;
use crate::program::{Program, Script};

/// How much of a guest's words is kept, in bytes.
const WORDS: usize = 4096;

/// How many places of a stack are named.
const PLACES: usize = 6;

/// How many errors in one another are told, and how many side by side.
const DEEP: usize = 8;
const WIDE: usize = 8;

/// What V8 refuses in a module, and where.
pub(crate) struct SyntaxProblem {
    words: String,
    /// Line and column of the code that V8 has, from 1.
    place: Option<(u32, u32)>,
}

impl SyntaxProblem {
    /// What V8 has thrown while it compiled.
    pub(crate) fn of(scope: &mut v8::PinScope<'_, '_>, thrown: v8::Local<'_, v8::Value>) -> Self {
        let message = v8::Exception::create_message(scope, thrown);
        Self { words: own_words(scope, thrown), place: place_of(scope, message) }
    }

    /// A problem of the whole file.
    pub(crate) fn whole(words: impl Into<String>) -> Self {
        Self { words: words.into(), place: None }
    }

    /// The problem in one line, with its place in the guest's own text of the file at `path`.
    pub(crate) fn at(&self, path: &str, script: &Script) -> String {
        match self.place {
            None => format!("{path}: {}", self.words),
            Some((line, column)) => {
                let (line, column) = script.place(line, column);
                format!("{path}:{line}:{column}: {}", self.words)
            }
        }
    }
}

fn place_of(
    scope: &v8::PinScope<'_, '_>,
    message: v8::Local<'_, v8::Message>,
) -> Option<(u32, u32)> {
    // What has no place has line 0.
    let line = message
        .get_line_number(scope)
        .and_then(|line| u32::try_from(line).ok())
        .filter(|line| *line > 0)?;
    let column = u32::try_from(message.get_start_column()).ok()?;
    Some((line, column + 1))
}

/// Renders what was thrown: its name, message and the places where it happened, as `TypeError: no (main.ts:3:5 in f ← main.ts:9:1)`,
/// then the fields that it has besides, the errors of an `AggregateError`, and the cause, each in the same way.
///
/// Reading an exception may call into the guest; what goes wrong then is left out.
pub(crate) fn render(
    scope: &mut v8::PinScope<'_, '_>,
    thrown: v8::Local<'_, v8::Value>,
    program: &Program,
) -> String {
    let mut told = Told { text: String::new(), program, met: Vec::new() };
    if thrown.is_null_or_undefined() {
        told.text.push_str("the guest threw ");
    }
    tell(scope, thrown, 0, &mut told);
    if told.text.is_empty() { "the guest threw an empty text".to_owned() } else { told.text }
}

/// What was told of something that was thrown.
struct Told<'a> {
    text: String,
    program: &'a Program,
    /// The objects that it was told of.
    met: Vec<v8::Global<v8::Value>>,
}

/// Fields of an error that are told in another way.
const OF_ERRORS: [&str; 4] = ["cause", "errors", "error", "suppressed"];

fn tell(
    scope: &mut v8::PinScope<'_, '_>,
    thrown: v8::Local<'_, v8::Value>,
    depth: usize,
    told: &mut Told<'_>,
) {
    let Told { text, program, met } = told;
    if thrown.is_object() {
        if met.iter().any(|met| *met == thrown) {
            text.push_str("the same again");
            return;
        }
        met.push(v8::Global::new(scope, thrown));
    }
    let words = own_words(scope, thrown);
    let fields = match v8::Local::<v8::Object>::try_from(thrown) {
        // What the host has told the guest comes from the host, too, as the cause.
        Ok(_) if words.starts_with("ManifoldError") => None,
        Ok(object) if thrown.is_native_error() => fields(scope, object, &OF_ERRORS),
        Ok(object) => json(scope, object).or_else(|| fields(scope, object, &[])),
        Err(_) => None,
    };
    // What every plain object is as text says nothing, either, and an array is told by its elements.
    if fields.is_none() || !(words.starts_with("[object ") || thrown.is_array()) {
        text.push_str(&words);
    }
    let mut places = stack(scope, thrown).map(|stack| places(&stack, program)).unwrap_or_default();
    if places.is_empty() && thrown.is_native_error() {
        places.extend(place_of_message(scope, thrown, program));
    }
    if !places.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, " ({})", places.join(" ← "));
    }
    if let Some(fields) = fields {
        let gap = if text.is_empty() || text.ends_with(' ') { "" } else { " " };
        let _ = write!(text, "{gap}{fields}");
    }
    let Ok(object) = v8::Local::<v8::Object>::try_from(thrown) else { return };
    if !thrown.is_native_error() || depth >= DEEP || text.len() >= WORDS {
        return;
    }
    tell_others(scope, object, depth, told);
}

/// The errors that an error has in it.
fn tell_others(
    scope: &mut v8::PinScope<'_, '_>,
    object: v8::Local<'_, v8::Object>,
    depth: usize,
    told: &mut Told<'_>,
) {
    if let Some(errors) = own_value(scope, object, "errors")
        .and_then(|errors| v8::Local::<v8::Array>::try_from(errors).ok())
    {
        told.text.push_str(": [");
        for index in 0..errors.length() {
            if index as usize == WIDE || told.text.len() >= WORDS {
                let _ = write!(told.text, ", {} more", errors.length() - index);
                break;
            }
            if index > 0 {
                told.text.push_str(", ");
            }
            if let Some(error) = element(scope, errors, index) {
                tell(scope, error, depth + 1, told);
            }
        }
        told.text.push(']');
    }
    // A `SuppressedError` has the last two.
    for name in ["cause", "error", "suppressed"] {
        if let Some(other) = own_value(scope, object, name) {
            let _ = write!(told.text, "; {name}: ");
            tell(scope, other, depth + 1, told);
        }
    }
}

fn own_words(scope: &mut v8::PinScope<'_, '_>, thrown: v8::Local<'_, v8::Value>) -> String {
    v8::tc_scope!(let scope, scope);
    match thrown.to_string(scope) {
        Some(text) => {
            let text = text_up_to(scope, text, WORDS);
            // The name that every error has says nothing.
            text.strip_prefix("Error: ").map(str::to_owned).unwrap_or(text)
        }
        None => {
            scope.reset();
            let symbol = if thrown.is_symbol() { thrown.to_detail_string(scope) } else { None };
            let symbol = symbol.map(|text| text_up_to(scope, text, WORDS));
            symbol.unwrap_or_else(|| "the guest threw something that is no text".to_owned())
        }
    }
}

/// The value of a property of the object itself. A getter is not called.
fn own_value<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    object: v8::Local<'_, v8::Object>,
    name: &str,
) -> Option<v8::Local<'s, v8::Value>> {
    v8::tc_scope!(let scope, scope);
    if object.is_proxy() {
        return None;
    }
    let key = v8::String::new(scope, name)?;
    let descriptor = object.get_own_property_descriptor(scope, key.into())?;
    let descriptor = v8::Local::<v8::Object>::try_from(descriptor).ok()?;
    let value = v8::String::new(scope, "value")?;
    descriptor
        .has_own_property(scope, value.into())?
        .then(|| descriptor.get(scope, value.into()))
        .flatten()
}

fn element<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    array: v8::Local<'_, v8::Array>,
    index: u32,
) -> Option<v8::Local<'s, v8::Value>> {
    v8::tc_scope!(let scope, scope);
    array.get_index(scope, index)
}

/// The object as JSON; nothing when there is nothing in it, or what JSON knows not: large integers, and objects that hold themselves.
fn json(scope: &mut v8::PinScope<'_, '_>, object: v8::Local<'_, v8::Object>) -> Option<String> {
    v8::tc_scope!(let scope, scope);
    if object.is_proxy() || object.is_function() {
        return None;
    }
    let json = v8::json::stringify(scope, object.into())?;
    let json = text_up_to(scope, json, WORDS);
    (json != "{}" && json != "[]").then_some(json)
}

/// The enumerable fields of the object itself that have values, but those called as in `but`; nothing when there are none.
fn fields(
    scope: &mut v8::PinScope<'_, '_>,
    object: v8::Local<'_, v8::Object>,
    but: &[&str],
) -> Option<String> {
    v8::tc_scope!(let scope, scope);
    if object.is_proxy() || object.is_function() {
        return None;
    }
    let names = object.get_own_property_names(scope, v8::GetPropertyNamesArgs::default())?;
    let mut fields = String::new();
    for index in 0..names.length().min(WIDE as u32) {
        let name = names.get_index(scope, index)?.to_rust_string_lossy(scope);
        if but.contains(&&*name) {
            continue;
        }
        let Some(value) =
            own_value(scope, object, &name).and_then(|value| value.to_detail_string(scope))
        else {
            continue;
        };
        let gap = if fields.is_empty() { "" } else { ", " };
        let _ = write!(fields, "{gap}{name}: {}", text_up_to(scope, value, WORDS / WIDE));
    }
    (!fields.is_empty()).then(|| format!("{{{fields}}}"))
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
    let (row, column) = file.script.place(row.parse().ok()?, column.parse().ok()?);
    let mut text = format!("{path}:{row}:{column}");
    if let Some(function) =
        function.map(|function| function.strip_prefix("async ").unwrap_or(function))
    {
        // Writing to a String cannot fail.
        let _ = write!(text, " in {}", function.chars().take(100).collect::<String>());
    }
    Some(text)
}

/// Where an error without a stack stands: one of syntax, or of an import that nothing answers to.
fn place_of_message(
    scope: &mut v8::PinScope<'_, '_>,
    thrown: v8::Local<'_, v8::Value>,
    program: &Program,
) -> Option<String> {
    let message = v8::Exception::create_message(scope, thrown);
    let path = message.get_script_resource_name(scope)?.to_rust_string_lossy(scope);
    let file = program.files.iter().find(|file| file.path == path)?;
    let (line, column) = place_of(scope, message)?;
    let (line, column) = file.script.place(line, column);
    Some(format!("{path}:{line}:{column}"))
}
