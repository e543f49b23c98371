//! Where and for how long the processes of a group look for one another.

use super::address::Home;
use super::links::Links;
use super::meet::meet;
use super::message::Hello;
use crate::Result;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Gives every rank the bytes of all, in rank order.
pub(super) type Exchange =
    dyn Fn(&[u8]) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>> + Send + Sync;

/// How the processes of a group find one another; see [`Group::join`](crate::Group::join).
///
/// Only processes of the same user on the same machine meet. They see each other's memory, and
/// trust each other with it: this is for the processes of one program.
#[derive(Clone)]
pub struct Rendezvous {
    place: Place,
    timeout: Duration,
}

#[derive(Clone)]
enum Place {
    Directory(PathBuf),
    Exchange(Arc<Exchange>),
}

/// What a process that has met all others holds until they are connected.
pub(crate) struct Met {
    pub(crate) links: Arc<Links>,
    _home: Home,
}

impl Rendezvous {
    /// The processes meet in this directory, which all name alike. They may start in any order.
    ///
    /// It is made if it is not there, with mode 700; its parent must exist. One that is there must
    /// belong to this user, and nobody else may enter it. Each rank listens on a socket in it while
    /// it waits, and removes what it has made there when it has met the others; the directory
    /// stays. What processes have left there that were killed is no obstacle. Groups that form at
    /// the same time need a directory each; its path has less than 90 bytes or so, as socket
    /// addresses must.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::new(Place::Directory(path.into()))
    }

    /// The processes find one another with the help of the program's own means, such as MPI or a
    /// launcher's key-value store.
    ///
    /// `all_gather` is called once by each [`Group::join`](crate::Group::join), with fewer than 100
    /// bytes; it returns what all ranks have passed to it, in rank order, its own included. They
    /// hold the names of abstract sockets, for which the processes must share a network
    /// namespace. How long `all_gather` may take is its own affair.
    pub fn exchange<F>(all_gather: F) -> Self
    where
        F: Fn(&[u8]) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>>
            + Send
            + Sync
            + 'static,
    {
        Self::new(Place::Exchange(Arc::new(all_gather)))
    }

    /// How long a process waits until all ranks of its group are there and connected.
    /// Default: 60 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn new(place: Place) -> Self {
        Rendezvous {
            place,
            timeout: Duration::from_secs(60),
        }
    }

    /// Meets the other ranks.
    pub(crate) fn meet(&self, own: Hello) -> Result<Met> {
        let home = match &self.place {
            Place::Directory(path) => Home::in_directory(path, &own)?,
            Place::Exchange(exchange) => Home::by_exchange(&**exchange, &own)?,
        };
        let mut links = Links::new(own, self.timeout);
        meet(&home, &mut links)?;
        Ok(Met {
            links: Arc::new(links),
            _home: home,
        })
    }
}

impl std::fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place: &dyn std::fmt::Debug = match &self.place {
            Place::Directory(path) => path,
            Place::Exchange(_) => &"exchange",
        };
        let mut debug = f.debug_struct("Rendezvous");
        debug.field("place", place).field("timeout", &self.timeout);
        debug.finish()
    }
}
