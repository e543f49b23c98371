//! The one error type of the crate.
//!
//! Every variant says what was found, what was expected, and names the tensor, argument or
//! device concerned, so that the message alone is enough to act on.

use crate::protocol::Operation;
use std::path::PathBuf;
use std::time::Duration;

/// Shorthand for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or mapped.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// A file is not what its name promises: a broken safetensors header, an index that is no
    /// JSON, a directory without a checkpoint.
    #[error("{}: {reason}", path.display())]
    InvalidFile {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it and what was expected.
        reason: String,
    },

    /// A tensor that an EXL3 linear needs is absent.
    #[error("{}: tensor `{tensor}` is missing: {reason}", path.display())]
    MissingTensor {
        /// The file in which it was expected.
        path: PathBuf,
        /// The absent tensor.
        tensor: String,
        /// Why it is needed.
        reason: String,
    },

    /// A tensor is present but has the wrong dtype, shape or value.
    #[error("{}: tensor `{tensor}`: found {found}, expected {expected}", path.display())]
    InvalidTensor {
        /// The file that holds it.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the file says.
        found: String,
        /// What the format demands.
        expected: String,
    },

    /// A linear or tensor was asked for that the checkpoint does not hold.
    #[error("no {kind} named `{name}` in this checkpoint; {hint}")]
    NotFound {
        /// "EXL3 linear" or "tensor".
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// What there is instead.
        hint: String,
    },

    /// A split of channels over ranks that cannot be.
    #[error("invalid split: found {found}, expected {expected}")]
    InvalidSplit {
        /// What was asked for.
        found: String,
        /// What would be accepted.
        expected: String,
    },

    /// An argument of a call has the wrong length, dtype, device or value.
    #[error("argument `{argument}`: found {found}, expected {expected}")]
    InvalidArgument {
        /// The argument's name in the called function.
        argument: &'static str,
        /// What was passed.
        found: String,
        /// What would be accepted.
        expected: String,
    },

    /// Two devices of a group cannot write into each other's memory.
    #[error(
        "devices {device} and {peer} have no peer-to-peer access ({reason}); \
         use devices that `trellink info` lists as linked, put the ranks on one device, or let them \
         exchange through host memory (ExchangePath::Auto)"
    )]
    PeerAccess {
        /// The CUDA ordinal that would write.
        device: usize,
        /// The CUDA ordinal that would be written to.
        peer: usize,
        /// What the driver answered.
        reason: String,
    },

    /// A probe has found that packets between two devices of a group do not arrive as they must.
    #[error(
        "the way of device {device} to {} failed its probe: {reason}; {}",
        probed_memory(*path, *peer),
        instead_of(*path)
    )]
    LinkProbe {
        /// The CUDA ordinal that wrote and loaded.
        device: usize,
        /// The CUDA ordinal whose memory it was, or that read in host memory what `device` wrote there.
        peer: usize,
        /// Through which memory: [`Direct`](crate::ExchangePath::Direct) or
        /// [`HostMemory`](crate::ExchangePath::HostMemory).
        path: crate::ExchangePath,
        /// What was seen.
        reason: String,
    },

    /// CUDA was asked for and cannot be used here.
    #[error("CUDA is not available: {reason}")]
    CudaUnavailable {
        /// Why: built without the feature, no driver, no device, no kernel for the device.
        reason: String,
    },

    /// A CUDA driver call failed.
    #[error("{call} failed with {name} ({code}): {description}")]
    Cuda {
        /// The driver function.
        call: &'static str,
        /// `CUresult` as a number.
        code: i32,
        /// `CUresult` by name.
        name: String,
        /// The driver's own explanation.
        description: String,
    },

    /// A peer's packets did not arrive before the group's deadline. The group has failed.
    ///
    /// A rank waits for all others, and packets of several may be missing: also of those that have called and
    /// are held up, say by kernels of other ranks on a device that they share. So who is named depends on who has
    /// begun the call:
    ///
    /// | `absent` | what it means |
    /// |---|---|
    /// | one rank | it has not called, or not in time; it is `peer`. Or its packets were lost, and it has called nothing since |
    /// | several ranks | none of them has; `peer` is one of them, and who was the cause cannot be told |
    /// | none | all have begun the call: packets of `peer` came too late, or not at all |
    #[error(
        "rank {rank} waited {waited:?} for packets of rank {peer} at epoch {epoch}, tile {tile} of {operation}; \
         {}; the group has failed, reset it on all ranks or build a new one",
        match absent.as_slice() {
            [] => "all ranks had begun the call, so they are late or lost".into(),
            absent => format!("rank{} {} had not begun the call", plural(absent), listed(absent)),
        }
    )]
    PeerTimeout {
        /// The rank that waited.
        rank: usize,
        /// A rank whose packets are missing.
        peer: usize,
        /// The ranks of which nothing shows, 50 ms after the failure, that they have begun the call, in order.
        absent: Vec<usize>,
        /// The exchange at which it happened.
        epoch: u32,
        /// How long it waited.
        waited: Duration,
        /// The call of `rank`.
        operation: Operation,
        /// Which 128 values of the exchange it waited for. For a layer a tile is 128 columns of a row; rows
        /// follow one another.
        tile: u32,
    },

    /// A peer made another call than this rank in the same place: another operation, layer, shape or dtype.
    /// The group has failed.
    #[error(
        "at epoch {epoch} rank {rank} called {own}, rank {peer} {}; \
         all ranks must call the same collectives in the same order",
        theirs.map_or("something else".into(), |theirs| theirs.to_string())
    )]
    Mismatch {
        /// The rank that noticed.
        rank: usize,
        /// The rank that called something else.
        peer: usize,
        /// The exchange at which it happened.
        epoch: u32,
        /// The call of `rank`.
        own: Operation,
        /// The call of `peer`, if it has told: unless its process was stopped, say.
        theirs: Option<Operation>,
    },

    /// A peer sent a packet of an exchange that this rank has not allowed yet: the ranks did not
    /// call the same operations in the same order. The group has failed.
    #[error(
        "rank {rank} is at epoch {epoch} but rank {peer} already sent epoch {found}; \
         all ranks must call the same collectives in the same order"
    )]
    PeerAhead {
        /// The rank that noticed.
        rank: usize,
        /// The rank that is ahead.
        peer: usize,
        /// The exchange that `rank` is in.
        epoch: u32,
        /// The epoch found in the packet.
        found: u32,
    },

    /// The process of a peer has ended, or closed its connection, without dropping its rank. The
    /// group has failed.
    #[error(
        "rank {rank} has lost the process of rank {peer}; \
         the group has failed, drop it and build a new one"
    )]
    PeerLost {
        /// The rank that noticed.
        rank: usize,
        /// The rank whose process has gone.
        peer: usize,
    },

    /// A group was not [reset](crate::Rank::reset) because not all ranks did so in time. It stays failed.
    #[error(
        "rank {rank} could not reset the group within {waited:?}: {}; let all ranks call reset",
        match missing.as_slice() {
            [] => "another rank gave up".into(),
            missing => format!("it waited for rank{} {}", plural(missing), listed(missing)),
        }
    )]
    ResetIncomplete {
        /// The rank that waited.
        rank: usize,
        /// The ranks that it waited for; none if another one gave up.
        missing: Vec<usize>,
        /// How long it waited.
        waited: Duration,
    },

    /// Ranks in other processes did not come before the rendezvous's deadline.
    #[error(
        "rank {rank} waited {waited:?} for rank{} {} in vain; \
         start all ranks, with the same rendezvous",
        plural(missing),
        listed(missing)
    )]
    RanksMissing {
        /// The rank that waited.
        rank: usize,
        /// The ranks that were not there.
        missing: Vec<usize>,
        /// How long it waited.
        waited: Duration,
    },

    /// Two processes want to be in one group but have built it differently.
    #[error(
        "rank {rank} has {setting} {own}, rank {peer} has {theirs}; \
         all ranks must build the group alike"
    )]
    SettingsDiffer {
        /// The rank that noticed.
        rank: usize,
        /// The rank that differs.
        peer: usize,
        /// In what.
        setting: &'static str,
        /// The value of `rank`.
        own: String,
        /// The value of `peer`.
        theirs: String,
    },

    /// A rank could not join those in other processes.
    #[error("rank {rank} could not join its group: {reason}")]
    Rendezvous {
        /// The rank.
        rank: usize,
        /// What happened.
        reason: String,
    },

    /// The group has failed and no rank says by what.
    #[error("the group has failed: {reason}; reset it on all ranks or build a new one")]
    GroupFailed {
        /// What is known.
        reason: String,
    },
}

fn probed_memory(path: crate::ExchangePath, peer: usize) -> String {
    match path {
        crate::ExchangePath::HostMemory => format!("device {peer} through host memory"),
        _ => format!("the memory of device {peer}"),
    }
}

fn instead_of(path: crate::ExchangePath) -> &'static str {
    match path {
        crate::ExchangePath::HostMemory => "use other devices, or put the ranks on one device",
        _ => "use other devices, or let them exchange through host memory (ExchangePath::Auto)",
    }
}

fn plural(ranks: &[usize]) -> &'static str {
    if ranks.len() == 1 {
        ""
    } else {
        "s"
    }
}

/// `1`, `1 and 2`, `1, 2 and 3`.
fn listed(ranks: &[usize]) -> String {
    let mut words: Vec<String> = ranks.iter().map(ToString::to_string).collect();
    let last = words.pop().unwrap_or_default();
    if words.is_empty() {
        last
    } else {
        format!("{} and {last}", words.join(", "))
    }
}

impl Error {
    pub(crate) fn argument(
        argument: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Error::InvalidArgument {
            argument,
            found: found.into(),
            expected: expected.into(),
        }
    }
}
