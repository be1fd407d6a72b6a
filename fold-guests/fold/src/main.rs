//! The guest as a container program.

fn main() {
    fold::main();
}
