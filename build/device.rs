//! The device build: every `csrc/kernels/*.cu` becomes a fatbin that the crate embeds.
//!
//! A kernel file is compiled again only if one of the files it includes, the command or the
//! compiler has changed: with six architectures a file takes far longer than the crate does.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::thread;
use std::time::SystemTime;

use crate::nvcc::{Arch, Nvcc};
use crate::{env_flag, files_with_extension, Result};

/// One kernel file and what is made from it.
struct Unit {
    /// The file's stem, by which the crate finds the fatbin.
    name: String,
    source: PathBuf,
    out_dir: PathBuf,
}

/// Compiles all kernels and writes `fatbins.rs`.
pub fn build(csrc: &Path, out_dir: &Path) -> Result<()> {
    let nvcc = Nvcc::locate()?;
    let archs = nvcc.archs()?;
    let units: Vec<Unit> = files_with_extension(&csrc.join("kernels"), "cu")?
        .into_iter()
        .filter_map(|source| {
            let name = source.file_stem()?.to_str()?.to_owned();
            let out_dir = out_dir.to_owned();
            Some(Unit {
                name,
                source,
                out_dir,
            })
        })
        .collect();

    let arguments = arguments(&nvcc, &archs, csrc);
    compile_all(&units, &nvcc, &arguments, jobs())?;
    let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
    write_table(out_dir, &names)?;

    let archs: Vec<String> = archs.iter().map(Arch::to_string).collect();
    println!("cargo::rustc-env=TRELLINK_CUDA_ARCHS={}", archs.join(","));
    println!("cargo::rustc-env=TRELLINK_NVCC_VERSION={}", nvcc.release);
    Ok(())
}

/// What the crate includes when there are no kernels to embed.
pub fn build_nothing(out_dir: &Path) -> Result<()> {
    println!("cargo::rustc-env=TRELLINK_CUDA_ARCHS=");
    println!("cargo::rustc-env=TRELLINK_NVCC_VERSION=");
    write_table(out_dir, &[])
}

fn arguments(nvcc: &Nvcc, archs: &[Arch], csrc: &Path) -> Vec<String> {
    let mut arguments: Vec<String> = ["-fatbin", "-std=c++17", "-O3", "-Xptxas", "-v"]
        .map(str::to_owned)
        .into();
    arguments.push(format!("-I{}", csrc.display()));
    if nvcc.can_choose_compression() {
        arguments.push("--compress-mode=size".to_owned());
    }
    if let Some(faults) = faults() {
        arguments.push(format!("-DTRELLINK_FAULTS={faults}"));
    }
    if let Some(host_compiler) = env_flag("NVCC_CCBIN") {
        arguments.push(format!("-ccbin={host_compiler}"));
    }
    for arch in archs {
        arguments.push(format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
    }
    // PTX of the lowest one lets the driver compile for whatever has no cubin here. Code of an
    // architecture with a suffix runs on no other, so its PTX would serve nobody.
    if let Some(lowest) = archs.iter().find(|arch| arch.suffix.is_empty()) {
        arguments.push(format!(
            "-gencode=arch=compute_{lowest},code=compute_{lowest}"
        ));
    }
    arguments
}

/// The faults that `TRELLINK_FAULTS` asks for, `one-half,equal` for example, as a sum of the constants of
/// `csrc/comm/fault.cuh`; nvcc refuses what is none.
fn faults() -> Option<String> {
    let names = env_flag("TRELLINK_FAULTS")?;
    println!("cargo::warning=these kernels are wrong on purpose: {names}");
    let constant = |name: &str| {
        let words = name.trim().split('-').map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_uppercase() + rest
        });
        format!("trellink::fault::k{}", words.collect::<String>())
    };
    Some(names.split(',').map(constant).collect::<Vec<_>>().join("+"))
}

/// cargo's `-j`. It sets this for build scripts, so it is no reason to run again.
fn jobs() -> usize {
    std::env::var("NUM_JOBS")
        .ok()
        .and_then(|jobs| jobs.parse().ok())
        .or_else(|| thread::available_parallelism().ok().map(Into::into))
        .unwrap_or(1)
}

/// Hands the units to `jobs` threads; reports all failures, not only the first.
fn compile_all(units: &[Unit], nvcc: &Nvcc, arguments: &[String], jobs: usize) -> Result<()> {
    // nvcc reads these by itself; a change of theirs is a change of the command.
    let ambient = ["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"]
        .map(|name| format!("{name}={}", env_flag(name).unwrap_or_default()));
    let threads = jobs.div_ceil(units.len().max(1));
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(String::new());
    thread::scope(|scope| {
        for _ in 0..jobs.min(units.len()) {
            scope.spawn(|| {
                // Only hands out indices; the scope's end orders everything else.
                while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(message) = unit.compile(nvcc, arguments, &ambient, threads) {
                        if let Ok(mut failures) = failures.lock() {
                            failures.push_str(&message);
                            failures.push('\n');
                        }
                    }
                }
            });
        }
    });
    match failures.into_inner() {
        Ok(failures) if failures.is_empty() => Ok(()),
        Ok(failures) => Err(failures),
        Err(_) => Err("a thread that compiles kernels panicked".to_owned()),
    }
}

impl Unit {
    fn path(&self, extension: &str) -> PathBuf {
        self.out_dir.join(format!("{}.{extension}", self.name))
    }

    /// `threads` are nvcc's own, for one file on several architectures.
    fn compile(
        &self,
        nvcc: &Nvcc,
        arguments: &[String],
        ambient: &[String],
        threads: usize,
    ) -> Result<()> {
        let mut command = Command::new(&nvcc.path);
        command
            .args(arguments)
            .args(["-MD", "-MF"])
            .arg(self.path("d"))
            .arg("-o")
            .arg(self.path("fatbin.part"))
            .arg(&self.source);
        let stamp = format!("{} {command:?} {ambient:?}", nvcc.release);
        if self.is_fresh(&stamp) {
            return Ok(());
        }
        // Not part of the stamp: the fatbin is the same with any number.
        command.arg(format!("--threads={threads}"));
        // Written before the compiler reads anything: a file changed while it runs is then
        // newer than the stamp. Without a fatbin beside it a stamp says nothing.
        let _ = fs::remove_file(self.path("fatbin"));
        write(&self.path("stamp"), &stamp)?;

        let output = command
            .output()
            .map_err(|e| format!("{} cannot be run: {e}", nvcc.path.display()))?;
        let log = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!(
                "nvcc failed on {} ({}):\n{}{log}",
                self.source.display(),
                output.status,
                String::from_utf8_lossy(&output.stdout),
            ));
        }
        // Registers and spills per kernel and architecture, for whoever wants to look.
        write(&self.path("ptxas.txt"), &log)?;
        for line in log.lines().filter(|line| line.contains("warning")) {
            println!("cargo::warning={line}");
        }
        fs::rename(self.path("fatbin.part"), self.path("fatbin"))
            .map_err(|e| format!("{}: {e}", self.path("fatbin").display()))
    }

    /// Whether the fatbin was made by this command from the files as they are.
    fn is_fresh(&self, stamp: &str) -> bool {
        let unchanged = || -> Option<bool> {
            if fs::read_to_string(self.path("stamp")).ok()? != stamp {
                return Some(false);
            }
            let made = modified(&self.path("stamp"))?;
            let sources = dependencies(&fs::read_to_string(self.path("d")).ok()?);
            Some(
                sources
                    .iter()
                    .all(|source| modified(source).is_some_and(|time| time < made)),
            )
        };
        self.path("fatbin").is_file() && unchanged().unwrap_or(false)
    }
}

/// The prerequisites in a make rule: `target : a b \` and so on, spaces in names escaped.
fn dependencies(rule: &str) -> Vec<PathBuf> {
    let rule = rule.replace("\\\r\n", " ").replace("\\\n", " ");
    let Some((_, list)) = rule.split_once(" :").or_else(|| rule.split_once(": ")) else {
        return Vec::new();
    };
    list.replace("\\ ", "\0")
        .split_whitespace()
        .map(|path| PathBuf::from(path.replace('\0', " ")))
        .collect()
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// Writes `fatbins.rs`, the table that the crate includes.
fn write_table(out_dir: &Path, names: &[&str]) -> Result<()> {
    let mut entries = String::new();
    for name in names {
        // Writing to a string cannot fail.
        let _ = writeln!(
            entries,
            "    ({name:?}, {{\n        \
                 static FATBIN: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.fatbin\")));\n        \
                 &FATBIN.0\n    }}),"
        );
    }
    write(
        &out_dir.join("fatbins.rs"),
        &format!(
            "/// The driver reads 64-bit headers in a fatbin; `include_bytes!` alone promises no \
             alignment.\n\
             #[allow(dead_code)]\n\
             #[repr(align(16))]\n\
             struct Aligned<T: ?Sized>(T);\n\n\
             /// Every kernel file's fatbin, by the file's stem; empty where nvcc was not run.\n\
             pub static FATBINS: &[(&str, &[u8])] = &[\n{entries}];\n"
        ),
    )
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
