//! Rust bindings of `csrc/params.h`, the structs that both sides of a launch read.
//!
//! The crate itself uses the committed `src/ffi/bindings.rs`, so that nobody needs libclang; a
//! test compares it with what this writes.

use std::path::Path;

use crate::Result;

/// Generates `OUT_DIR/bindings.rs` and tells the drift test where it is.
pub fn generate(csrc: &Path, out_dir: &Path) -> Result<()> {
    for name in [
        "LIBCLANG_PATH",
        "LLVM_CONFIG_PATH",
        "BINDGEN_EXTRA_CLANG_ARGS",
    ] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let header = csrc.join("params.h");
    if !header.is_file() {
        return Err(format!("{} is missing", header.display()));
    }
    // Pinned, so that the text depends on the header alone and not on who generates it.
    let target = bindgen::RustTarget::stable(82, 0).map_err(|e| e.to_string())?;
    let bindings = bindgen::Builder::default()
        .header(header.display().to_string())
        .clang_args(["-x", "c", "-std=c11"])
        .clang_arg(format!("-I{}", csrc.display()))
        .allowlist_type("Trellink.*")
        .allowlist_var("TRELLINK_.*")
        .prepend_enum_name(false)
        .derive_default(true)
        .layout_tests(true)
        .use_core()
        .rust_target(target)
        .disable_header_comment()
        .raw_line("// Generated from csrc/params.h with the `bindgen` feature; do not edit.")
        .generate()
        .map_err(|e| {
            format!(
                "bindgen failed on {}: {e}\n\
                 LIBCLANG_PATH must name a folder with libclang; if stdint.h or stddef.h is not \
                 found, set BINDGEN_EXTRA_CLANG_ARGS=\"-isystem $(gcc -print-file-name=include)\"",
                header.display()
            )
        })?;
    let path = out_dir.join("bindings.rs");
    bindings
        .write_to_file(&path)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    println!("cargo::rustc-env=TRELLINK_BINDINGS={}", path.display());
    Ok(())
}
