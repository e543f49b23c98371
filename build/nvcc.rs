//! The CUDA compiler: where it is, what it can do, and which architectures to build for.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{env_flag, Result};

/// Every architecture the kernels are tuned for and tested to compile for. A cubin also runs on
/// later minor versions of its major version, save the `a` ones.
const RELEASE_ARCHS: &[&str] = &["80", "86", "89", "90a", "100", "120"];

/// The kernels use `cp.async` and `ld.relaxed.sys` on vectors as of this one.
const OLDEST_ARCH: u32 = 80;

/// An nvcc that has answered to `--version`.
pub struct Nvcc {
    pub path: PathBuf,
    /// As nvcc writes it: `13.0`.
    pub release: String,
    /// Numbers of the architectures it compiles for, without suffixes.
    supported: Vec<u32>,
}

/// One architecture: `90a` is number 90 with suffix `a`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arch {
    pub number: u32,
    pub suffix: String,
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.number, self.suffix)
    }
}

impl Arch {
    /// Reads `80`, `8.0`, `90a` or `sm_90a`.
    fn parse(text: &str) -> Result<Arch> {
        let plain = text.trim_start_matches("sm_").replace('.', "");
        let digits = plain.trim_end_matches(|c: char| c.is_ascii_lowercase());
        let suffix = &plain[digits.len()..];
        match digits.parse() {
            Ok(number) if number >= OLDEST_ARCH && matches!(suffix, "" | "a" | "f") => Ok(Arch {
                number,
                suffix: suffix.to_owned(),
            }),
            _ => Err(format!(
                "CUDA_COMPUTE_CAP: found `{text}`, expected a list of compute capabilities of 8.0 \
                 or later, such as `80,86,90a`"
            )),
        }
    }
}

impl Nvcc {
    /// Looks in `NVCC`, `CUDA_HOME`, `CUDA_PATH`, `PATH` and /usr/local/cuda, in this order.
    ///
    /// `PATH` is not declared to cargo: editors and shells differ in it all the time, and a
    /// build that found no compiler is repeated anyway.
    pub fn locate() -> Result<Nvcc> {
        let explicit = env_flag("NVCC");
        let folders = ["CUDA_HOME", "CUDA_PATH"].map(|name| (name, env_flag(name)));

        // A compiler that somebody has named is the one to use, or to fail on.
        if let Some(path) = explicit {
            return Nvcc::ask(Path::new(&path)).map_err(|e| format!("NVCC: {e}"));
        }
        let mut tried = vec!["NVCC: not set".to_owned()];
        for (name, folder) in folders {
            let Some(folder) = folder else {
                tried.push(format!("{name}: not set"));
                continue;
            };
            let path = Path::new(&folder).join("bin").join(program());
            if path.is_file() {
                return Nvcc::ask(&path).map_err(|e| format!("{name}: {e}"));
            }
            tried.push(format!("{name}: no {}", path.display()));
        }
        let search = env::var_os("PATH").unwrap_or_default();
        let in_path = env::split_paths(&search).map(|folder| folder.join(program()));
        let usual = Path::new("/usr/local/cuda/bin").join(program());
        if let Some(path) = in_path.chain([usual]).find(|path| path.is_file()) {
            return Nvcc::ask(&path);
        }
        tried.push("PATH: no nvcc".to_owned());
        tried.push("/usr/local/cuda/bin: no nvcc".to_owned());
        Err(format!(
            "the `cuda` feature needs nvcc, and there is none. Looked in\n  {}\n\
             Install the CUDA toolkit (12.8 or later builds for every architecture) and set \
             CUDA_HOME to it, or NVCC to the compiler itself; or build without the feature",
            tried.join("\n  ")
        ))
    }

    fn ask(path: &Path) -> Result<Nvcc> {
        let version = answer(path, "--version")?;
        let release = version
            .split("release ")
            .nth(1)
            .and_then(|rest| rest.split(',').next())
            .ok_or_else(|| format!("{} --version named no release", path.display()))?
            .to_owned();
        let supported = answer(path, "--list-gpu-code")?
            .split_whitespace()
            .filter_map(|code| code.strip_prefix("sm_")?.parse().ok())
            .collect();
        Ok(Nvcc {
            path: path.to_owned(),
            release,
            supported,
        })
    }

    /// `CUDA_COMPUTE_CAP`, or every release architecture that this nvcc knows; ascending.
    pub fn archs(&self) -> Result<Vec<Arch>> {
        let mut archs = Vec::new();
        match env_flag("CUDA_COMPUTE_CAP") {
            Some(list) => {
                for item in list.split([',', ';', ' ']).filter(|item| !item.is_empty()) {
                    let arch = Arch::parse(item)?;
                    if !self.supported.contains(&arch.number) {
                        return Err(format!(
                            "CUDA_COMPUTE_CAP: nvcc {} ({}) does not compile for `{item}`, only \
                             for {:?}",
                            self.release,
                            self.path.display(),
                            self.supported
                        ));
                    }
                    archs.push(arch);
                }
            }
            None => {
                for item in RELEASE_ARCHS {
                    let arch = Arch::parse(item)?;
                    if self.supported.contains(&arch.number) {
                        archs.push(arch);
                    }
                }
            }
        }
        archs.sort();
        archs.dedup();
        if archs.is_empty() {
            return Err(format!(
                "CUDA_COMPUTE_CAP names no architecture, or nvcc {} knows none of {RELEASE_ARCHS:?}",
                self.release
            ));
        }
        Ok(archs)
    }

    /// Whether `--compress-mode` exists: as of 12.8.
    pub fn can_choose_compression(&self) -> bool {
        let mut numbers = self.release.split('.').map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (12, 8),
            _ => false,
        }
    }
}

fn program() -> String {
    format!("nvcc{}", env::consts::EXE_SUFFIX)
}

fn answer(path: &Path, argument: &str) -> Result<String> {
    let output = Command::new(path)
        .arg(argument)
        .output()
        .map_err(|e| format!("{} cannot be run: {e}", path.display()))?;
    if !output.status.success() {
        return Err(format!(
            "{} {argument} failed: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
