//! Tests of what runtimes measure with: memory reservations and stopwatches.

use std::sync::Arc;
use std::time::Duration;

use manifold_runtime_api::{Limit, Limits, MemoryReservation, Meter, Stopwatch};

#[test]
fn a_reservation_can_grow_and_shrink_and_is_given_back_when_dropped() {
    let meter = Arc::new(Meter::new(u64::MAX, 100));
    let mut first = MemoryReservation::new(Arc::clone(&meter));
    let mut second = MemoryReservation::new(Arc::clone(&meter));
    first.set(60).unwrap();
    assert_eq!(second.set(41), Err(Limit::TotalMemory { bytes: 100 }));
    assert_eq!(second.bytes(), 0, "a refused change leaves the reservation as it was");
    first.set(10).unwrap();
    second.set(90).unwrap();
    second.grow(1).unwrap_err();
    drop(first);
    second.grow(10).unwrap();
    assert_eq!(second.bytes(), 100);
}

#[test]
fn a_stopwatch_counts_only_while_it_runs() {
    const STEP: Duration = Duration::from_millis(30);
    let mut watch = Stopwatch::new(&Limits::default().compute_time(STEP));
    std::thread::sleep(STEP);
    assert_eq!((watch.elapsed(), watch.remaining()), (Duration::ZERO, STEP));
    watch.check().unwrap();
    watch.start();
    std::thread::sleep(STEP);
    watch.start();
    watch.stop();
    let elapsed = watch.elapsed();
    assert!(elapsed >= STEP);
    assert_eq!(watch.check(), Err(Limit::ComputeTime { time: STEP }));
    std::thread::sleep(STEP);
    assert_eq!(watch.elapsed(), elapsed, "a stopped watch does not advance");
}
