//! `manifold run`: runs an image on arguments. `manifold request`: says which request that is.

use manifold_dispatcher::Invocation;
use serde_json::json;

use crate::args::{
    ArgumentArgs, CacheArgs, Language, LeaveOutArgs, NodeArgs, Request, Run, UseArgs,
};
use crate::arguments::Arguments;
use crate::error::CliError;
use crate::huge_pages;
use crate::patience::Phase;
use crate::pins;
use crate::places;
use crate::report::{self, OutcomeReport, RunReport};
use crate::session::Session;

pub(crate) async fn run(options: Run) -> Result<(), CliError> {
    let Call { arguments, session, invocation } = call(
        &options.image,
        &options.args,
        &options.leaving_out,
        &options.salt,
        &options.using,
        &options.cache,
        &options.nodes,
    )
    .await?;
    let dispatcher = &session.dispatcher;
    if !session.look_up(&invocation).await? {
        huge_pages::disable();
    }
    Phase::Computing.begin();
    let completion = match session.run(invocation).await {
        Ok(completion) => completion,
        Err(error) => {
            // What was computed nevertheless is shared.
            session.finish_cache(&options.using).await;
            let inputs = arguments.inputs.iter();
            return Err(inputs.fold(CliError::Failed(error), |error, named| {
                places::explain(error, dispatcher, &named.input)
            }));
        }
    };
    if options.using.keeps_provenance() && !options.using.no_pin {
        let inputs = arguments.inputs.iter();
        let names = inputs
            .map(|named| format!("{}={}", named.name, pins::input_name(named.path, None)))
            .collect::<Vec<_>>();
        if !names.is_empty() {
            dispatcher.set_note(completion.request, &names.join(" "))?;
        }
    }
    session.leave().await;
    Phase::Storing.begin();
    dispatcher.flush()?;
    let cache = session.finish_cache(&options.using).await;
    Phase::Writing.begin();
    session.tracing.end()?;

    if options.raw {
        return report::object(&dispatcher.read(completion.outcome.id)?);
    }
    let outcome = completion.outcome;
    let result = if options.json {
        OutcomeReport::with_values(dispatcher, outcome)?
    } else {
        OutcomeReport::new(dispatcher, outcome)?
    };
    let report = RunReport { request: completion.request.to_string(), result, cache };
    let text = if options.json { report::json(&report)? } else { report.text() };
    report::print(text.as_bytes())
}

/// A root call of an image, and what it needs.
struct Call<'a> {
    arguments: Arguments<'a>,
    session: Session,
    invocation: Invocation,
}

/// Reads the arguments, opens a session, and creates the root call of an image.
async fn call<'a>(
    image: &str,
    args: &'a ArgumentArgs,
    leaving_out: &LeaveOutArgs,
    salt: &str,
    using: &UseArgs,
    cache: &CacheArgs,
    nodes: &NodeArgs,
) -> Result<Call<'a>, CliError> {
    Phase::Hashing.begin();
    let arguments = Arguments::read(args, &leaving_out.apply(using.reading()?))?;
    let (store, cache) = cache.begin(using)?;
    let session = nodes.session(store, cache, arguments.sources(), using.session()).await?;
    let args = session.arguments(arguments.entries(&session)?)?;
    let image = session.image(image, Language::Wasm).await?;
    let invocation = session.invocation(&image, args, salt, using);
    Ok(Call { arguments, session, invocation })
}

pub(crate) async fn request(options: Request) -> Result<(), CliError> {
    let Call { session, invocation, .. } = call(
        &options.image,
        &options.args,
        &options.leaving_out,
        &options.salt,
        &options.using,
        &CacheArgs::default(),
        &NodeArgs::default(),
    )
    .await?;
    let dispatcher = &session.dispatcher;
    let request = dispatcher.request(&invocation)?;
    let outcome = dispatcher.look_up(request)?;
    dispatcher.flush()?;
    let text = if options.json {
        let outcome = outcome
            .map(|found| json!({ "kind": found.kind.as_str(), "hash": found.id.to_string() }));
        report::json(&json!({ "request": request.to_string(), "outcome": outcome }))?
    } else {
        let memo = match outcome {
            Some(outcome) => format!("memoized: {} {}", outcome.kind, outcome.id),
            None => "not memoized".to_owned(),
        };
        format!("{request}\n{memo}\n")
    };
    report::print(text.as_bytes())
}
