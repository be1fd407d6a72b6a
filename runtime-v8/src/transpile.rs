//! From one file of TypeScript or JavaScript to what V8 runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use deno_ast::diagnostics::Diagnostic;
use deno_ast::swc::ast::{ModuleDecl, ModuleItem, Program};
use deno_ast::swc::codegen::text_writer::JsWriter;
use deno_ast::swc::codegen::{Emitter, Node};
use deno_ast::swc::sourcemap::SourceMap;
use deno_ast::{
    MediaType, ModuleSpecifier, ParseDiagnostic, ParseParams, ParsedSource, SourceMap as SourceMapBuilder,
    SourceMapConfig, TranspileOptions, fold_program, parse_module, swc_codegen_config,
};

use crate::nesting;

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

/// Whether a file of this name is TypeScript.
pub(crate) fn has_types(path: &str) -> bool {
    language(path) == Some(MediaType::TypeScript)
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
    nesting::check(text).map_err(|problem| format!("{path}: {problem}"))?;
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

    let (code, map) = strip_types(&parsed, specifier, &text).map_err(|problem| format!("{path}: {problem}"))?;
    Ok(Script { code, map: Some(map), imports })
}

/// What `deno_ast` does to transpile, but for the indentation: written out, code of many levels would be as many times as long.
fn strip_types(parsed: &ParsedSource, specifier: ModuleSpecifier, text: &str) -> Result<(String, SourceMap), String> {
    let sources = SourceMapBuilder::single(specifier, text.to_owned());
    let comments = parsed.comments().as_single_threaded();
    let options = TranspileOptions { jsx: None, ..TranspileOptions::default() };
    let program = parsed.globals().with(|marks| {
        let program = Program::clone(&parsed.program());
        fold_program(program, &options, &sources, &comments, marks, Box::new(parsed.diagnostics().iter()))
    });
    let program = program.map_err(|problem| problem.to_string())?;

    let (mut code, mut places) = (Vec::new(), Vec::new());
    let mut writer = JsWriter::new(sources.inner().clone(), "\n", &mut code, Some(&mut places));
    writer.set_indent_str("");
    let mut emitter = Emitter {
        cfg: swc_codegen_config(),
        comments: Some(&comments),
        cm: sources.inner().clone(),
        wr: Box::new(writer),
    };
    program.emit_with(&mut emitter).map_err(|problem| problem.to_string())?;
    drop(emitter);
    let map =
        sources.inner().build_source_map(&places, None, SourceMapConfig { inline_sources: false, maybe_base: None });
    Ok((String::from_utf8(code).map_err(|problem| problem.to_string())?, map))
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
