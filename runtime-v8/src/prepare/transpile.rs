//! Transpiles a TypeScript file to JavaScript that V8 can run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use deno_ast::diagnostics::Diagnostic;
use deno_ast::swc::ast::{AutoAccessor, Decorator, ModuleDecl, ModuleItem, Program, TsModuleRef};
use deno_ast::swc::codegen::text_writer::JsWriter;
use deno_ast::swc::codegen::{Emitter, Node};
use deno_ast::swc::common::Span;
use deno_ast::swc::ecma_visit::{Visit, VisitWith};
use deno_ast::{
    DecoratorsTranspileOption, MediaType, ModuleSpecifier, ParseDiagnostic, ParseParams,
    ParsedSource, SourceMap, SourceMapConfig, SourceRangedForSpanned, TranspileOptions,
    fold_program, parse_module, swc_codegen_config,
};

/// The version and options of the transpiler that outcomes may depend on. Part of the host image. A
/// test compares it with the lock file.
pub(crate) const TRANSPILER: &str = "deno_ast 0.53.3, decorators";

/// Returns whether a file with this name contains code.
pub(crate) fn is_code(path: &str) -> bool {
    language(path).is_some()
}

/// Returns whether a file with this name is TypeScript.
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

/// Transpiles the TypeScript file at `path` to JavaScript: strips its types and lowers decorators.
/// Returns the code and its source map.
///
/// It needs as much stack as the code is nested, and as much memory as the code requires, so it
/// runs in a [helper process](super::helper).
///
/// # Errors
/// Returns a description of the problem, with its line and column in the file.
pub(crate) fn transpile(path: &str, text: &str) -> Result<(String, String), String> {
    // The parser is third-party code. Its panic messages are not meant for users.
    catch_unwind(AssertUnwindSafe(|| transpile_unguarded(path, text)))
        .unwrap_or_else(|_| Err(format!("{path}: the transpiler panicked on this file")))
}

fn transpile_unguarded(path: &str, text: &str) -> Result<(String, String), String> {
    let specifier = specifier(path)?;
    let text: Arc<str> = text.into();
    let parsed = parse_module(ParseParams {
        specifier: specifier.clone(),
        text: Arc::clone(&text),
        media_type: MediaType::TypeScript,
        capture_tokens: false,
        scope_analysis: false,
        maybe_syntax: None,
    })
    .map_err(|problem| explain(path, &problem))?;
    if let Some(problem) = parsed.diagnostics().first() {
        return Err(explain(path, problem));
    }
    refuse_commonjs(path, &parsed)?;
    strip_types(&parsed, specifier, &text).map_err(|problem| format!("{path}: {problem}"))
}

/// Returns the kind of decorators to lower: those of the language if the program has any, else
/// none. The pass rewrites every class of the file and breaks classes with computed member names,
/// so it is skipped where it is not needed.
fn decorators(program: &Program) -> DecoratorsTranspileOption {
    #[derive(Default)]
    struct Finder(bool);
    impl Visit for Finder {
        fn visit_decorator(&mut self, _: &Decorator) {
            self.0 = true;
        }

        fn visit_auto_accessor(&mut self, _: &AutoAccessor) {
            self.0 = true;
        }
    }
    let mut finder = Finder::default();
    program.visit_with(&mut finder);
    if finder.0 { DecoratorsTranspileOption::Ecma } else { DecoratorsTranspileOption::None }
}

/// Strips types as `deno_ast` does, but without indentation, which would multiply the size of
/// deeply nested code.
fn strip_types(
    parsed: &ParsedSource,
    specifier: ModuleSpecifier,
    text: &str,
) -> Result<(String, String), String> {
    let sources = SourceMap::single(specifier, text.to_owned());
    let comments = parsed.comments().as_single_threaded();
    let options = TranspileOptions {
        jsx: None,
        decorators: decorators(&parsed.program()),
        ..TranspileOptions::default()
    };
    let program = parsed.globals().with(|marks| {
        let program = Program::clone(&parsed.program());
        fold_program(
            program,
            &options,
            &sources,
            &comments,
            marks,
            Box::new(parsed.diagnostics().iter()),
        )
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
    let map = sources.inner().build_source_map(
        &places,
        None,
        SourceMapConfig { inline_sources: false, maybe_base: None },
    );
    let mut written = Vec::new();
    map.to_writer(&mut written).map_err(|problem| problem.to_string())?;
    let text = |bytes| String::from_utf8(bytes).map_err(|problem| problem.to_string());
    Ok((text(code)?, text(written)?))
}

/// Returns the URL under which the transpiler knows `path`. Paths of git trees may contain any
/// character. The ones that a URL cannot contain are escaped, and the URL is never shown.
fn specifier(path: &str) -> Result<ModuleSpecifier, String> {
    let mut specifier =
        ModuleSpecifier::parse("file:///").map_err(|problem| problem.to_string())?;
    specifier.set_path(path);
    Ok(specifier)
}

/// Formats a syntax error with its position.
fn explain(path: &str, problem: &ParseDiagnostic) -> String {
    let place = problem.display_position();
    format!(
        "{path}:{}:{}: SyntaxError: {}",
        place.line_number,
        place.column_number,
        problem.message()
    )
}

/// Errors if the file uses `import a = require("b")` or `export = a`, which are for CommonJS
/// modules.
fn refuse_commonjs(path: &str, parsed: &ParsedSource) -> Result<(), String> {
    let deno_ast::ProgramRef::Module(module) = parsed.program_ref() else { return Ok(()) };
    let place = |span: Span| {
        let place = parsed.text_info_lazy().line_and_column_display(span.range().start);
        format!("{path}:{}:{}", place.line_number, place.column_number)
    };
    for item in &module.body {
        match item {
            ModuleItem::ModuleDecl(ModuleDecl::TsImportEquals(import))
                if !import.is_type_only
                    && matches!(import.module_ref, TsModuleRef::TsExternalModuleRef(_)) =>
            {
                let place = place(import.span);
                return Err(format!(
                    "{place}: SyntaxError: `import … = require(…)` is for CommonJS; use \
                     `import … from`"
                ));
            }
            ModuleItem::ModuleDecl(ModuleDecl::TsExportAssignment(export)) => {
                let place = place(export.span);
                return Err(format!(
                    "{place}: SyntaxError: `export =` is for CommonJS; use `export default`"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
