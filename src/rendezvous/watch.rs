//! Notices when the process of a peer ends.
//!
//! What must stay true: a rank that is dropped says goodbye to all others before its connections
//! close, so a connection that closes without a goodbye is that of a process that died. The thread
//! ends when the rank is dropped, whatever has happened.

use super::links::{Link, Links};
use super::message::Message;
use super::shared_memory::SharedMemory;
use super::socket::{poll, Polled, Received};
use crate::board::Board;
use crate::Result;
use rustix::event::{eventfd, EventfdFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that watches the peers of one rank; dropped, it says goodbye to them.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches all peers and writes on the board when one is lost.
    pub(crate) fn start(links: Arc<Links>, board: Arc<SharedMemory>) -> Result<Self> {
        let failed = |what: &str, e: &dyn std::fmt::Display| links.failed(format!("{what}: {e}"));
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| failed("eventfd", &e))?;
        let stop = Arc::new(stop);
        let watcher = Watcher {
            peers: links.iter().map(|(peer, _)| peer).collect(),
            links: links.clone(),
            board,
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("trellink-watch-{}", links.rank()))
            .spawn(|| watcher.run())
            .map_err(|e| failed("the watching thread", &e))?;
        Ok(Watch {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Cannot fail: the counter is far from its limit.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watcher {
    links: Arc<Links>,
    board: Arc<SharedMemory>,
    stop: Arc<OwnedFd>,
    /// The peers that have not gone.
    peers: Vec<usize>,
}

/// What became of a peer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    Left,
    Lost,
}

impl Watcher {
    fn run(mut self) {
        loop {
            match self.poll() {
                Ok(polled) if polled.readable[0] => return self.say_goodbye(),
                Ok(polled) => self.look(&polled),
                // The kernel is short of memory; what matters will still be there.
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Waits for the signal to stop or news of a peer: first its socket, then its process.
    fn poll(&self) -> rustix::io::Result<Polled> {
        let stop = self.stop.as_fd();
        let mut handles: Vec<BorrowedFd<'_>> = vec![stop];
        for link in self.living() {
            handles.push(link.socket.as_fd());
            let process = link.process.as_ref();
            handles.push(process.map_or(link.socket.as_fd(), AsFd::as_fd));
        }
        poll(&handles, &[], None)
    }

    fn living(&self) -> impl Iterator<Item = &Link> {
        let living = self.links.iter();
        living.filter_map(|(peer, link)| self.peers.contains(&peer).then_some(link))
    }

    fn look(&mut self, polled: &Polled) {
        let news = polled.readable[1..].chunks_exact(2);
        let fates: Vec<Fate> = self
            .living()
            .zip(news)
            .map(|(link, news)| fate(link, news))
            .collect();
        let rank = self.links.rank();
        let mut fates = fates.into_iter();
        self.peers.retain(|&peer| {
            let fate = fates.next().unwrap_or(Fate::Lives);
            if fate == Fate::Lost {
                let board: &Board = (*self.board).as_ref();
                board.lose(rank, peer);
                crate::trace::event!(error, rank, peer, "the process of a peer has gone");
            }
            fate == Fate::Lives
        });
    }

    fn say_goodbye(&self) {
        for link in self.living() {
            // Who is gone need not be told.
            let _ = link.socket.send(&Message::Goodbye, None);
        }
    }
}

/// What the news, of socket and process, say of a peer.
fn fate(link: &Link, news: &[bool]) -> Fate {
    if !news.contains(&true) {
        return Fate::Lives;
    }
    match link.socket.receive() {
        // A process says goodbye before it ends, so here it was silent and either ended or the
        // news was a false alarm.
        Ok(Received::Nothing) if link.process.is_some() && news[1] => Fate::Lost,
        Ok(Received::Nothing) => Fate::Lives,
        Ok(Received::Message(Message::Goodbye, _)) => Fate::Left,
        _ => Fate::Lost,
    }
}
