//! The guest as a container program.

fn main() {
    total_size::main();
}
