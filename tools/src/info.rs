//! `trellink info`: how the program was built, what there is, and what would be used.

use crate::device::{self, Choice};
use crate::failure::Outcome;
use crate::output;
use anyhow::Result;
use serde::Serialize;

/// Arguments of `info`.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    cuda: Build,
    host: Host,
    gpus: Vec<Gpu>,
    links: Vec<Link>,
    /// Why GPUs or links could not be listed.
    gpu_error: Option<String>,
    used: Used,
}

/// What of CUDA is in this program.
#[derive(Default, Serialize)]
struct Build {
    built: bool,
    architectures: Vec<&'static str>,
    nvcc: Option<&'static str>,
}

#[derive(Serialize)]
struct Host {
    /// Those that the kernels have and this machine too; the last one is used.
    instruction_sets: Vec<&'static str>,
    threads: usize,
}

#[derive(Serialize)]
struct Gpu {
    ordinal: usize,
    name: String,
    compute_capability: String,
    sms: usize,
    memory_bytes: usize,
    l2_bytes: usize,
}

/// One ordered pair of devices.
#[derive(Serialize)]
struct Link {
    device: usize,
    peer: usize,
    access: bool,
    native_atomics: bool,
}

/// What `--device auto` takes.
#[derive(Serialize)]
struct Used {
    devices: Vec<String>,
    why: String,
}

/// Runs `info`.
pub fn run(args: &Args) -> Result<Outcome> {
    let report = report()?;
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&text(&report))?;
    }
    Ok(Outcome::Good)
}

fn report() -> Result<Report> {
    let (gpus, links, gpu_error) = match devices() {
        Ok((gpus, links)) => (gpus, links, None),
        Err(error) => (Vec::new(), Vec::new(), Some(error.to_string())),
    };
    let place = device::choose(Choice::Auto)?;
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        cuda: build(),
        host: Host {
            instruction_sets: device::instruction_sets(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        },
        gpus,
        links,
        gpu_error,
        used: Used {
            devices: place.devices.iter().map(ToString::to_string).collect(),
            why: place.why,
        },
    })
}

#[cfg(not(feature = "cuda"))]
fn build() -> Build {
    Build::default()
}

#[cfg(feature = "cuda")]
fn build() -> Build {
    Build {
        built: true,
        architectures: trellink::cuda::BUILT_FOR.split(',').collect(),
        nvcc: Some(trellink::cuda::NVCC_VERSION),
    }
}

#[cfg(not(feature = "cuda"))]
fn devices() -> Result<(Vec<Gpu>, Vec<Link>)> {
    anyhow::bail!("built without the `cuda` feature, which is what lists them")
}

#[cfg(feature = "cuda")]
fn devices() -> Result<(Vec<Gpu>, Vec<Link>)> {
    let devices = trellink::cuda::devices()?;
    let ordinals: Vec<usize> = devices.iter().map(|info| info.ordinal).collect();
    let links = trellink::cuda::links(&ordinals)?
        .into_iter()
        .map(|link| Link {
            device: link.device,
            peer: link.peer,
            access: link.access,
            native_atomics: link.native_atomics,
        });
    let gpus = devices.into_iter().map(|info| Gpu {
        ordinal: info.ordinal,
        name: info.name,
        compute_capability: format!(
            "{}.{}",
            info.compute_capability.0, info.compute_capability.1
        ),
        sms: info.sm_count,
        memory_bytes: info.memory_bytes,
        l2_bytes: info.l2_bytes,
    });
    Ok((gpus.collect(), links.collect()))
}

fn text(report: &Report) -> String {
    let mut lines = vec![
        format!("trellink {}", report.version),
        format!("CUDA: {}", report.cuda.text()),
        format!("host: {}", report.host.text()),
    ];
    match &report.gpu_error {
        Some(error) => lines.push(format!("GPUs: none can be listed: {error}")),
        None => lines.push(format!("GPUs: {}", report.gpus.len())),
    }
    lines.extend(report.gpus.iter().map(Gpu::text));
    lines.extend(report.links.iter().map(Link::text));
    let used = &report.used;
    lines.push(format!(
        "would use: {}, because {}",
        used.devices.join(", "),
        used.why
    ));
    lines.join("\n")
}

impl Build {
    fn text(&self) -> String {
        match self.nvcc {
            Some(nvcc) => format!(
                "kernels for {} by nvcc {nvcc}",
                self.architectures.join(", ")
            ),
            None => "not built in".into(),
        }
    }
}

impl Host {
    fn text(&self) -> String {
        let used = self.instruction_sets.last().unwrap_or(&"unknown");
        let all = self.instruction_sets.join(", ");
        format!("{used} kernels (of {all}), {} threads", self.threads)
    }
}

impl Gpu {
    fn text(&self) -> String {
        format!(
            "  {}: {}, compute capability {}, {} SMs, {} memory, {} L2",
            self.ordinal,
            self.name,
            self.compute_capability,
            self.sms,
            output::bytes(self.memory_bytes),
            output::bytes(self.l2_bytes),
        )
    }
}

impl Link {
    fn text(&self) -> String {
        let access = if self.access { "access" } else { "no access" };
        let atomics = if self.native_atomics {
            "native atomics"
        } else {
            "no native atomics"
        };
        format!("  {} to {}: {access}, {atomics}", self.device, self.peer)
    }
}
