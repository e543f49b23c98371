//! Which way packets take between ranks on GPUs, and why that one.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Where the memory is into which ranks on GPUs send their packets.
///
/// The protocol, the kernels and the bits of the results are the same either way. What both ways must
/// give is that 8 bytes at a multiple of 8 arrive as they were written, never a part of them without the
/// rest, and that what was written before a fence is there when what was written after it is.
///
/// Ranks on the host have but one way; the option is accepted there and changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum ExchangePath {
    /// [`Direct`](Self::Direct) if every ordered pair of devices has peer access and passes its probe, else
    /// [`HostMemory`](Self::HostMemory) for the whole group. [`Rank::path_reason`](crate::Rank::path_reason)
    /// says why.
    #[default]
    Auto,
    /// A peer's own memory, over NVLink or PCIe.
    Direct,
    /// Page-locked memory of the host, which every device reaches over its own link to it: no peer access is
    /// needed. Right, but slow: packets cross PCIe twice, and what a rank waits for it polls over PCIe.
    /// The arenas then take host memory instead of the devices'.
    HostMemory,
}

impl ExchangePath {
    const ALL: [ExchangePath; 3] = [
        ExchangePath::Auto,
        ExchangePath::Direct,
        ExchangePath::HostMemory,
    ];

    /// The name in arguments and messages: `auto`, `direct`, `host-memory`.
    pub fn name(self) -> &'static str {
        match self {
            ExchangePath::Auto => "auto",
            ExchangePath::Direct => "direct",
            ExchangePath::HostMemory => "host-memory",
        }
    }

    /// Why a group with this option goes through host memory, given what is in the direct path's way.
    ///
    /// # Errors
    /// The obstacle, if the option does not allow that, or if host memory would not help.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn detour(self, obstacle: Error) -> Result<String> {
        match (self, obstacle) {
            (
                ExchangePath::Auto,
                Error::PeerAccess {
                    device,
                    peer,
                    reason,
                },
            ) => Ok(format!(
                "devices {device} and {peer} have no peer-to-peer access: {reason}"
            )),
            (
                ExchangePath::Auto,
                Error::LinkProbe {
                    device,
                    peer,
                    reason,
                    ..
                },
            ) => Ok(format!(
                "the way of device {device} to the memory of device {peer} failed its probe: {reason}"
            )),
            (_, obstacle) => Err(obstacle),
        }
    }
}

impl fmt::Display for ExchangePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ExchangePath {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let mut all = ExchangePath::ALL.into_iter();
        all.find(|path| path.name() == name).ok_or_else(|| {
            let expected = ExchangePath::ALL.map(ExchangePath::name).join(", ");
            Error::argument("path", name, format!("one of {expected}"))
        })
    }
}

/// The path that a group has taken, never `Auto`, and why.
#[cfg(feature = "cuda")]
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) path: ExchangePath,
    pub(crate) reason: String,
}

#[cfg(feature = "cuda")]
impl Route {
    pub(crate) fn direct(reason: impl Into<String>) -> Self {
        let (path, reason) = (ExchangePath::Direct, reason.into());
        Route { path, reason }
    }

    pub(crate) fn host_memory(reason: impl Into<String>) -> Self {
        let (path, reason) = (ExchangePath::HostMemory, reason.into());
        Route { path, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_access() -> Error {
        Error::PeerAccess {
            device: 1,
            peer: 0,
            reason: "the driver said no".into(),
        }
    }

    fn failed_probe() -> Error {
        Error::LinkProbe {
            device: 2,
            peer: 3,
            path: ExchangePath::Direct,
            reason: "a torn packet".into(),
        }
    }

    #[test]
    fn only_auto_goes_round_a_bad_link_and_says_which() {
        let reason = ExchangePath::Auto.detour(no_access()).unwrap();
        assert!(reason.contains("1 and 0") && reason.contains("the driver said no"));
        let reason = ExchangePath::Auto.detour(failed_probe()).unwrap();
        assert!(reason.contains("device 2") && reason.contains("a torn packet"));
        let refused = ExchangePath::Direct.detour(no_access());
        assert!(matches!(refused, Err(Error::PeerAccess { peer: 0, .. })));
        let refused = ExchangePath::Direct.detour(failed_probe());
        assert!(matches!(refused, Err(Error::LinkProbe { peer: 3, .. })));
    }

    #[test]
    fn other_errors_are_no_reason_for_host_memory() {
        let error = Error::CudaUnavailable {
            reason: "no driver".into(),
        };
        let refused = ExchangePath::Auto.detour(error);
        assert!(matches!(refused, Err(Error::CudaUnavailable { .. })));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for path in ExchangePath::ALL {
            assert_eq!(path.to_string().parse::<ExchangePath>().unwrap(), path);
        }
        let names = ExchangePath::ALL.map(ExchangePath::name);
        assert_eq!(names, ["auto", "direct", "host-memory"]);
        let error = "pcie".parse::<ExchangePath>().unwrap_err();
        assert!(error.to_string().contains("host-memory"), "{error}");
    }
}
