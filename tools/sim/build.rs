//! Compiles the kernel sources of `csrc/` for the CPU, against the shim in this folder.
//!
//! As for Hopper, or for the architecture that `TRELLINK_SIM_ARCH` says: 800 takes the ways of those before.

fn main() {
    let csrc = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../csrc");
    println!("cargo::rerun-if-changed=csrc");
    println!("cargo::rerun-if-changed={}", csrc.display());
    println!("cargo::rerun-if-env-changed=TRELLINK_SIM_ARCH");
    let arch = std::env::var("TRELLINK_SIM_ARCH").unwrap_or_else(|_| "900".into());
    cc::Build::new()
        .define("__CUDA_ARCH__", arch.as_str())
        // Each launch has those that the calling thread has chosen.
        .define("TRELLINK_FAULTS", "::sim::faults()")
        // 0.1 s: in that time a peer ends its call and begins the next one, also on a busy machine.
        .define("TRELLINK_FAULT_DELAY_NS", "100000000")
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
        // What C++ leaves undefined and a misaligned access of a vector type stop the process.
        .flag("-fsanitize=alignment,bounds,shift,signed-integer-overflow,float-cast-overflow")
        .flag("-fsanitize-undefined-trap-on-error")
        // Its longjmp refuses to change stacks.
        .flag("-U_FORTIFY_SOURCE")
        .opt_level(2)
        .file("csrc/sim.cpp")
        .compile("trellink_sim");
}
