//! Renders exceptions of guests as text, with positions in the guest's own files.

use std::fmt::Write;

use deno_core::v8;

use crate::prepare::{Program, Script};
use crate::values::text_up_to;

/// The length at which the text of an exception is cut, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

/// The maximum number of stack positions in the text.
const MAX_POSITIONS: usize = 6;

/// The maximum nesting depth of errors in the text.
const MAX_DEPTH: usize = 8;

/// The maximum number of errors of an `AggregateError`, and of fields of an object, in the text.
const MAX_ITEMS: usize = 8;

/// A syntax error that V8 reports in a module, and its position.
pub(crate) struct SyntaxProblem {
    message: String,
    /// Line and column in the code that V8 compiled, from 1.
    place: Option<(u32, u32)>,
}

impl SyntaxProblem {
    /// Creates the problem from the exception that V8 threw while it compiled a module.
    pub(crate) fn of(scope: &mut v8::PinScope<'_, '_>, thrown: v8::Local<'_, v8::Value>) -> Self {
        let message = v8::Exception::create_message(scope, thrown);
        Self { message: message_text(scope, thrown), place: place_of(scope, message) }
    }

    /// Creates a problem of the whole file.
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None }
    }

    /// Returns the problem as one line, with its position in the guest's own text of the file at
    /// `path`.
    pub(crate) fn at(&self, path: &str, script: &Script) -> String {
        match self.place {
            None => format!("{path}: {}", self.message),
            Some((line, column)) => {
                let (line, column) = script.place(line, column);
                format!("{path}:{line}:{column}: {}", self.message)
            }
        }
    }
}

fn place_of(
    scope: &v8::PinScope<'_, '_>,
    message: v8::Local<'_, v8::Message>,
) -> Option<(u32, u32)> {
    // V8 reports line 0 if there is no position.
    let line = message
        .get_line_number(scope)
        .and_then(|line| u32::try_from(line).ok())
        .filter(|line| *line > 0)?;
    let column = u32::try_from(message.get_start_column()).ok()?;
    Some((line, column + 1))
}

/// Renders a thrown value: its name, message and stack positions, then its other fields, the errors
/// of an `AggregateError`, and its cause, each in the same way. For example:
/// `TypeError: no (main.ts:3:5 in f ← main.ts:9:1)`.
///
/// Reading an exception may call into the guest. Parts that fail to be read are omitted.
pub(crate) fn render(
    scope: &mut v8::PinScope<'_, '_>,
    thrown: v8::Local<'_, v8::Value>,
    program: &Program,
) -> String {
    let mut rendering = Rendering { text: String::new(), program, seen: Vec::new() };
    if thrown.is_null_or_undefined() {
        rendering.text.push_str("the guest threw ");
    }
    render_value(scope, thrown, 0, &mut rendering);
    if rendering.text.is_empty() {
        "the guest threw an empty string".to_owned()
    } else {
        rendering.text
    }
}

/// The text of an exception while it is rendered.
struct Rendering<'a> {
    text: String,
    program: &'a Program,
    /// The objects that are already in the text.
    seen: Vec<v8::Global<v8::Value>>,
}

/// Fields of an error that are rendered separately.
const NESTED_ERRORS: [&str; 4] = ["cause", "errors", "error", "suppressed"];

fn render_value(
    scope: &mut v8::PinScope<'_, '_>,
    thrown: v8::Local<'_, v8::Value>,
    depth: usize,
    rendering: &mut Rendering<'_>,
) {
    let Rendering { text, program, seen } = rendering;
    if thrown.is_object() {
        if seen.iter().any(|seen| *seen == thrown) {
            text.push_str("already shown");
            return;
        }
        seen.push(v8::Global::new(scope, thrown));
    }
    let message = message_text(scope, thrown);
    let fields = match v8::Local::<v8::Object>::try_from(thrown) {
        // The session attaches an error of the host as the cause, so its fields are not repeated.
        Ok(_) if message.starts_with("ManifoldError") => None,
        Ok(object) if thrown.is_native_error() => fields(scope, object, &NESTED_ERRORS),
        Ok(object) => json(scope, object).or_else(|| fields(scope, object, &[])),
        Err(_) => None,
    };
    // The text of a plain object carries no information, and an array is rendered by its elements.
    if fields.is_none() || !(message.starts_with("[object ") || thrown.is_array()) {
        text.push_str(&message);
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
    if !thrown.is_native_error() || depth >= MAX_DEPTH || text.len() >= MAX_TEXT_BYTES {
        return;
    }
    render_nested(scope, object, depth, rendering);
}

/// Renders the errors that an error contains.
fn render_nested(
    scope: &mut v8::PinScope<'_, '_>,
    object: v8::Local<'_, v8::Object>,
    depth: usize,
    rendering: &mut Rendering<'_>,
) {
    if let Some(errors) = own_value(scope, object, "errors")
        .and_then(|errors| v8::Local::<v8::Array>::try_from(errors).ok())
    {
        rendering.text.push_str(": [");
        for index in 0..errors.length() {
            if index as usize == MAX_ITEMS || rendering.text.len() >= MAX_TEXT_BYTES {
                let _ = write!(rendering.text, ", {} more", errors.length() - index);
                break;
            }
            if index > 0 {
                rendering.text.push_str(", ");
            }
            if let Some(error) = element(scope, errors, index) {
                render_value(scope, error, depth + 1, rendering);
            }
        }
        rendering.text.push(']');
    }
    // The last two are fields of `SuppressedError`.
    for name in ["cause", "error", "suppressed"] {
        if let Some(other) = own_value(scope, object, name) {
            let _ = write!(rendering.text, "; {name}: ");
            render_value(scope, other, depth + 1, rendering);
        }
    }
}

fn message_text(scope: &mut v8::PinScope<'_, '_>, thrown: v8::Local<'_, v8::Value>) -> String {
    v8::tc_scope!(let scope, scope);
    match thrown.to_string(scope) {
        Some(text) => {
            let text = text_up_to(scope, text, MAX_TEXT_BYTES);
            // The generic name `Error` carries no information.
            text.strip_prefix("Error: ").map(str::to_owned).unwrap_or(text)
        }
        None => {
            scope.reset();
            let symbol = if thrown.is_symbol() { thrown.to_detail_string(scope) } else { None };
            let symbol = symbol.map(|text| text_up_to(scope, text, MAX_TEXT_BYTES));
            symbol.unwrap_or_else(|| "the guest threw a value without a text form".to_owned())
        }
    }
}

/// Returns the value of an own property. Does not call getters.
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

/// Returns the object as JSON. `None` if it is empty, or contains a value that JSON does not
/// support, such as a `BigInt` or a cycle.
fn json(scope: &mut v8::PinScope<'_, '_>, object: v8::Local<'_, v8::Object>) -> Option<String> {
    v8::tc_scope!(let scope, scope);
    if object.is_proxy() || object.is_function() {
        return None;
    }
    let json = v8::json::stringify(scope, object.into())?;
    let json = text_up_to(scope, json, MAX_TEXT_BYTES);
    (json != "{}" && json != "[]").then_some(json)
}

/// Returns the own enumerable fields of the object that have values, except those in `excluded`.
/// `None` if there are none.
fn fields(
    scope: &mut v8::PinScope<'_, '_>,
    object: v8::Local<'_, v8::Object>,
    excluded: &[&str],
) -> Option<String> {
    v8::tc_scope!(let scope, scope);
    if object.is_proxy() || object.is_function() {
        return None;
    }
    let names = object.get_own_property_names(scope, v8::GetPropertyNamesArgs::default())?;
    let mut fields = String::new();
    for index in 0..names.length().min(MAX_ITEMS as u32) {
        let name = names.get_index(scope, index)?.to_rust_string_lossy(scope);
        if excluded.contains(&&*name) {
            continue;
        }
        let Some(value) =
            own_value(scope, object, &name).and_then(|value| value.to_detail_string(scope))
        else {
            continue;
        };
        let gap = if fields.is_empty() { "" } else { ", " };
        let _ =
            write!(fields, "{gap}{name}: {}", text_up_to(scope, value, MAX_TEXT_BYTES / MAX_ITEMS));
    }
    (!fields.is_empty()).then(|| format!("{{{fields}}}"))
}

fn stack(scope: &mut v8::PinScope<'_, '_>, thrown: v8::Local<'_, v8::Value>) -> Option<String> {
    v8::tc_scope!(let scope, scope);
    let thrown = v8::Local::<v8::Object>::try_from(thrown).ok()?;
    let key = v8::String::new(scope, "stack")?;
    let stack = v8::Local::<v8::String>::try_from(thrown.get(scope, key.into())?).ok()?;
    (stack.length() < 64 * MAX_TEXT_BYTES).then(|| stack.to_rust_string_lossy(scope))
}

/// Returns the positions in the guest's own files, from the lines of a stack. A line is
/// `    at async name (main.ts:1:2)` or `    at main.ts:1:2`.
fn places(stack: &str, program: &Program) -> Vec<String> {
    let lines = stack.lines().filter_map(|line| line.trim_start().strip_prefix("at "));
    lines.filter_map(|line| place(line, program)).take(MAX_POSITIONS).collect()
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

/// Returns the position of an error without a stack: a syntax error, or an import that cannot be
/// resolved.
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
