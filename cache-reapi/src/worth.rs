//! [`Worth`]: which runs are worth a look-up in a shared cache.

use std::collections::HashMap;
use std::sync::Arc;

use manifold_runtime_api::ObjectId;

/// How many images something is known of.
const MAX_IMAGES: usize = 10_000;
/// How many look-ups it takes to know something about an image.
const ENOUGH: u32 = 32;
/// One of so many runs takes long, or the image's runs are not looked up.
const RARELY: u32 = 16;
/// How many requests are remembered.
const MAX_ASKED: usize = 100_000;

/// Which requests were looked up, and what came of it, by image.
#[derive(Debug, Default)]
pub(crate) struct Worth {
    images: HashMap<Arc<str>, Seen>,
    /// The requests that were looked up, with the images of those that waited then.
    asked: HashMap<ObjectId, Option<Arc<str>>>,
}

/// The look-ups of runs of an image.
#[derive(Debug, Default)]
struct Seen {
    asked: u32,
    /// How many of the runs took long, or were found.
    worth_it: u32,
}

impl Worth {
    /// Returns whether a run that takes long is to be looked up, and records that it is: unless it was
    /// before.
    pub(crate) fn asks_long(&mut self, request: ObjectId) -> bool {
        let asks = self.is_new(request);
        if asks {
            self.asked.insert(request, None);
        }
        asks
    }

    /// Returns whether a run that waits is to be looked up, and records that it is: unless it was before,
    /// or few runs of its image take long, as far as that is known.
    pub(crate) fn asks_waiting(&mut self, request: ObjectId, image: &str) -> bool {
        if !self.is_new(request) {
            return false;
        }
        let seen = self.images.get(image);
        let is_worth_it =
            seen.is_none_or(|seen| seen.asked < ENOUGH || seen.worth_it * RARELY >= seen.asked);
        if !is_worth_it {
            return false;
        }
        if self.images.len() >= MAX_IMAGES {
            self.images.clear();
        }
        let image: Arc<str> = image.into();
        let seen = self.images.entry(Arc::clone(&image)).or_default();
        seen.asked += 1;
        if seen.asked >= ENOUGH * RARELY {
            // What was long ago counts less.
            seen.asked /= 2;
            seen.worth_it /= 2;
        }
        self.asked.insert(request, Some(image));
        true
    }

    fn is_new(&mut self, request: ObjectId) -> bool {
        if self.asked.len() >= MAX_ASKED {
            // A few requests are looked up twice then.
            self.asked.clear();
        }
        !self.asked.contains_key(&request)
    }

    /// Records that a run that was looked up took long, or was found.
    pub(crate) fn was_worth_it(&mut self, request: ObjectId) {
        let image = self.asked.get(&request).and_then(Option::as_ref);
        if let Some(seen) = image.and_then(|image| self.images.get_mut(image)) {
            seen.worth_it += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: u32) -> ObjectId {
        manifold_runtime_api::Object::blob(number.to_string()).id()
    }

    #[test]
    fn an_image_of_short_runs_is_not_looked_up_any_more() {
        let mut worth = Worth::default();
        let asks = (0..100).filter(|number| worth.asks_waiting(request(*number), "short"));
        assert_eq!(asks.count(), ENOUGH as usize);
        assert!(worth.asks_waiting(request(1000), "another"));
        assert!(!worth.asks_waiting(request(1000), "another"), "it was looked up before");
        assert!(worth.asks_long(request(99)), "one that does take long");
        assert!(!worth.asks_long(request(0)), "it was looked up before");
    }

    #[test]
    fn an_image_some_of_whose_runs_take_long_is_looked_up() {
        let mut worth = Worth::default();
        for number in 0..10_000 {
            assert!(worth.asks_waiting(request(number), "long"), "{number}");
            if number % 8 == 0 {
                worth.was_worth_it(request(number));
            }
        }
    }
}
