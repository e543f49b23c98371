//! The `trellink` program.
fn main() {}
