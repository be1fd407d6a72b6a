//! The contracts of the dispatcher, its stores and its sources. Each module has the tests of one of
//! them. They share a program, because each program of tests has the engines linked into it.

mod at_most_one_execution;
mod breached_limits;
mod cancellation;
mod conformance;
mod cycles;
mod directories;
mod directory_index;
mod elsewhere;
mod function_of_the_key;
mod functions;
mod git_damage;
mod git_objects;
mod golden_vectors;
mod history;
mod layers;
mod left_out;
mod lost_objects;
mod objects_before_memo;
mod observer;
mod only_successes_are_memoized;
mod policies;
mod provenance;
mod random_call_graphs;
mod resolution;
mod run_many;
mod sizes;
mod spans;
mod suspended_frames;
