//! The guest in README.md is the example, which is compiled.

#[test]
fn the_readme_shows_the_example() {
    let (readme, example) = (include_str!("../README.md"), include_str!("../examples/shout.rs"));
    assert!(readme.contains(example));
}
