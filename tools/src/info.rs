//! `trellink info`: how the program was built, what there is, and what would be used.

use crate::device::{self, Choice};
use crate::failure::Outcome;
use crate::output;
use anyhow::Result;
use serde::Serialize;
use trellink::ExchangePath;

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

/// One ordered pair of devices: what the driver says and what was tried.
#[derive(Serialize)]
struct Link {
    device: usize,
    peer: usize,
    access: bool,
    native_atomics: bool,
    /// The driver's, 0 the fastest; it does not say what kind of link that is.
    performance_rank: i32,
    direct: Probe,
    host_memory: Probe,
    /// What these two alone would use: direct, host-memory or none.
    path: &'static str,
}

/// How a probe of one way ended.
#[derive(Clone, Serialize)]
struct Probe {
    /// good, bad, undecided or not probed.
    verdict: &'static str,
    /// Of a good one: what a packet, and a flag behind a fence, take in both directions at once.
    round_us: Option<f64>,
    /// Of any other.
    reason: Option<String>,
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
    let place = device::choose(Choice::Auto, ExchangePath::Auto)?;
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
    let links = links(&ordinals)?;
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
    Ok((gpus.collect(), links))
}

/// Every ordered pair, tried both ways.
#[cfg(feature = "cuda")]
fn links(ordinals: &[usize]) -> Result<Vec<Link>> {
    let direct = probes(ordinals, ExchangePath::Direct);
    let host_memory = probes(ordinals, ExchangePath::HostMemory);
    let all: Vec<_> = trellink::cuda::links(ordinals)?;
    // Packets go to and fro, so one way that fails takes the other along.
    let both = |probe: &dyn Fn(usize, usize) -> Probe, a, b| {
        probe(a, b).verdict == "good" && probe(b, a).verdict == "good"
    };
    let link = |link: &trellink::cuda::Link| Link {
        device: link.device,
        peer: link.peer,
        access: link.access,
        native_atomics: link.native_atomics,
        performance_rank: link.performance_rank,
        direct: direct(link.device, link.peer),
        host_memory: host_memory(link.device, link.peer),
        path: if both(&direct, link.device, link.peer) {
            ExchangePath::Direct.name()
        } else if both(&host_memory, link.device, link.peer) {
            ExchangePath::HostMemory.name()
        } else {
            "none"
        },
    };
    Ok(all.iter().map(link).collect())
}

/// What probes of this path say of each pair.
#[cfg(feature = "cuda")]
fn probes(ordinals: &[usize], path: ExchangePath) -> impl Fn(usize, usize) -> Probe {
    use trellink::cuda::LinkVerdict;
    let probed = trellink::cuda::probe_links(ordinals, path);
    move |device, peer| {
        let (verdict, round, reason) = match &probed {
            Err(error) => ("not probed", None, Some(error.to_string())),
            Ok(links) => {
                let mut links = links.iter();
                match links.find(|link| (link.device, link.peer) == (device, peer)) {
                    None => ("not probed", None, Some("there is no peer access".into())),
                    Some(link) => match &link.verdict {
                        LinkVerdict::Good { round } => ("good", Some(*round), None),
                        LinkVerdict::Bad { reason } => ("bad", None, Some(reason.clone())),
                        LinkVerdict::Undecided => {
                            let reason = "the way back failed first".into();
                            ("undecided", None, Some(reason))
                        }
                    },
                }
            }
        };
        Probe {
            verdict,
            round_us: round.map(|round| round.as_secs_f64() * 1e6),
            reason,
        }
    }
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
        let Link {
            device,
            peer,
            performance_rank,
            ..
        } = self;
        format!(
            "  {device} to {peer}: {access}, {atomics}, performance rank {performance_rank}; \
             direct: {}; host memory: {}; these two would use: {}",
            self.direct.text(),
            self.host_memory.text(),
            self.path
        )
    }
}

impl Probe {
    fn text(&self) -> String {
        match (self.round_us, &self.reason) {
            (Some(us), _) => format!("{}, {us:.1} us a round", self.verdict),
            (None, Some(reason)) => format!("{}, {reason}", self.verdict),
            (None, None) => self.verdict.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_what_was_tried_and_what_would_be_used() {
        let link = Link {
            device: 0,
            peer: 1,
            access: true,
            native_atomics: false,
            performance_rank: 0,
            direct: Probe {
                verdict: "bad",
                round_us: None,
                reason: Some("a flag overtook data".into()),
            },
            host_memory: Probe {
                verdict: "good",
                round_us: Some(5.25),
                reason: None,
            },
            path: ExchangePath::HostMemory.name(),
        };
        let text = link.text();
        for part in [
            "0 to 1: access, no native atomics",
            "direct: bad, a flag overtook data;",
            "host memory: good, 5.2 us a round",
            "would use: host-memory",
        ] {
            assert!(text.contains(part), "`{part}` is not in `{text}`");
        }
    }
}
