//! The interpreter's settings. Everything here decides what a guest can observe.

use std::sync::Arc;

use manifold_runtime_api::abi::Operation;
use manifold_runtime_api::{Job, ObjectRef};
use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicBlobPackage, BasicFnPackage, BasicIteratorPackage,
    BasicMapPackage, BasicMathPackage, BasicStringPackage, BitFieldPackage, LogicPackage,
    MoreStringPackage, Package,
};
use rhai::plugin::*;
use rhai::{Dynamic, Engine, ImmutableString, def_package};

use crate::fiber::{self, Request};
use crate::functions::functions;
use crate::host;
use crate::memory::Gauge;

/// The settings that are part of the host image. Another value can change an outcome.
///
/// The sizes of values, the number of threads and the size of stacks are not here: a guest that
/// exceeds them is stopped, and neither its failure nor what a caller makes of it is memoized.
pub(crate) const SETTINGS: [(&str, &str); 4] = [
    ("engine", "1.27.0"),
    ("features", "no_closure no_custom_syntax no_float no_module no_time std sync"),
    // Goes up with every change of this file and of `host.rs` that a guest can observe.
    ("functions", "1"),
    ("expression-depth", "48"),
];

/// How deep expressions and blocks may be nested. Deeper ones are syntax errors.
const EXPRESSION_DEPTH: usize = 48;

/// How deep function calls may be nested.
const CALL_DEPTH: usize = 32;

/// How many variables may be visible at once.
const VARIABLES: usize = 1000;

/// How many operations a guest computes before it lets other guests of its thread go on.
const SLICE: u64 = 1000;

/// One value may take this part of the memory limit. rhai measures text in bytes, but arrays in
/// elements, and an array of the words of a text takes many times the memory of that text.
const VALUE_PART: u64 = 32;

/// Words of rhai that guests cannot use. `eval` runs code that no module contains. The others let a
/// value grow without naming a variable, where `memory.rs` does not see it.
const DISABLED: [&str; 3] = ["eval", "this", "curry"];

def_package! {
    /// The functions that guests can call.
    ///
    /// `LanguageCorePackage` is left out: it has `sleep`, which would block the thread, and lists
    /// of functions in the order of a hash map.
    GuestPackage(module):
        ArithmeticPackage,
        BasicArrayPackage,
        BasicBlobPackage,
        BasicFnPackage,
        BasicIteratorPackage,
        BasicMapPackage,
        BasicMathPackage,
        BasicStringPackage,
        BitFieldPackage,
        LogicPackage,
        MoreStringPackage
    {
        combine_with_exported_module!(module, "host", functions);
        module.set_custom_type::<ObjectRef>("object");
    }
}

/// Creates the interpreter of each job.
#[derive(Clone)]
pub(crate) struct Engines(Arc<GuestPackage>);

impl Engines {
    pub(crate) fn new() -> Self {
        Self(Arc::new(GuestPackage::new()))
    }

    /// Returns an interpreter that parses modules.
    pub(crate) fn parser(&self) -> Engine {
        let mut engine = Engine::new_raw();
        self.0.register_into_engine(&mut engine);
        // The name of an anonymous function is a hash, which differs from process to process and
        // which the guest can read.
        engine.set_allow_anonymous_fn(false);
        engine.set_max_expr_depths(EXPRESSION_DEPTH, EXPRESSION_DEPTH);
        for symbol in DISABLED {
            engine.disable_symbol(symbol);
        }
        engine
    }

    /// Returns the interpreter of one job.
    pub(crate) fn for_job(&self, job: &Job, gauge: Arc<Gauge>) -> Engine {
        let mut engine = self.parser();
        let part = usize::try_from(job.limits.memory_bytes / VALUE_PART).unwrap_or(usize::MAX);
        // rhai takes 0 for "no limit".
        let part = part.max(1);
        engine.set_max_string_size(part).set_max_array_size(part).set_max_map_size(part);
        engine.set_max_call_levels(CALL_DEPTH).set_max_variables(VARIABLES);

        let (args, std) = (ObjectRef::tree(job.args), job.std.map(ObjectRef::tree));
        let (image, salt) = (ImmutableString::from(&*job.image), ImmutableString::from(&*job.salt));
        engine.register_fn("args", move || args);
        engine.register_fn("arg", move |name: &str| host::argument(args, name));
        engine.register_fn("image", move || image.clone());
        engine.register_fn("salt", move || salt.clone());
        engine.register_fn("std", move || std.map_or(Dynamic::UNIT, Dynamic::from));

        // Nothing is written to the standard output, which is the embedder's.
        let log = |text: &str| {
            let _ = fiber::suspend(Request::Operation(Operation::Log(text.to_owned())));
        };
        engine.on_print(log);
        engine.on_debug(move |text, _, _| log(text));

        let (counter, fuel) = (Arc::clone(&gauge), job.limits.fuel.unwrap_or(u64::MAX));
        engine.on_progress(move |operations| {
            counter.set_operations(operations);
            if operations.is_multiple_of(SLICE) || operations > fuel {
                let _ = fiber::suspend(Request::Pause);
            }
            None::<Dynamic>
        });
        observe_variables(&mut engine, gauge);
        engine
    }
}

/// Measures memory whenever a guest uses a variable.
#[expect(deprecated, reason = "rhai marks functions so that may change")]
fn observe_variables(engine: &mut Engine, gauge: Arc<Gauge>) {
    let used = Arc::clone(&gauge);
    engine.on_var(move |_, _, context| {
        used.measure(&context);
        Ok(None)
    });
    engine.on_def_var(move |is_running, _, context| {
        if is_running {
            gauge.measure(&context);
        }
        Ok(true)
    });
}
