//! The committed bindings of `csrc/params.h` are the ones that bindgen makes of it today.
#![cfg(feature = "bindgen")]

#[test]
fn the_committed_bindings_are_those_of_the_header() {
    let generated = include_str!(env!("TRELLINK_BINDINGS"));
    let committed = include_str!("../src/ffi/bindings.rs");
    let differs = generated
        .lines()
        .zip(committed.lines())
        .position(|(generated, committed)| generated != committed);
    assert!(
        generated == committed,
        "csrc/params.h and src/ffi/bindings.rs differ from line {:?} on; copy {} over the latter",
        differs.map(|line| line + 1),
        env!("TRELLINK_BINDINGS")
    );
}
