//! Sockets that carry whole messages, with a file descriptor if need be.
//!
//! What must stay true: nothing here waits, except in [`poll`]. The sockets are of type `SEQPACKET`:
//! a message arrives whole or not at all, so a peer that stops in the middle of one holds up
//! nobody, and the receiver needs no more memory than one message.

use super::message::{Malformed, Message, MAX_BYTES};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{self, Errno, IoSlice, IoSliceMut};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::mem::MaybeUninit;
use std::time::Duration;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 64;

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

/// What a look at a socket finds.
#[derive(Debug)]
pub(super) enum Received {
    /// No message yet.
    Nothing,
    /// The peer has closed its end, or its process has.
    Closed,
    /// A message, with the descriptor that came with it.
    Message(Message, Option<OwnedFd>),
    /// Bytes that are no message.
    Malformed(Malformed),
}

impl Socket {
    /// A connection to whoever listens there.
    pub(super) fn connect(address: &SocketAddrUnix) -> io::Result<Self> {
        let socket = new_socket()?;
        net::connect(&socket, address)?;
        Ok(Socket(socket))
    }

    /// Sends a message. Links carry a handful of small ones, so there is always room.
    pub(super) fn send(&self, message: &Message, handle: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = message.encode();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if let Some(handle) = &handle {
            let fits = ancillary.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(
                handle,
            )));
            debug_assert!(fits, "the space is for one descriptor");
        }
        // Without NOSIGNAL a peer that is gone would end this process.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let parts = [IoSlice::new(&bytes)];
        io::retry_on_intr(|| net::sendmsg(&self.0, &parts, &mut ancillary, flags)).map(drop)
    }

    /// Takes the next message, if there is one.
    pub(super) fn receive(&self) -> io::Result<Received> {
        let mut bytes = [0; MAX_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        // Closes on drop what nobody takes, and the kernel what finds no room.
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        // TRUNC: the length is that of the message, also if the buffer is shorter.
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let found = match net::recvmsg(&self.0, &mut parts, &mut ancillary, flags) {
            Ok(received) => received.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Received::Closed),
            Err(error) => return Err(error),
        };
        let handle = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut handles) => handles.next(),
            _ => None,
        });
        if found == 0 {
            return Ok(Received::Closed);
        }
        let Some(bytes) = bytes.get(..found) else {
            let expected = MAX_BYTES;
            return Ok(Received::Malformed(Malformed::Length { found, expected }));
        };
        Ok(match Message::decode(bytes) {
            Ok(message) => Received::Message(message, handle),
            Err(malformed) => Received::Malformed(malformed),
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A socket that others connect to.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

impl Listener {
    /// Takes the address. Nobody can connect before [`listen`](Self::listen).
    pub(super) fn bind(address: &SocketAddrUnix) -> io::Result<Self> {
        let socket = new_socket()?;
        net::bind(&socket, address)?;
        Ok(Listener(socket))
    }

    pub(super) fn listen(&self) -> io::Result<()> {
        net::listen(&self.0, BACKLOG)
    }

    /// The next connection, if there is one.
    pub(super) fn accept(&self) -> io::Result<Option<Socket>> {
        match net::accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => Ok(Some(Socket(socket))),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// What [`poll`] found, in the order of its arguments.
pub(super) struct Polled {
    /// Something can be read, or the other end is closed.
    pub(super) readable: Vec<bool>,
    /// The other end is closed; there may still be something to read.
    pub(super) closed: Vec<bool>,
}

/// Waits until there is something to read from one of `readable` or one of `closed` is closed, but no
/// longer than `limit`.
pub(super) fn poll(
    readable: &[BorrowedFd<'_>],
    closed: &[BorrowedFd<'_>],
    limit: Option<Duration>,
) -> io::Result<Polled> {
    let readable_count = readable.len();
    let readable = readable.iter().map(|handle| (handle, PollFlags::IN));
    // Hang-ups and errors are told of without being asked for.
    let closed = closed.iter().map(|handle| (handle, PollFlags::empty()));
    let mut polled: Vec<PollFd<'_>> = readable
        .chain(closed)
        .map(|(handle, flags)| PollFd::from_borrowed_fd(*handle, flags))
        .collect();
    let limit = limit.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    match rustix::event::poll(&mut polled, limit.as_ref()) {
        // A signal is for the caller's loop: nothing has come yet.
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    let mut found: Vec<bool> = polled.iter().map(|p| !p.revents().is_empty()).collect();
    let closed = found.split_off(readable_count);
    Ok(Polled {
        readable: found,
        closed,
    })
}
