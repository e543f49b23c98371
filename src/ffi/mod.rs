//! The structs that both sides of a launch read, generated from `csrc/params.h`.

#[allow(missing_docs, dead_code, clippy::all)]
#[rustfmt::skip]
mod bindings;

#[allow(unused_imports)]
pub(crate) use bindings::*;
