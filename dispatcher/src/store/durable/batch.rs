//! [`Batch`]: writes that wait to be committed.

use manifold_runtime_api::{Object, ObjectId};

use super::format::Entry;
use crate::by_id::ById;
use crate::store::RunRecord;

/// Writes that are committed in one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) objects: ById<Object>,
    pub(super) memo: ById<Recorded>,
    pub(super) pins: ById<Change>,
    /// The size of the batch in bytes: the lengths of the objects' contents and of the records of runs, plus
    /// [`OVERHEAD`] for each entry of any table.
    pub(super) bytes: usize,
}

/// What was recorded for a request. What is not there is as before.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) entry: Option<Entry>,
    pub(super) run: Option<RunRecord>,
    /// Whether `entry` only has a newer stamp than the entry that is there, and is ignored if that has
    /// another outcome now.
    pub(super) is_renewal: bool,
}

/// A change of a memo entry or pin that is not on disk yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The entry is written.
    Set(Entry),
    /// The entry gets a newer stamp if it is there, with the same outcome.
    Renew(Entry),
    /// The entry is removed.
    Remove,
}

/// The approximate cost of one entry of any table, not counting an object's content, in bytes.
pub(super) const OVERHEAD: usize = 128;

impl Batch {
    /// Removes everything, and keeps the memory of the maps: filling fresh memory would keep the lock
    /// of the batch for longer. Returns `None` if the maps are too large to be kept.
    pub(super) fn emptied(mut self) -> Option<Self> {
        const MAX_KEPT_BYTES: usize = 32 << 20;
        if self.bytes > MAX_KEPT_BYTES {
            return None;
        }
        self.objects.clear();
        self.memo.clear();
        self.pins.clear();
        self.bytes = 0;
        Some(self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.memo.is_empty() && self.pins.is_empty()
    }

    pub(super) fn add_object(&mut self, id: ObjectId, object: Object) {
        let length = object.content.len() + OVERHEAD;
        if self.objects.insert(id, object).is_none() {
            self.bytes += length;
        }
    }

    pub(super) fn add_memo(&mut self, request: ObjectId, new: Recorded) {
        let recorded = self.memo.entry(request).or_insert_with(|| {
            self.bytes += OVERHEAD;
            Recorded { entry: None, run: None, is_renewal: false }
        });
        if new.entry.is_some() && !(new.is_renewal && recorded.entry.is_some()) {
            (recorded.entry, recorded.is_renewal) = (new.entry, new.is_renewal);
        }
        if let Some(run) = new.run {
            self.bytes += run.bytes.len();
            recorded.run = Some(run);
        }
    }

    pub(super) fn add_pin(&mut self, request: ObjectId, change: Change) {
        if matches!(change, Change::Renew(_)) && self.pins.contains_key(&request) {
            return;
        }
        if self.pins.insert(request, change).is_none() {
            self.bytes += OVERHEAD;
        }
    }

    /// Adds the writes of `earlier` again, after its commit failed. Newer writes take precedence.
    pub(super) fn put_back(&mut self, earlier: &Self) {
        for (id, object) in &earlier.objects {
            if !self.objects.contains_key(id) {
                self.add_object(*id, object.clone());
            }
        }
        for (request, recorded) in &earlier.memo {
            let newer = self.memo.get(request).cloned();
            self.add_memo(*request, recorded.clone());
            if let Some(newer) = newer {
                self.add_memo(*request, newer);
            }
        }
        for (request, change) in &earlier.pins {
            if self.pins.get(request).is_none_or(|newer| matches!(newer, Change::Renew(_))) {
                self.add_pin(*request, *change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use manifold_runtime_api::{Object, ObjectRef};

    use super::super::format::Stamp;
    use super::*;

    const NOTHING: Recorded = Recorded { entry: None, run: None, is_renewal: false };

    fn entry(text: &'static str) -> Entry {
        Entry { outcome: ObjectRef::blob(Object::blob(text).id()), stamp: Stamp(1) }
    }

    /// A renewal takes the place of nothing, neither before nor after it.
    #[test]
    fn a_renewal_replaces_no_other_change() {
        let request = Object::blob("request").id();
        let renewal = Recorded { entry: Some(entry("old")), is_renewal: true, ..NOTHING };
        let set = Recorded { entry: Some(entry("new")), ..NOTHING };
        for recorded in [[&renewal, &set], [&set, &renewal]] {
            for put_back in [false, true] {
                let (mut first, mut second) = (Batch::default(), Batch::default());
                first.add_memo(request, recorded[0].clone());
                if put_back {
                    second.add_memo(request, recorded[1].clone());
                    second.put_back(&first);
                    first = second;
                } else {
                    first.add_memo(request, recorded[1].clone());
                }
                let found = &first.memo[&request];
                assert_eq!((found.entry, found.is_renewal), (Some(entry("new")), false));
            }
        }
        for change in [Change::Set(entry("new")), Change::Remove] {
            for changes in
                [[change, Change::Renew(entry("old"))], [Change::Renew(entry("old")), change]]
            {
                let (mut first, mut second) = (Batch::default(), Batch::default());
                let mut both = Batch::default();
                first.add_pin(request, changes[0]);
                second.add_pin(request, changes[1]);
                changes.iter().for_each(|change| both.add_pin(request, *change));
                second.put_back(&first);
                assert_eq!((second.pins[&request], both.pins[&request]), (change, change));
            }
        }
    }

    #[test]
    fn what_a_failed_commit_had_is_put_back_beside_what_is_newer() {
        let entry = |text| Some(entry(text));
        let run = |text: &'static str| Some(RunRecord { bytes: text.into(), common: 0 });
        let [one, two, three] = ["one", "two", "three"].map(|text| Object::blob(text).id());
        let (mut earlier, mut newer) = (Batch::default(), Batch::default());
        for request in [one, two, three] {
            earlier.add_memo(request, Recorded { entry: entry("old"), run: run("old"), ..NOTHING });
        }
        newer.add_memo(one, Recorded { entry: entry("new"), ..NOTHING });
        newer.add_memo(two, Recorded { run: run("new"), ..NOTHING });
        newer.put_back(&earlier);
        let found = |request| newer.memo.get(&request).map(|it| (it.entry, it.run.clone()));
        assert_eq!(found(one), Some((entry("new"), run("old"))));
        assert_eq!(found(two), Some((entry("old"), run("new"))));
        assert_eq!(found(three), Some((entry("old"), run("old"))));
    }
}
