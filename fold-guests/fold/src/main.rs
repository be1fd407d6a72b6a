//! The guest as a program for containers.

fn main() {
    fold::main();
}
