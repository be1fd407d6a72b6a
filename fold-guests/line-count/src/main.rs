//! The guest as a program for containers.

fn main() {
    line_count::main();
}
