//! The back end that a test runs on, and how much of it to test.

use super::memory::{HostMemory, Memory};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use trellink::{Device, ExchangePath, Group, Rank};

/// How many cases a test with many of them runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// All: the default on GPUs.
    Full,
    /// Every pair of levels of two factors occurs: the default on the host.
    Pairwise,
    /// A few dozen that take every path of the kernels: for tools that slow programs down.
    Reduced,
}

impl Extent {
    /// What `TRELLINK_MATRIX` says.
    pub fn from_environment() -> Option<Self> {
        let given = std::env::var("TRELLINK_MATRIX").ok()?;
        Some(match given.as_str() {
            "full" => Extent::Full,
            "pairwise" => Extent::Pairwise,
            "reduced" => Extent::Reduced,
            other => panic!("TRELLINK_MATRIX={other}: expected full, pairwise or reduced"),
        })
    }
}

/// A back end.
pub struct Platform {
    /// CUDA devices to use; none on the host.
    ordinals: Vec<usize>,
    /// Kernels of two tests at the same time would take each other's SMs, and a rank's kernel must
    /// not wait for one that has none.
    _exclusive: Option<MutexGuard<'static, ()>>,
}

impl Platform {
    /// Ranks on the host.
    pub fn host() -> Self {
        Platform {
            ordinals: Vec::new(),
            _exclusive: None,
        }
    }

    /// Ranks on all GPUs of the machine. If there is none, `None` with a line that says why, or, where
    /// `TRELLINK_REQUIRE_CUDA` is set, a panic.
    #[cfg(feature = "cuda")]
    pub fn cuda(test: &str) -> Option<Self> {
        static EXCLUSIVE: Mutex<()> = Mutex::new(());
        let exclusive = EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = match found_devices() {
            Ok(devices) => devices,
            Err(reason) => {
                let required = std::env::var_os("TRELLINK_REQUIRE_CUDA");
                assert!(
                    required.is_none(),
                    "TRELLINK_REQUIRE_CUDA is set, but {reason}"
                );
                super::say!("{test}: skipped, {reason}");
                return None;
            }
        };
        let names: Vec<String> = devices
            .iter()
            .map(|device| format!("{} (cuda:{})", device.name, device.ordinal))
            .collect();
        super::say!("{test}: on {}", names.join(", "));
        let ordinals: Vec<usize> = devices.iter().map(|device| device.ordinal).collect();
        keep_contexts(&ordinals);
        Some(Platform {
            ordinals,
            _exclusive: Some(exclusive),
        })
    }

    /// The same GPUs for a process that is one rank: with the context of that rank's device alone.
    #[cfg(feature = "cuda")]
    pub fn cuda_of_rank(rank: usize) -> Self {
        let devices = found_devices().unwrap_or_else(|reason| panic!("{reason}"));
        let ordinals: Vec<usize> = devices.iter().map(|device| device.ordinal).collect();
        keep_contexts(&ordinals[rank % ordinals.len()..][..1]);
        Platform {
            ordinals,
            _exclusive: None,
        }
    }

    pub fn is_host(&self) -> bool {
        self.ordinals.is_empty()
    }

    pub fn extent(&self) -> Extent {
        Extent::from_environment().unwrap_or(if self.is_host() {
            Extent::Pairwise
        } else {
            Extent::Full
        })
    }

    /// Which way packets take between GPUs: what `TRELLINK_PATH` says, else what the library chooses.
    pub fn path(&self) -> ExchangePath {
        let given = std::env::var("TRELLINK_PATH").unwrap_or_else(|_| "auto".into());
        let path = given.parse();
        path.unwrap_or_else(|error| panic!("TRELLINK_PATH: {error}"))
    }

    /// Where the ranks of a group run: dealt out to the GPUs, which they share if they are more.
    pub fn devices_for(&self, world: usize) -> Vec<Device> {
        (0..world)
            .map(|rank| match self.ordinals.as_slice() {
                [] => Device::Host,
                ordinals => Device::Cuda(ordinals[rank % ordinals.len()]),
            })
            .collect()
    }

    /// A group with a deadline that no working group meets, whatever else the machine does.
    pub fn group(&self, world: usize) -> Group {
        self.group_on(self.devices_for(world))
    }

    /// The same on given devices.
    pub fn group_on(&self, devices: Vec<Device>) -> Group {
        Group::new(devices)
            .slot_values(1 << 16)
            .timeout(Duration::from_secs(60))
            .path(self.path())
    }

    /// Memory that is in use on all GPUs, whoever uses it; 0 on the host.
    pub fn device_mib(&self) -> usize {
        #[cfg(feature = "cuda")]
        let used = |&ordinal: &usize| {
            let context = cudarc::driver::CudaContext::new(ordinal).unwrap();
            let (free, total) = context.mem_get_info().unwrap();
            (total - free) >> 20
        };
        #[cfg(not(feature = "cuda"))]
        let used = |_: &usize| 0;
        self.ordinals.iter().map(used).sum()
    }

    /// Memory for a rank.
    pub fn memory(&self, rank: &Rank) -> Box<dyn Memory> {
        match rank.device() {
            Device::Host => Box::new(HostMemory),
            #[cfg(feature = "cuda")]
            Device::Cuda(ordinal) => Box::new(super::memory::DeviceMemory::new(ordinal)),
            #[cfg(not(feature = "cuda"))]
            device => panic!("no memory on {device} without the `cuda` feature"),
        }
    }
}

/// All GPUs of the machine, or why there is none.
#[cfg(feature = "cuda")]
fn found_devices() -> Result<Vec<trellink::cuda::DeviceInfo>, String> {
    let devices = trellink::cuda::devices().map_err(|error| error.to_string())?;
    if devices.is_empty() {
        return Err("the driver shows no device".to_owned());
    }
    // Each rank has two streams. Streams that share a hardware queue wait for one another, and there are 8 queues
    // by default. The driver reads this when it starts; other threads read the environment as well, so that it
    // cannot be set here.
    let queues = std::env::var("CUDA_DEVICE_MAX_CONNECTIONS");
    let queues = queues.ok().and_then(|queues| queues.parse().ok());
    assert!(
        queues.is_some_and(|queues: u32| queues >= 32),
        "set CUDA_DEVICE_MAX_CONNECTIONS to 32, as cargo does here (.cargo/config.toml)"
    );
    Ok(devices)
}

/// Holds the devices' contexts until the program ends. One that nobody holds is made anew for every group,
/// which takes longer than the tests.
#[cfg(feature = "cuda")]
fn keep_contexts(ordinals: &[usize]) {
    use cudarc::driver::CudaContext;
    use std::sync::{Arc, OnceLock};
    static CONTEXTS: OnceLock<Vec<Arc<CudaContext>>> = OnceLock::new();
    let context = |&ordinal| CudaContext::new(ordinal).expect("a device that was found");
    CONTEXTS.get_or_init(|| ordinals.iter().map(context).collect());
}
