//! How the ranks of a group come to be connected, each to each.
//!
//! What must stay true: a rank connects to those below it and is connected to by those above it, in
//! any order of start. Whoever connects is a stranger until it has said hello as a rank that is
//! missing; strangers that say something else, or nothing, hold up and end nothing. But a missing
//! rank with other settings ends the meeting on both sides at once, since it would never succeed.

use super::address::Home;
use super::credentials::Peer;
use super::links::{Link, Links};
use super::message::{Hello, Malformed, Message, Refusal};
use super::socket::{poll, Polled, Received, Socket};
use crate::{Error, Result};
use rustix::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Between two attempts to reach a rank that does not listen yet.
const RETRY: Duration = Duration::from_millis(5);

/// Connections that have not said hello, at most; one more, and the oldest is closed.
const MAX_STRANGERS: usize = 32;

/// Connects `links` to all ranks.
///
/// # Errors
/// [`Error::RanksMissing`], [`Error::SettingsDiffer`], [`Error::PeerLost`], [`Error::Rendezvous`]. The
/// ranks that are connected by then have been told.
pub(super) fn meet(home: &Home, links: &mut Links) -> Result<()> {
    let mut meeting = Meeting {
        home,
        links,
        calls: Vec::new(),
        strangers: Vec::new(),
    };
    let met = meeting.run();
    if let Err(error) = &met {
        links.give_up(error);
    }
    met
}

struct Meeting<'a> {
    home: &'a Home,
    links: &'a mut Links,
    /// Ranks that were connected to and have not answered.
    calls: Vec<(usize, Guest)>,
    /// Connections by whom is not known yet.
    strangers: Vec<Guest>,
}

/// One end of a connection, and whose process is at the other.
struct Guest {
    socket: Socket,
    peer: Peer,
}

impl Guest {
    /// `None` if it runs for another user or is gone already.
    fn admit(socket: Socket) -> Option<Self> {
        let peer = Peer::of(&socket).ok()?;
        peer.is_same_user().then_some(Guest { socket, peer })
    }

    fn link(self, hello: Hello) -> Link {
        Link {
            hello,
            process: self.peer.process(),
            socket: self.socket,
        }
    }
}

impl Meeting<'_> {
    fn run(&mut self) -> Result<()> {
        while !self.links.missing().is_empty() {
            let left = self.links.time_left(|| self.links.missing())?;
            let all_called = self.call();
            let limit = if all_called { left } else { left.min(RETRY) };
            let polled = self.poll(limit)?;
            self.look_after_links(&polled)?;
            self.take_answers()?;
            self.let_in()?;
            self.hear_strangers()?;
        }
        Ok(())
    }

    /// Connects to the missing ranks below this one, as far as they listen already. Whether all do.
    fn call(&mut self) -> bool {
        let mut all = true;
        for rank in 0..self.links.rank() {
            let called = self.calls.iter().any(|(called, _)| *called == rank);
            if self.links.has(rank) || called {
                continue;
            }
            let hello = Message::Hello(*self.links.own());
            let socket = Socket::connect(&self.home.addresses[rank]).ok();
            match socket.and_then(Guest::admit) {
                Some(guest) if guest.socket.send(&hello, None).is_ok() => {
                    self.calls.push((rank, guest));
                }
                _ => all = false,
            }
        }
        all
    }

    /// Waits for anything to happen.
    fn poll(&self, limit: Duration) -> Result<Polled> {
        let calls = self.calls.iter().map(|(_, guest)| guest.socket.as_fd());
        let strangers = self.strangers.iter().map(|guest| guest.socket.as_fd());
        let listener = std::iter::once(self.home.listener.as_fd());
        let readable: Vec<BorrowedFd<'_>> = listener.chain(calls).chain(strangers).collect();
        // What a linked rank sends is for later, when this one has met all others, too.
        let links = self.links.iter().map(|(_, link)| link.socket.as_fd());
        let links: Vec<BorrowedFd<'_>> = links.collect();
        poll(&readable, &links, Some(limit))
            .map_err(|errno| self.links.failed(format!("poll: {errno}")))
    }

    /// A rank that was here and has gone ends the meeting.
    fn look_after_links(&self, polled: &Polled) -> Result<()> {
        let closed = self.links.iter().zip(&polled.closed);
        match closed.into_iter().find(|(_, closed)| **closed) {
            Some(((peer, link), _)) => Err(self.links.gone(peer, link)),
            None => Ok(()),
        }
    }

    /// Looks for answers of the ranks that were called.
    fn take_answers(&mut self) -> Result<()> {
        for (rank, guest) in std::mem::take(&mut self.calls) {
            match guest.socket.receive() {
                Ok(Received::Nothing) => self.calls.push((rank, guest)),
                Ok(Received::Message(Message::Hello(hello), _))
                    if usize::from(hello.rank) == rank =>
                {
                    self.agree(&hello)?;
                    self.links.add(guest.link(hello));
                }
                Ok(Received::Message(Message::Refusal(refusal), _)) => {
                    return Err(self.links.refused(rank, &refusal));
                }
                Ok(Received::Malformed(problem @ Malformed::Version { .. })) => {
                    return Err(self.links.failed(format!("rank {rank}: {problem}")));
                }
                // Its process is gone, or it is none of this group's: it is called again.
                _ => std::thread::sleep(RETRY),
            }
        }
        Ok(())
    }

    fn let_in(&mut self) -> Result<()> {
        loop {
            let accepted = self.home.listener.accept();
            let accepted = accepted.map_err(|e| self.links.failed(format!("accept: {e}")))?;
            let Some(socket) = accepted else {
                return Ok(());
            };
            if let Some(guest) = Guest::admit(socket) {
                if self.strangers.len() == MAX_STRANGERS {
                    self.strangers.remove(0);
                }
                self.strangers.push(guest);
            }
        }
    }

    fn hear_strangers(&mut self) -> Result<()> {
        for guest in std::mem::take(&mut self.strangers) {
            match guest.socket.receive() {
                Ok(Received::Nothing) => self.strangers.push(guest),
                Ok(Received::Message(Message::Hello(hello), _)) => self.greet(guest, &hello)?,
                Ok(Received::Message(..)) => refuse(&guest, "say hello first"),
                Ok(Received::Malformed(problem)) => refuse(&guest, &problem.to_string()),
                Ok(Received::Closed) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Answers a hello.
    fn greet(&mut self, guest: Guest, hello: &Hello) -> Result<()> {
        let rank = usize::from(hello.rank);
        if rank <= self.links.rank() || self.links.has(rank) {
            refuse(&guest, &format!("rank {rank} is another process"));
            return Ok(());
        }
        // Also if they differ, so that the other side can say in what.
        let answer = Message::Hello(*self.links.own());
        let sent = guest.socket.send(&answer, None);
        self.agree(hello)?;
        if sent.is_ok() {
            self.links.add(guest.link(*hello));
        }
        Ok(())
    }

    fn agree(&self, hello: &Hello) -> Result<()> {
        let Some(difference) = self.links.own().difference(hello) else {
            return Ok(());
        };
        Err(Error::SettingsDiffer {
            rank: self.links.rank(),
            peer: hello.rank.into(),
            setting: difference.setting,
            own: difference.own,
            theirs: difference.theirs,
        })
    }
}

fn refuse(guest: &Guest, reason: &str) {
    // Whether it hears that makes no difference here.
    let _ = guest
        .socket
        .send(&Message::Refusal(Refusal::new(0, reason)), None);
}
