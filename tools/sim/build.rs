//! Compiles the kernel sources of `csrc/` for the CPU, against the shim in this folder.

fn main() {
    let csrc = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../csrc");
    println!("cargo::rerun-if-changed=csrc");
    println!("cargo::rerun-if-changed={}", csrc.display());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // First, so that its ptx/ptx.cuh stands in for the inline assembly of csrc.
        .include("csrc")
        .include(&csrc)
        .flag("-include")
        .flag("cuda_shim.h")
        .flag("-pthread")
        // The kernels round each operation on its own; so must this.
        .flag("-ffp-contract=off")
        .flag_if_supported("-Wno-unknown-pragmas")
        .flag_if_supported("-Wno-unused-parameter")
        .opt_level(2)
        .file("csrc/sim.cpp")
        .compile("trellink_sim");
}
