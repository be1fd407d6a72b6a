use std::path::Path;
use std::sync::Arc;

use manifold_dispatcher::ObjectSource;
use manifold_runtime_api::ObjectId;

use crate::args::{Cat, ContainerArgs};
use crate::error::CliError;
use crate::session::Session;
use crate::{input, report};

pub(crate) fn cat(options: &Cat) -> Result<(), CliError> {
    let id = ObjectId::from_hex(&options.id).map_err(|source| CliError::NotAnId { id: options.id.clone(), source })?;
    let around = options.repo.as_deref().unwrap_or(Path::new("."));
    let sources: Vec<Arc<dyn ObjectSource>> = match input::repository(around) {
        Ok(objects) => vec![Arc::new(objects)],
        // Outside a repository there are still the standard images.
        Err(CliError::NotARepository { .. }) if options.repo.is_none() => Vec::new(),
        Err(error) => return Err(error),
    };
    let session = Session::new(options.store.open_or_memory()?, sources, ContainerArgs::default())?;
    report::object(&session.dispatcher.read(id)?)
}
