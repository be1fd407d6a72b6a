//! `manifold curry`: binds arguments to an image.

use crate::args::{Curry, Language};
use crate::arguments::Arguments;
use crate::error::CliError;
use crate::names;
use crate::report;
use crate::session::{Options, Session};

pub(crate) async fn curry(options: Curry) -> Result<(), CliError> {
    let store = options.store.open()?;
    let arguments = Arguments::read(&options.args, &options.store.reading()?)?;
    let containers = Options::for_containers(options.containers);
    let session = Session::new(store, arguments.sources(), &containers)?;
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
