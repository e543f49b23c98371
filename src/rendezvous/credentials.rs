//! Who is at the other end of a socket.

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io;
use rustix::process::{geteuid, pidfd_open, Pid, PidfdFlags};

/// The process that connected or listens, as the kernel noted it then.
pub(super) struct Peer {
    uid: u32,
    pid: i32,
}

impl Peer {
    /// The peer of a connected socket.
    pub(super) fn of(socket: impl AsFd) -> io::Result<Self> {
        // Not rustix's: its process number cannot be 0, which is what the kernel answers for a
        // process of a namespace that is not visible from here, such as another container's.
        let mut credentials = libc::ucred {
            pid: 0,
            uid: u32::MAX,
            gid: u32::MAX,
        };
        let mut bytes = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the descriptor is open while it is borrowed; the kernel writes at most `bytes`
        // bytes of `credentials`, a struct of integers.
        let status = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                std::ptr::from_mut(&mut credentials).cast(),
                &mut bytes,
            )
        };
        if status != 0 {
            let error = std::io::Error::last_os_error();
            return Err(io::Errno::from_io_error(&error).unwrap_or(io::Errno::IO));
        }
        Ok(Peer {
            uid: credentials.uid,
            pid: credentials.pid,
        })
    }

    /// Whether it runs for the user that this process runs for.
    pub(super) fn is_same_user(&self) -> bool {
        self.uid == geteuid().as_raw()
    }

    /// A descriptor that becomes readable when the process ends, where it is visible from here.
    pub(super) fn process(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        pidfd_open(pid, PidfdFlags::empty()).ok()
    }
}
