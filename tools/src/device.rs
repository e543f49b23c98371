//! Where the ranks run: what was asked for, what there is, and why one was taken.

use anyhow::Result;
use clap::ValueEnum;
use trellink::{Device, ExchangePath};

/// The value of `--device`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Choice {
    /// CUDA if there is a device that can be used, else the host
    #[default]
    Auto,
    /// The CPU
    Host,
    /// CUDA devices; rank r runs on device r modulo their number
    Cuda,
}

/// The place of all ranks.
#[derive(Clone, Debug)]
pub struct Place {
    /// One, or several CUDA devices; names for a reader in `names`.
    pub devices: Vec<Device>,
    /// A name for each device.
    pub names: Vec<String>,
    /// Why this one.
    pub why: String,
    /// The way that packets take between several devices.
    pub path: Option<Path>,
}

/// The way that packets take.
#[derive(Clone, Debug)]
pub struct Path {
    /// Never `Auto`.
    pub path: ExchangePath,
    /// Why this one.
    pub why: String,
}

impl Place {
    /// The devices of `world` ranks, in rank order.
    pub fn of_ranks(&self, world: usize) -> Vec<Device> {
        self.devices.iter().copied().cycle().take(world).collect()
    }

    /// The value of `--device` for a process whose ranks are to run here: what was chosen is not chosen
    /// again.
    pub fn argument(&self) -> &'static str {
        if self.is_host() {
            "host"
        } else {
            "cuda"
        }
    }

    /// The device of one rank alone.
    pub fn of_rank(&self, rank: usize) -> Place {
        let at = rank % self.devices.len();
        Place {
            devices: vec![self.devices[at]],
            names: vec![self.names[at].clone()],
            ..self.clone()
        }
    }

    /// Whether the ranks run on the host.
    pub fn is_host(&self) -> bool {
        self.devices.contains(&Device::Host)
    }

    /// The devices that `world` ranks use, for a reader.
    pub fn describe(&self, world: usize) -> String {
        let used = self.devices.iter().zip(&self.names).take(world);
        let used: Vec<String> = used
            .map(|(device, name)| format!("{device} ({name})"))
            .collect();
        used.join(", ")
    }
}

/// The place that `choice` stands for on this machine, where packets may take this path.
///
/// # Errors
/// [`trellink::Error::CudaUnavailable`] if CUDA was asked for and there is no device that works;
/// [`trellink::Error::PeerAccess`] and [`trellink::Error::LinkProbe`] where no such path does.
pub fn choose(choice: Choice, path: ExchangePath) -> Result<Place> {
    choose_with(choice, Some(path))
}

/// [`choose`] for the process of one rank: its parent has tried the links, and processes that all try
/// them at the same time would disturb one another.
pub fn choose_untried(choice: Choice) -> Result<Place> {
    choose_with(choice, None)
}

fn choose_with(choice: Choice, path: Option<ExchangePath>) -> Result<Place> {
    match choice {
        Choice::Host => Ok(host("it was asked for".into())),
        Choice::Cuda => Ok(cuda("it was asked for", path)?),
        Choice::Auto => match cuda("there is a device that works", path) {
            Ok(place) => Ok(place),
            Err(error) if path.is_none_or(|path| path == ExchangePath::Auto) => {
                Ok(host(error.to_string()))
            }
            Err(error @ trellink::Error::CudaUnavailable { .. }) => Ok(host(error.to_string())),
            Err(error) => Err(error.into()),
        },
    }
}

fn host(why: String) -> Place {
    let sets = instruction_sets();
    let widest = sets.last().copied().unwrap_or("unknown");
    Place {
        devices: vec![Device::Host],
        names: vec![widest.into()],
        why,
        path: None,
    }
}

/// The instruction sets of this machine for which the library has kernels, narrowest first; the
/// last one is used.
pub fn instruction_sets() -> Vec<&'static str> {
    use trellink::format::{Bits, Codebook, GROUP};
    let smallest = crate::random::RandomLinear::new(GROUP, GROUP, Bits::ALL[0], Codebook::Mul1);
    let Ok(linear) = smallest.view() else {
        return Vec::new();
    };
    let decoded = trellink::host::probe::decode_by_every_variant(&linear);
    decoded.into_iter().map(|(name, _)| name).collect()
}

#[cfg(not(feature = "cuda"))]
fn cuda(_why: &str, _path: Option<ExchangePath>) -> trellink::Result<Place> {
    Err(trellink::Error::CudaUnavailable {
        reason: "this program was built without the `cuda` feature; rebuild it with \
                 `--features cuda`"
            .into(),
    })
}

#[cfg(feature = "cuda")]
fn cuda(why: &str, path: Option<ExchangePath>) -> trellink::Result<Place> {
    let (mut usable, mut refused) = (Vec::new(), Vec::new());
    for info in trellink::cuda::devices()? {
        match works(info.ordinal) {
            Ok(()) => usable.push(info),
            Err(error) => refused.push(format!("device {}: {error}", info.ordinal)),
        }
    }
    if usable.is_empty() {
        let none = "the driver shows no device".to_owned();
        let reason = if refused.is_empty() {
            none
        } else {
            refused.join("; ")
        };
        return Err(trellink::Error::CudaUnavailable { reason });
    }
    usable.truncate(trellink::MAX_WORLD);
    let mut place = Place {
        devices: usable
            .iter()
            .map(|info| Device::Cuda(info.ordinal))
            .collect(),
        names: usable.into_iter().map(|info| info.name).collect(),
        why: why.to_owned(),
        path: None,
    };
    if let Some(path) = path.filter(|_| place.devices.len() > 1) {
        let ranks = small_group(place.devices.clone()).path(path).build()?;
        let (path, why) = (ranks[0].path(), ranks[0].path_reason().to_owned());
        place.why += &format!("; packets take the path {path}, because {why}");
        place.path = Some(Path { path, why });
    }
    Ok(place)
}

/// Whether a group can be built there: the driver, the memory and the kernels are what it takes.
#[cfg(feature = "cuda")]
fn works(ordinal: usize) -> trellink::Result<()> {
    small_group(vec![Device::Cuda(ordinal)]).build().map(drop)
}

#[cfg(feature = "cuda")]
fn small_group(devices: Vec<Device>) -> trellink::Group {
    trellink::Group::new(devices).slot_values(trellink::format::GROUP)
}
