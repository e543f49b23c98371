//! The connections of one rank to all others, once they have met.
//!
//! What must stay true: a rank sends what the others wait for before it waits for them, so waits end
//! as soon as the slowest rank is there, and with an error when one is gone or the time is up.

use super::message::{Hello, Message, Refusal, Share, Shared};
use super::shared_memory::SharedMemory;
use super::socket::{poll, Received, Socket};
use crate::board::BOARD_BYTES;
use crate::{Error, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) hello: Hello,
    pub(super) socket: Socket,
    /// Readable when the peer's process has ended: a child of it may keep the socket open.
    pub(super) process: Option<OwnedFd>,
}

/// A rank's connections.
#[derive(Debug)]
pub(crate) struct Links {
    own: Hello,
    /// By rank; none to itself.
    peers: Vec<Option<Link>>,
    started: Instant,
    timeout: Duration,
}

impl Links {
    pub(super) fn new(own: Hello, timeout: Duration) -> Self {
        Links {
            own,
            peers: (0..own.world).map(|_| None).collect(),
            started: Instant::now(),
            timeout,
        }
    }

    /// This rank.
    pub(crate) fn rank(&self) -> usize {
        self.own.rank.into()
    }

    /// Ranks of the group.
    pub(crate) fn world(&self) -> usize {
        self.own.world.into()
    }

    /// What a rank has said of itself.
    ///
    /// # Panics
    /// Before the ranks have met, or beyond the world.
    #[cfg(feature = "cuda")]
    pub(crate) fn hello(&self, rank: usize) -> &Hello {
        if rank == self.rank() {
            return &self.own;
        }
        let link = self.peers[rank].as_ref();
        &link.expect("the ranks have met").hello
    }

    pub(super) fn own(&self) -> &Hello {
        &self.own
    }

    pub(super) fn add(&mut self, link: Link) {
        let rank = usize::from(link.hello.rank);
        self.peers[rank] = Some(link);
    }

    pub(super) fn has(&self, rank: usize) -> bool {
        self.peers.get(rank).is_some_and(Option::is_some)
    }

    /// The links that there are, with the ranks they lead to.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Link)> {
        let links = self.peers.iter().enumerate();
        links.filter_map(|(rank, link)| Some((rank, link.as_ref()?)))
    }

    /// The ranks without a link, but for this one.
    pub(super) fn missing(&self) -> Vec<usize> {
        let absent = |rank: &usize| *rank != self.rank() && !self.has(*rank);
        (0..self.world()).filter(absent).collect()
    }

    /// The time that is left, or the error that it is over.
    pub(super) fn time_left(&self, missing: impl FnOnce() -> Vec<usize>) -> Result<Duration> {
        let waited = self.started.elapsed();
        match self.timeout.checked_sub(waited) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(Error::RanksMissing {
                rank: self.rank(),
                missing: missing(),
                waited,
            }),
        }
    }

    /// An error of this rank.
    pub(super) fn failed(&self, reason: String) -> Error {
        let rank = self.rank();
        Error::Rendezvous { rank, reason }
    }

    /// The page for the group's failures, made by rank 0 and sent to all.
    pub(crate) fn share_board(&self) -> Result<Arc<SharedMemory>> {
        let memory = if self.rank() == 0 {
            let (memory, handle) = SharedMemory::new("trellink-board", BOARD_BYTES)?;
            self.share(Shared::Board, BOARD_BYTES, handle.as_fd())?;
            memory
        } else {
            let (handle, _) = self.receive_share(0, Shared::Board)?;
            SharedMemory::open(handle, BOARD_BYTES)?
        };
        Ok(Arc::new(memory))
    }

    /// Sends this rank's arena to all others.
    pub(crate) fn share_arena(&self, bytes: usize, handle: BorrowedFd<'_>) -> Result<()> {
        self.share(Shared::Arena, bytes, handle)
    }

    /// The arena of a peer, and how many bytes it says that it has.
    pub(crate) fn receive_arena(&self, peer: usize) -> Result<(OwnedFd, u64)> {
        self.receive_share(peer, Shared::Arena)
    }

    /// The first obstacle, by rank, that any rank has found; all ranks get the same answer, when all are
    /// here.
    #[cfg(feature = "cuda")]
    pub(crate) fn first_obstacle(&self, own: Option<String>) -> Result<Option<String>> {
        let own = Message::obstacle(&own.unwrap_or_default());
        self.send(&own, None)?;
        let mut obstacles = vec![None; self.world()];
        for (peer, _) in self.iter() {
            obstacles[peer] = Some(self.receive(peer)?.0);
        }
        obstacles[self.rank()] = Some(own);
        for (peer, told) in obstacles.iter().flatten().enumerate() {
            match told {
                Message::Obstacle(text) if text.is_empty() => {}
                Message::Obstacle(text) => return Ok(Some(text.clone())),
                other => return Err(self.unexpected(peer, other)),
            }
        }
        Ok(None)
    }

    /// Waits until every rank has everything that it needs of the others.
    pub(crate) fn ready(&self) -> Result<()> {
        self.send(&Message::Ready, None)?;
        for (peer, _) in self.iter() {
            match self.receive(peer)? {
                (Message::Ready, _) => {}
                (other, _) => return Err(self.unexpected(peer, &other)),
            }
        }
        Ok(())
    }

    /// Tells the others that this rank will not be in the group.
    pub(crate) fn give_up(&self, error: &Error) {
        let missing = match error {
            Error::RanksMissing { missing, .. } => {
                missing.iter().fold(0, |mask, rank| mask | 1 << (rank % 8))
            }
            _ => 0,
        };
        let refusal = Message::Refusal(Refusal::new(missing, &error.to_string()));
        for (_, link) in self.iter() {
            // Who is gone need not be told.
            let _ = link.socket.send(&refusal, None);
        }
    }

    /// The error for a peer that has given up.
    pub(super) fn refused(&self, peer: usize, refusal: &Refusal) -> Error {
        let missing: Vec<usize> = (0..self.world())
            .filter(|rank| refusal.missing >> rank & 1 != 0 && *rank != self.rank())
            .collect();
        if missing.is_empty() {
            return self.failed(format!("rank {peer} gave up: {}", refusal.reason));
        }
        Error::RanksMissing {
            rank: self.rank(),
            missing,
            waited: self.started.elapsed(),
        }
    }

    fn share(&self, what: Shared, bytes: usize, handle: BorrowedFd<'_>) -> Result<()> {
        let bytes = bytes as u64;
        self.send(&Message::Share(Share { what, bytes }), Some(handle))
    }

    fn send(&self, message: &Message, handle: Option<BorrowedFd<'_>>) -> Result<()> {
        for (peer, link) in self.iter() {
            let sent = link.socket.send(message, handle);
            sent.map_err(|_| self.gone(peer, link))?;
        }
        Ok(())
    }

    fn receive_share(&self, peer: usize, expected: Shared) -> Result<(OwnedFd, u64)> {
        match self.receive(peer)? {
            (Message::Share(Share { what, bytes }), Some(handle)) if what == expected => {
                Ok((handle, bytes))
            }
            (other, _) => Err(self.unexpected(peer, &other)),
        }
    }

    /// The next message of a peer; a refusal is an error.
    fn receive(&self, peer: usize) -> Result<(Message, Option<OwnedFd>)> {
        let link = self.peers[peer].as_ref();
        let socket = &link.expect("the ranks have met").socket;
        loop {
            match socket.receive() {
                Ok(Received::Message(Message::Refusal(refusal), _)) => {
                    return Err(self.refused(peer, &refusal))
                }
                Ok(Received::Message(message, handle)) => return Ok((message, handle)),
                Ok(Received::Malformed(problem)) => {
                    return Err(self.failed(format!("rank {peer}: {problem}")))
                }
                Ok(Received::Closed) | Err(_) => return Err(self.lost(peer)),
                Ok(Received::Nothing) => {}
            }
            let left = self.time_left(|| vec![peer])?;
            poll(&[socket.as_fd()], &[], Some(left))
                .map_err(|errno| self.failed(format!("poll: {errno}")))?;
        }
    }

    /// The error for a peer that went without a word, or with its last words.
    pub(super) fn gone(&self, peer: usize, link: &Link) -> Error {
        while let Ok(Received::Message(message, _)) = link.socket.receive() {
            if let Message::Refusal(refusal) = message {
                return self.refused(peer, &refusal);
            }
        }
        self.lost(peer)
    }

    fn lost(&self, peer: usize) -> Error {
        let rank = self.rank();
        Error::PeerLost { rank, peer }
    }

    fn unexpected(&self, peer: usize, message: &Message) -> Error {
        self.failed(format!("rank {peer} sent {message:?} out of turn"))
    }
}
