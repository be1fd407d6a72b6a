//! `manifold curry`: binds arguments to an image.

use std::sync::Arc;

use manifold_dispatcher::{DirectoryObjects, Store};

use crate::args::{Curry, Language};
use crate::arguments::Arguments;
use crate::error::CliError;
use crate::names;
use crate::report;
use crate::session::{Options, Session};

pub(crate) async fn curry(options: Curry) -> Result<(), CliError> {
    let store = options.store.open()?;
    let directory = options.store.directory()?;
    let reading =
        DirectoryObjects::options().without_store(&directory).index_in(directory).to_owned();
    let arguments = Arguments::read(&options.args, &reading)?;
    let session = Session::new(
        Arc::clone(&store) as Arc<dyn Store>,
        arguments.sources(),
        &Options::for_containers(options.containers),
    )?;
    let dispatcher = &session.dispatcher;
    let args = session.arguments(arguments.entries(&session)?)?;
    let image = session.image(&options.image, Language::Wasm).await?;
    let curried = dispatcher.curry(&image, Some(session.std), args)?;
    dispatcher.pin(curried)?;
    dispatcher.flush()?;
    if let Some(name) = &options.name {
        names::set(&session, &options.store, name, Some(&curried.to_string()))?;
    }
    report::print(format!("{curried}\n").as_bytes())
}
