//! The guest as a program for containers.

fn main() {
    total_size::main();
}
