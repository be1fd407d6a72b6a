//! From one file of TypeScript or JavaScript to what V8 runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use deno_ast::diagnostics::Diagnostic;
use deno_ast::swc::ast::{ModuleDecl, ModuleItem};
use deno_ast::{
    EmitOptions, MediaType, ModuleSpecifier, ParseDiagnostic, ParseParams, ParsedSource, SourceMapOption,
    TranspileModuleOptions, TranspileOptions, parse_module,
};
use deno_core::sourcemap::SourceMap;

/// The transpiler, as far as answers may depend on it. Part of the host image; a test compares it with the lock file.
pub(crate) const TRANSPILER: &str = "deno_ast 0.53.3";

/// One file, ready to be compiled.
pub(crate) struct Script {
    pub(crate) code: String,
    /// From `code` back to the guest's own text, where they differ.
    pub(crate) map: Option<SourceMap>,
    /// What the file imports, types aside, in its own words.
    pub(crate) imports: Vec<String>,
}

/// Whether a file of this name holds code.
pub(crate) fn is_code(path: &str) -> bool {
    language(path).is_some()
}

fn language(path: &str) -> Option<MediaType> {
    if path.ends_with(".d.ts") || path.ends_with(".d.mts") {
        return None;
    }
    match path.rsplit_once('.')?.1 {
        "ts" | "mts" => Some(MediaType::TypeScript),
        "js" | "mjs" => Some(MediaType::JavaScript),
        _ => None,
    }
}

/// Parses the file called `path`, and strips its types if it has any.
///
/// # Errors
/// What is wrong with it, with its line and column. The stack has to be deep: the parser follows the nesting of the code.
pub(crate) fn transpile(path: &str, text: &str) -> Result<Script, String> {
    // The parser is not ours, and must not take the process with it.
    catch_unwind(AssertUnwindSafe(|| transpile_unguarded(path, text)))
        .unwrap_or_else(|_| Err(format!("{path}: the transpiler cannot cope with this file")))
}

fn transpile_unguarded(path: &str, text: &str) -> Result<Script, String> {
    let media_type = language(path).ok_or_else(|| format!("{path} is neither TypeScript nor JavaScript"))?;
    let specifier = specifier(path)?;
    let text: Arc<str> = text.into();
    let parsed = parse_module(ParseParams {
        specifier: specifier.clone(),
        text: Arc::clone(&text),
        media_type,
        capture_tokens: false,
        scope_analysis: false,
        maybe_syntax: None,
    })
    .map_err(|problem| explain(path, &problem))?;
    if let Some(problem) = parsed.diagnostics().first() {
        return Err(explain(path, problem));
    }
    let imports = imports(&parsed);
    if media_type == MediaType::JavaScript {
        return Ok(Script { code: text.to_string(), map: None, imports });
    }

    let emit = EmitOptions { source_map: SourceMapOption::Separate, inline_sources: false, ..EmitOptions::default() };
    let options = TranspileOptions { jsx: None, ..TranspileOptions::default() };
    let emitted = parsed
        .transpile(&options, &TranspileModuleOptions::default(), &emit)
        .map_err(|problem| format!("{path}: {problem}"))?
        .into_source();
    let map = emitted.source_map.as_deref().map(|map| SourceMap::from_slice(map.as_bytes())).transpose();
    let map = map.map_err(|problem| format!("{path}: the transpiler's source map: {problem}"))?;
    Ok(Script { code: emitted.text, map, imports })
}

/// Paths of git trees may hold any character; what a URL cannot hold is escaped, and shown to nobody.
fn specifier(path: &str) -> Result<ModuleSpecifier, String> {
    let mut specifier = ModuleSpecifier::parse("file:///").map_err(|problem| problem.to_string())?;
    specifier.set_path(path);
    Ok(specifier)
}

fn explain(path: &str, problem: &ParseDiagnostic) -> String {
    let place = problem.display_position();
    format!("{path}:{}:{}: SyntaxError: {}", place.line_number, place.column_number, problem.message())
}

fn imports(parsed: &ParsedSource) -> Vec<String> {
    let deno_ast::ProgramRef::Module(module) = parsed.program_ref() else { return Vec::new() };
    let sources = module.body.iter().filter_map(|item| match item {
        ModuleItem::ModuleDecl(ModuleDecl::Import(import)) if !import.type_only => Some(&import.src),
        ModuleItem::ModuleDecl(ModuleDecl::ExportAll(export)) if !export.type_only => Some(&export.src),
        ModuleItem::ModuleDecl(ModuleDecl::ExportNamed(export)) if !export.type_only => export.src.as_ref(),
        _ => None,
    });
    sources.map(|source| source.value.to_string_lossy().into_owned()).collect()
}
