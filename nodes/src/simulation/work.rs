//! The work of a simulated call: a tree of frames, of which the nodes only unfold what they split.

/// A run that has not begun, with everything nested in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree {
    /// The number of frames.
    pub(super) frames: u64,
    /// Decides about the shape.
    seed: u64,
}

/// The most runs that are nested in one directly.
const MOST: u64 = 32;

impl Tree {
    pub(super) fn new(frames: u64, seed: u64) -> Self {
        Self { frames, seed }
    }

    /// Returns the runs that are nested in this one directly: two to 32 of very different sizes. They have
    /// all of its frames but one.
    pub(super) fn nested(self) -> Vec<Self> {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let mut left = self.frames - 1;
        let count = rng.u64(2..=MOST).min(left);
        // The squares of random numbers differ as directories do.
        let weights: Vec<f64> = (0..count).map(|_| rng.f64().powi(2) + 1e-3).collect();
        let sum: f64 = weights.iter().sum();
        let shares = weights.iter().map(|weight| weight / sum * (self.frames - 1) as f64);
        let mut nested = Vec::new();
        for (index, share) in shares.enumerate() {
            let after = count - 1 - index as u64;
            let frames = if after == 0 { left } else { (share as u64).clamp(1, left - after) };
            left -= frames;
            nested.push(Self::new(frames, rng.u64(..)));
        }
        nested
    }
}

#[test]
fn what_is_nested_has_all_frames_but_one() {
    for seed in 0..200 {
        for frames in [1, 2, 3, 30, 1_000, 1_000_000] {
            let tree = Tree::new(frames, seed);
            let nested = tree.nested();
            assert_eq!(nested.iter().map(|tree| tree.frames).sum::<u64>(), frames - 1);
            assert!(nested.iter().all(|tree| tree.frames > 0));
        }
    }
}
