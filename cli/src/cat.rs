use std::sync::Arc;

use manifold_dispatcher::ObjectSource;
use manifold_runtime_api::ObjectId;

use crate::args::Cat;
use crate::error::CliError;
use crate::session::Session;
use crate::{input, report};

pub(crate) fn cat(options: &Cat) -> Result<(), CliError> {
    let id = ObjectId::from_hex(&options.id).map_err(|source| CliError::NotAnId { id: options.id.clone(), source })?;
    // Outside a repository there are still the standard images.
    let sources: Vec<Arc<dyn ObjectSource>> = match input::repository(&options.repo) {
        Ok(objects) => vec![Arc::new(objects)],
        Err(CliError::NotARepository { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    report::object(&Session::new(sources)?.dispatcher.read(id)?)
}
