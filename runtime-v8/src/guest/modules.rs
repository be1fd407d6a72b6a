//! The modules of a guest: compiles them, resolves their imports, and evaluates them.

use deno_core::v8;
use v8::script_compiler::{self, CachedData, CompileOptions, NoCacheReason, Source};

use crate::exception::SyntaxProblem;
use crate::job::{Current, with};
use crate::prepare::{BUILT_IN, File, Program};
use crate::values::{Made, text, throw_type_error};

/// The main module after its evaluation began.
pub(super) struct Main<'s> {
    /// The promise that settles when the evaluation ends.
    pub(super) evaluated: v8::Local<'s, v8::Value>,
    /// The module's exports.
    pub(super) namespace: v8::Local<'s, v8::Value>,
}

/// Links the program's modules with the built-in one, whose exports are those of `exports`, and
/// evaluates them.
pub(super) fn evaluate<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    current: &Current,
    program: &Program,
    exports: v8::Local<'s, v8::Object>,
) -> Made<Main<'s>> {
    for file in &program.files {
        let module = compile(scope, file)?;
        let module = v8::Global::new(scope, module);
        with(current, |resident| resident.modules.push(module));
    }
    let built_in = built_in(scope, exports)?;
    let kept = v8::Global::new(scope, built_in);
    let main = with(current, |resident| {
        resident.modules.push(kept);
        resident.modules.first().cloned()
    })??;
    let main = v8::Local::new(scope, main);
    main.instantiate_module(scope, resolve_import)?;
    // If the guest does not import the built-in module, it is not instantiated and has no slots for
    // its exports.
    if built_in.get_status() == v8::ModuleStatus::Instantiated {
        fill_built_in(scope, built_in, exports)?;
    }
    let evaluated = main.evaluate(scope)?;
    for (file, at) in program.files.iter().zip(0..) {
        keep_compiled(scope, current, file, at);
    }
    Some(Main { evaluated, namespace: main.get_module_namespace() })
}

/// Returns the specifiers that the module imports. V8 parses the code and does not run it.
pub(crate) fn read_module(
    isolate: &mut v8::Isolate,
    path: &str,
    code: &str,
) -> Result<Vec<String>, SyntaxProblem> {
    v8::scope!(let scope, isolate);
    let context = v8::Context::new(scope, v8::ContextOptions::default());
    let scope = &mut v8::ContextScope::new(scope, context);
    v8::tc_scope!(let scope, scope);
    let module = match compile_text(scope, path, code) {
        Some(module) => module,
        None => {
            return Err(match scope.exception() {
                Some(thrown) => SyntaxProblem::of(scope, thrown),
                None => SyntaxProblem::whole("the file exceeds the maximum length of a V8 string"),
            });
        }
    };
    let requests = module.get_module_requests();
    let specifiers = (0..requests.length()).filter_map(|index| {
        let request = v8::Local::<v8::ModuleRequest>::try_from(requests.get(scope, index)?).ok()?;
        Some(request.get_specifier().to_rust_string_lossy(scope))
    });
    Ok(specifiers.collect())
}

fn compile_text<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    path: &str,
    code: &str,
) -> Made<v8::Local<'s, v8::Module>> {
    let code = v8::String::new(scope, code)?;
    let name = text(scope, path)?;
    script_compiler::compile_module(scope, &mut Source::new(code, Some(&origin(scope, name))))
}

fn origin<'s>(
    scope: &v8::PinScope<'s, '_>,
    name: v8::Local<'s, v8::Value>,
) -> v8::ScriptOrigin<'s> {
    v8::ScriptOrigin::new(scope, name, 0, 0, false, 0, None, false, false, true, None)
}

fn compile<'s>(scope: &mut v8::PinScope<'s, '_>, file: &File) -> Made<v8::Local<'s, v8::Module>> {
    let code = v8::String::new(scope, &file.script.code)?;
    let name = text(scope, &file.path)?;
    let origin = origin(scope, name);
    match file.compiled.get() {
        Some(compiled) => {
            let mut source =
                Source::new_with_cached_data(code, Some(&origin), CachedData::new(compiled));
            script_compiler::compile_module2(
                scope,
                &mut source,
                CompileOptions::ConsumeCodeCache,
                NoCacheReason::NoReason,
            )
        }
        None => script_compiler::compile_module(scope, &mut Source::new(code, Some(&origin))),
    }
}

/// Keeps V8's compiled form of a file, including functions that have run, for later contexts.
fn keep_compiled(scope: &mut v8::PinScope<'_, '_>, current: &Current, file: &File, at: usize) {
    if file.compiled.get().is_some() {
        return;
    }
    let Some(module) = with(current, |resident| resident.modules.get(at).cloned()).flatten() else {
        return;
    };
    let script = v8::Local::new(scope, module).get_unbound_module_script(scope);
    if let Some(compiled) = script.create_code_cache() {
        // Fails if another isolate was faster. Either result will do.
        let _ = file.compiled.set(compiled.to_vec());
    }
}

fn built_in<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    exports: v8::Local<'s, v8::Object>,
) -> Made<v8::Local<'s, v8::Module>> {
    let name = v8::String::new(scope, BUILT_IN)?;
    let names = export_names(scope, exports)?;
    Some(v8::Module::create_synthetic_module(scope, name, &names, evaluate_built_in))
}

fn export_names<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    exports: v8::Local<'s, v8::Object>,
) -> Made<Vec<v8::Local<'s, v8::String>>> {
    let names = exports.get_own_property_names(scope, v8::GetPropertyNamesArgs::default())?;
    (0..names.length()).map(|at| names.get_index(scope, at)?.try_into().ok()).collect()
}

fn fill_built_in<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    module: v8::Local<'s, v8::Module>,
    exports: v8::Local<'s, v8::Object>,
) -> Made<()> {
    for name in export_names(scope, exports)? {
        let value = exports.get(scope, name.into())?;
        module.set_synthetic_module_export(scope, name, value)?;
    }
    Some(())
}

/// Does nothing: the exports are set before any module is evaluated.
fn evaluate_built_in<'s>(
    context: v8::Local<'s, v8::Context>,
    _: v8::Local<'s, v8::Module>,
) -> Made<v8::Local<'s, v8::Value>> {
    v8::callback_scope!(unsafe scope, context);
    let resolver = v8::PromiseResolver::new(scope)?;
    let nothing = v8::undefined(scope).into();
    resolver.resolve(scope, nothing)?;
    Some(resolver.get_promise(scope).into())
}

fn resolve_import<'s>(
    context: v8::Local<'s, v8::Context>,
    specifier: v8::Local<'s, v8::String>,
    _: v8::Local<'s, v8::FixedArray>,
    referrer: v8::Local<'s, v8::Module>,
) -> Made<v8::Local<'s, v8::Module>> {
    v8::callback_scope!(unsafe scope, context);
    let specifier = specifier.to_rust_string_lossy(scope);
    let current = scope.get_slot::<Current>()?.clone();
    let module = with(&current, |resident| {
        let at = resident.modules.iter().position(|module| *module == referrer)?;
        let target = *resident.frame.program.files.get(at)?.imports.get(&specifier)?;
        resident.modules.get(target).cloned()
    });
    match module.flatten() {
        Some(module) => Some(v8::Local::new(scope, module)),
        None => {
            throw_type_error(scope, &format!("the module cannot import {specifier:?}"));
            None
        }
    }
}

/// Rejects `import()`, which could load unchecked code, or load it at a time that depends on other
/// guests.
pub(crate) fn refuse_dynamic_import<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    _: v8::Local<'s, v8::Data>,
    _: v8::Local<'s, v8::Value>,
    _: v8::Local<'s, v8::String>,
    _: v8::Local<'s, v8::FixedArray>,
) -> Made<v8::Local<'s, v8::Promise>> {
    let resolver = v8::PromiseResolver::new(scope)?;
    let message = v8::String::new(scope, "import() is not available; use static imports")?;
    let error = v8::Exception::type_error(scope, message);
    resolver.reject(scope, error)?;
    Some(resolver.get_promise(scope))
}
