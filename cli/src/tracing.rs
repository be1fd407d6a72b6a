//! The trace that a command records.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifold_dispatcher::{Dispatcher, DispatcherBuilder};
use manifold_runtime_api::ObjectId;
use manifold_trace::{Label, TraceFile};

use crate::error::CliError;
use crate::input::Input;

/// The trace that a command records, if the user wants one.
pub(crate) struct Tracing(Option<(PathBuf, Arc<TraceFile>)>);

impl Tracing {
    /// Creates the file of the trace.
    pub(crate) fn begin(path: Option<PathBuf>) -> Result<Self, CliError> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = TraceFile::create(&path)
            .map_err(|source| CliError::Unwritable { path: path.clone(), source })?;
        let command = std::env::args_os().map(|part| part.to_string_lossy().into_owned());
        file.label(Label::Command(command.collect()));
        Ok(Self(Some((path, Arc::new(file)))))
    }

    /// Makes the dispatcher record its spans.
    pub(crate) fn observe(&self, builder: DispatcherBuilder) -> DispatcherBuilder {
        match &self.0 {
            Some((_, file)) => builder.observer(Arc::clone(file)),
            None => builder,
        }
    }

    /// Names the images in the trees `names`.
    pub(crate) fn name_images(
        &self,
        dispatcher: &Dispatcher,
        names: &[ObjectId],
    ) -> Result<(), CliError> {
        if self.0.is_none() {
            return Ok(());
        }
        for names in names {
            for entry in dispatcher.read_tree(*names)?.entries() {
                self.name_image(entry.id, &entry.name.to_string());
            }
        }
        Ok(())
    }

    /// Names an image.
    pub(crate) fn name_image(&self, image: ObjectId, name: &str) {
        self.label(|| Label::Image { image: image.to_string(), name: name.to_owned() });
    }

    /// Notes an input, from which `manifold trace` reads the paths of what spans work on.
    pub(crate) fn input(&self, input: &Input, path: &Path, revision: Option<&str>) {
        self.label(|| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            Label::Input {
                id: input.root.id.to_string(),
                path: path.to_string_lossy().into_owned(),
                revision: revision.map(str::to_owned),
            }
        });
    }

    fn label(&self, label: impl FnOnce() -> Label) {
        if let Some((_, file)) = &self.0 {
            file.label(label());
        }
    }

    /// Ends the recording, and reports whether it could be written.
    pub(crate) fn end(&self) -> Result<(), CliError> {
        let Some((path, file)) = &self.0 else { return Ok(()) };
        file.finish().map_err(|source| CliError::TraceLost { path: path.clone(), source })
    }
}
