//! Which devices can reach each other's memory.

use super::driver::{self, check};
use crate::{Error, Result};
use cudarc::driver::sys;

/// What the driver says of one ordered pair of devices.
#[derive(Clone, Debug)]
pub struct Link {
    /// Ordinal of the device that reads and writes.
    pub device: usize,
    /// Ordinal of the device whose memory it is.
    pub peer: usize,
    /// Whether kernels of `device` may access memory of `peer`.
    pub access: bool,
    /// The driver's relative rank of the link, 0 the fastest.
    pub performance_rank: i32,
    /// Whether atomics over the link are native (true over NVLink, as a rule not over PCIe).
    pub native_atomics: bool,
}

/// The driver's verdict on every ordered pair of distinct devices among `ordinals`.
///
/// # Errors
/// [`Error::CudaUnavailable`] without driver or device, [`Error::Cuda`].
pub fn links(ordinals: &[usize]) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    for &device in ordinals {
        for &peer in ordinals {
            if device != peer {
                links.push(link(device, peer)?);
            }
        }
    }
    Ok(links)
}

fn link(device: usize, peer: usize) -> Result<Link> {
    let (from, to) = (driver::device(device)?, driver::device(peer)?);
    let mut access = 0;
    // SAFETY: `access` is a valid place for the result, both handles are devices.
    let status = unsafe { sys::cuDeviceCanAccessPeer(&mut access, from, to) };
    check(status, "cuDeviceCanAccessPeer")?;
    use sys::CUdevice_P2PAttribute as P2p;
    let get = |attribute| -> Result<i32> {
        let mut value = 0;
        // SAFETY: as above.
        let status = unsafe { sys::cuDeviceGetP2PAttribute(&mut value, attribute, from, to) };
        check(status, "cuDeviceGetP2PAttribute")?;
        Ok(value)
    };
    Ok(Link {
        device,
        peer,
        access: access != 0,
        performance_rank: get(P2p::CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK)?,
        native_atomics: get(P2p::CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED)? != 0,
    })
}

/// Fails with [`Error::PeerAccess`] at the first pair that cannot.
pub(crate) fn require_access(ordinals: &[usize]) -> Result<()> {
    links(ordinals)?.iter().try_for_each(require)
}

/// The same for one device and the memory of others.
#[cfg(target_os = "linux")]
pub(crate) fn require_access_from(device: usize, peers: &[usize]) -> Result<()> {
    let others = peers.iter().filter(|peer| **peer != device);
    others
        .copied()
        .try_for_each(|peer| require(&link(device, peer)?))
}

fn require(link: &Link) -> Result<()> {
    if link.access {
        return Ok(());
    }
    Err(Error::PeerAccess {
        device: link.device,
        peer: link.peer,
        reason: "cuDeviceCanAccessPeer answered no".into(),
    })
}
