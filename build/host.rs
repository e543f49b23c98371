//! The host build of csrc: one static library with every variant of the tile kernels in it.

use std::path::{Path, PathBuf};

use crate::{env_var, files_with_extension, Result};

/// The file that is compiled once per instruction set.
const TILE_KERNELS: &str = "tile_kernels.cpp";

/// Name and flags of each instruction set. The name reaches the source as `TRELLINK_VARIANT`,
/// which it must put into the name of *everything* it defines outside an anonymous namespace: of
/// two inline functions with one name the linker keeps either, and if that is the AVX-512 one the
/// baseline variant dies of an illegal instruction.
const X86_64_VARIANTS: &[(&str, &[&str])] = &[
    ("baseline", &[]),
    ("avx2", &["-mavx2", "-mfma"]),
    (
        "avx512",
        &[
            "-mavx512f",
            "-mavx512dq",
            "-mavx512bw",
            "-mavx512vl",
            "-mfma",
        ],
    ),
];

/// Elsewhere the Rust side only knows the baseline.
const OTHER_VARIANTS: &[(&str, &[&str])] = &[("baseline", &[])];

/// Compiles `csrc/host/*.cpp` and tells cargo to link it.
pub fn build(csrc: &Path, out_dir: &Path) -> Result<()> {
    let sources = files_with_extension(&csrc.join("host"), "cpp")?;
    if sources.is_empty() {
        return Ok(());
    }
    let (tile_kernels, others): (Vec<PathBuf>, Vec<PathBuf>) = sources
        .into_iter()
        .partition(|source| source.file_name().is_some_and(|name| name == TILE_KERNELS));
    let variants = match env_var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => X86_64_VARIANTS,
        _ => OTHER_VARIANTS,
    };

    let mut library = compiler(csrc);
    for (name, flags) in variants {
        let mut build = compiler(csrc);
        // Each variant needs its own folder: cc names objects after their source.
        build
            .files(&tile_kernels)
            .out_dir(out_dir.join(name))
            .define("TRELLINK_VARIANT", *name);
        for flag in *flags {
            build.flag(flag);
        }
        let objects = build
            .try_compile_intermediates()
            .map_err(|e| failure(name, &e))?;
        library.objects(objects);
    }
    library
        .files(&others)
        .try_compile("trellink_host")
        .map_err(|e| failure("host", &e))
}

fn compiler(csrc: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(3)
        .include(csrc)
        .warnings(true)
        .extra_warnings(true)
        // Which products and sums are fused is the source's decision: see csrc/host/simd.h.
        .flag_if_supported("-ffp-contract=off")
        // No exception may cross into Rust, so none may exist.
        .flag_if_supported("-fno-exceptions")
        .flag_if_supported("-fno-rtti");
    build
}

fn failure(part: &str, error: &cc::Error) -> String {
    format!(
        "the C++ compiler failed on csrc/host ({part}): {error}\n\
         a C++17 compiler is needed (g++ 9 or later, clang 10 or later); CXX chooses another"
    )
}
