//! Where the ranks of a group find one another.
//!
//! What must stay true: an address belongs to one process at a time, and only processes of the same
//! user can use it. In a directory that no other user may enter a lock says whose rank it is, and
//! what a process that died has left behind is in nobody's way: the kernel releases its lock. Names
//! of abstract sockets are for one meeting only; whoever connects is asked for its user.

use super::message::{Address, Hello, Message};
use super::socket::Listener;
use super::Exchange;
use crate::{Error, Result};
use rustix::fs::{flock, FlockOperation};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where a rank listens, and the addresses of all.
pub(super) struct Home {
    pub(super) listener: Listener,
    /// By rank.
    pub(super) addresses: Vec<SocketAddrUnix>,
    /// Given back when the meeting is over.
    _claim: Option<Claim>,
}

impl Home {
    /// Takes the place of a rank in a directory.
    pub(super) fn in_directory(directory: &Path, own: &Hello) -> Result<Self> {
        make_private(directory)?;
        let claim = Claim::new(directory, own.rank)?;
        let at = |rank| {
            let path = socket_path(directory, rank);
            SocketAddrUnix::new(&path).map_err(|errno| io_error(&path, errno))
        };
        let addresses = (0..own.world).map(at).collect::<Result<Vec<_>>>()?;
        let address = &addresses[usize::from(own.rank)];
        let path = &claim.socket;
        let listener = Listener::bind(address).map_err(|errno| io_error(path, errno))?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|e| io(path, e))?;
        listener.listen().map_err(|errno| io_error(path, errno))?;
        Ok(Home {
            listener,
            addresses,
            _claim: Some(claim),
        })
    }

    /// Listens under a name of its own and lets the caller's exchange tell the others.
    pub(super) fn by_exchange(exchange: &Exchange, own: &Hello) -> Result<Self> {
        let name = unique_name(own.rank);
        let failed = |errno: Errno| failed(own, format!("its socket: {errno}"));
        let address = SocketAddrUnix::new_abstract_name(&name).map_err(failed)?;
        let listener = Listener::bind(&address).map_err(failed)?;
        // Before the others learn the name, so that nobody finds the door shut.
        listener.listen().map_err(failed)?;
        let (rank, world) = (own.rank, own.world);
        let told = exchange(&Message::Address(Address { rank, world, name }).encode());
        let told = told.map_err(|e| self::failed(own, format!("the exchange of bytes: {e}")))?;
        Ok(Home {
            listener,
            addresses: addresses(own, &told)?,
            _claim: None,
        })
    }
}

/// The addresses in what the ranks told, in rank order.
fn addresses(own: &Hello, told: &[Vec<u8>]) -> Result<Vec<SocketAddrUnix>> {
    if told.len() != usize::from(own.world) {
        let reason = format!(
            "the exchange of bytes gave {} messages for {} ranks",
            told.len(),
            own.world
        );
        return Err(failed(own, reason));
    }
    let address = |(rank, bytes): (usize, &Vec<u8>)| {
        let problem = |problem: String| {
            failed(
                own,
                format!("the exchange of bytes: of rank {rank}, {problem}"),
            )
        };
        let address = match Message::decode(bytes) {
            Ok(Message::Address(address)) => address,
            Ok(_) => return Err(problem("it is no address".into())),
            Err(malformed) => return Err(problem(malformed.to_string())),
        };
        if usize::from(address.rank) != rank || address.world != own.world {
            return Err(problem(format!(
                "it is the address of rank {} of {}",
                address.rank, address.world
            )));
        }
        SocketAddrUnix::new_abstract_name(&address.name).map_err(|e| problem(e.to_string()))
    };
    told.iter().enumerate().map(address).collect()
}

/// A name that no other meeting of this machine has.
fn unique_name(rank: u8) -> Vec<u8> {
    // The hasher's keys are random for each process and differ from call to call.
    let random = RandomState::new().hash_one(rank);
    format!("trellink-{}-{random:016x}-{rank}", std::process::id()).into_bytes()
}

/// The right to be a rank in a directory.
struct Claim {
    socket: PathBuf,
    lock: PathBuf,
    /// Locked while it is open.
    _file: File,
}

impl Claim {
    fn new(directory: &Path, rank: u8) -> Result<Self> {
        let lock = directory.join(format!("rank-{rank}.lock"));
        let file = lock_file(&lock, rank)?;
        let claim = Claim {
            socket: socket_path(directory, rank),
            lock,
            _file: file,
        };
        // Whoever made it held the lock, and does so no more.
        match fs::remove_file(&claim.socket) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(&claim.socket, e)),
            _ => Ok(claim),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What cannot be removed is in nobody's way. The lock goes last: it vouches for the rest.
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(&self.lock);
    }
}

fn lock_file(path: &Path, rank: u8) -> Result<File> {
    loop {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(|e| io(path, e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::Rendezvous {
                    rank: rank.into(),
                    reason: format!(
                        "another process is this rank ({} is locked)",
                        path.display()
                    ),
                });
            }
            Err(errno) => return Err(io_error(path, errno)),
        }
        // The one who had it may have removed the file between our opening and locking it; then
        // the lock is on a file that nobody else will find.
        let (ours, there) = (file.metadata().map_err(|e| io(path, e))?, path.metadata());
        if there.is_ok_and(|there| there.ino() == ours.ino()) {
            return Ok(file);
        }
    }
}

/// Makes the directory, or checks that no other user may enter the one that is there.
fn make_private(directory: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(io(directory, e)),
    }
    // Not through a link: whoever may change the link chooses the directory.
    let found = fs::symlink_metadata(directory).map_err(|e| io(directory, e))?;
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() || found.uid() != own || found.mode() & 0o077 != 0 {
        return Err(Error::InvalidFile {
            path: directory.to_owned(),
            reason: format!(
                "found mode {:o} of user {}, expected a directory of user {own} that nobody else \
                 may enter (mode 700)",
                found.mode() & 0o7777,
                found.uid()
            ),
        });
    }
    Ok(())
}

fn socket_path(directory: &Path, rank: u8) -> PathBuf {
    directory.join(format!("rank-{rank}"))
}

fn failed(own: &Hello, reason: String) -> Error {
    Error::Rendezvous {
        rank: own.rank.into(),
        reason,
    }
}

fn io_error(path: &Path, errno: Errno) -> Error {
    io(path, errno.into())
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::DeviceKind;
    use super::*;

    fn hello(rank: u8) -> Hello {
        Hello {
            rank,
            world: 2,
            kind: DeviceKind::Host,
            device: [0; 16],
            slot_values: 128,
            first_epoch: 1,
            scrub_period: 2,
            path: crate::ExchangePath::Auto,
            probe_links: true,
        }
    }

    #[test]
    fn a_rank_is_one_processes_and_free_again_when_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("meeting");
        let first = Home::in_directory(&directory, &hello(1)).unwrap();
        let socket = fs::metadata(socket_path(&directory, 1)).unwrap();
        assert_eq!(socket.mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);

        let second = Home::in_directory(&directory, &hello(1));
        let told = second.err().unwrap().to_string();
        assert!(told.contains("another process is this rank"), "{told}");
        Home::in_directory(&directory, &hello(0)).unwrap();

        drop(first);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        Home::in_directory(&directory, &hello(1)).unwrap();
    }

    #[test]
    fn what_a_dead_process_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("meeting");
        make_private(&directory).unwrap();
        fs::write(directory.join("rank-0.lock"), "").unwrap();
        let address = SocketAddrUnix::new(socket_path(&directory, 0)).unwrap();
        drop(Listener::bind(&address).unwrap());
        Home::in_directory(&directory, &hello(0)).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_enter_or_choose_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        let link = folder.path().join("link");
        let private = folder.path().join("private");
        make_private(&private).unwrap();
        std::os::unix::fs::symlink(&private, &link).unwrap();
        for path in [open, link] {
            let refused = Home::in_directory(&path, &hello(0));
            assert!(matches!(refused, Err(Error::InvalidFile { .. })));
        }
    }

    #[test]
    fn exchanges_that_mix_something_up_are_refused() {
        let address = |rank, world| {
            let name = b"x".to_vec();
            Message::Address(Address { rank, world, name }).encode()
        };
        let good = address(0, 2);
        for told in [
            vec![good.clone()],
            vec![good.clone(), good.clone()],
            vec![good.clone(), address(1, 3)],
            vec![good.clone(), Message::Ready.encode()],
            vec![good.clone(), b"garbage".to_vec()],
            vec![good.clone(), Vec::new()],
        ] {
            let refused = addresses(&hello(0), &told);
            assert!(matches!(refused, Err(Error::Rendezvous { rank: 0, .. })));
        }
        assert!(addresses(&hello(0), &[good, address(1, 2)]).is_ok());
    }
}
