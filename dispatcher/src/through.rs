//! Macros that implement trait methods by delegation, for wrappers that override only some methods.

/// Implements the methods of `ObjectSource` by calling them on `$inner`.
macro_rules! source_through {
    ($self:ident => $inner:expr) => {
        fn read(&$self, id: ObjectId) -> Result<Option<Object>> {
            $inner.read(id)
        }

        fn kind(&$self, id: ObjectId) -> Result<Option<ObjectKind>> {
            $inner.kind(id)
        }

        fn size(&$self, id: ObjectId) -> Result<Option<u64>> {
            $inner.size(id)
        }

        fn read_range(
            &$self,
            id: ObjectId,
            range: std::ops::Range<u64>,
        ) -> Result<Option<manifold_runtime_api::bytes::Bytes>> {
            $inner.read_range(id, range)
        }
    };
}

/// Implements the methods of `Store` by calling them on `$inner`.
macro_rules! store_through {
    ($self:ident => $inner:expr) => {
        fn write(&$self, object: Object) -> Result<ObjectId> {
            $inner.write(object)
        }

        fn look_up(&$self, request: ObjectId) -> Result<Option<ObjectRef>> {
            $inner.look_up(request)
        }

        fn record(&$self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
            $inner.record(request, outcome)
        }

        fn record_run(
            &$self,
            request: ObjectId,
            outcome: Option<ObjectRef>,
            run: crate::store::RunRecord,
        ) -> Result<()> {
            $inner.record_run(request, outcome, run)
        }

        fn run_record(&$self, request: ObjectId) -> Result<Option<crate::store::RunRecord>> {
            $inner.run_record(request)
        }

        fn run_records(&$self) -> Result<Vec<(ObjectId, crate::store::RunRecord)>> {
            $inner.run_records()
        }

        fn pin(&$self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
            $inner.pin(request, outcome)
        }

        fn unpin(&$self, request: ObjectId) -> Result<bool> {
            $inner.unpin(request)
        }

        fn pinned(&$self, request: ObjectId) -> Result<Option<ObjectRef>> {
            $inner.pinned(request)
        }

        fn pinned_at(&$self, request: ObjectId) -> Result<Option<std::time::SystemTime>> {
            $inner.pinned_at(request)
        }

        fn pins(&$self) -> Result<Vec<Pin>> {
            $inner.pins()
        }

        fn entries(&$self) -> Result<Vec<(ObjectId, ObjectRef)>> {
            $inner.entries()
        }

        fn keeps_everything(&$self) -> bool {
            $inner.keeps_everything()
        }

        fn flush(&$self) -> Result<()> {
            $inner.flush()
        }
    };
}

/// Implements the methods of `Runtime` that describe it by calling them on `$inner`.
macro_rules! description_through {
    ($self:ident => $inner:expr) => {
        fn host_image(&$self) -> &HostImage {
            $inner.host_image()
        }

        fn capabilities(&$self) -> Capabilities {
            $inner.capabilities()
        }
    };
}

pub(crate) use {description_through, source_through, store_through};
