//! One rank's part of a board: how its wait ended, and how long it may last.

use crate::protocol::{Epoch, Operation, OperationWords, Tag};
use crate::Error;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// `Report::state`, the numbers of `csrc/params.h`.
pub(crate) const STATE_OK: u32 = 0;
pub(crate) const STATE_PEER_TIMEOUT: u32 = 1;
pub(crate) const STATE_PEER_AHEAD: u32 = 2;
pub(crate) const STATE_ABORTED: u32 = 3;
pub(crate) const STATE_MISMATCH: u32 = 4;

/// The layout of `TrellinkReport`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Written last.
    state: AtomicU32,
    rank: AtomicU32,
    peer: AtomicU32,
    epoch: AtomicU32,
    found: AtomicU32,
    tile: AtomicU32,
    waited_ns: AtomicU64,
    timeout_ns: AtomicU64,
    operation: OperationRecord,
}

/// The layout of `TrellinkOperation`.
#[repr(C)]
#[derive(Debug, Default)]
struct OperationRecord {
    tag: AtomicU32,
    form: AtomicU32,
    rows: AtomicU32,
    layer: AtomicU32,
    columns: AtomicU64,
}

/// What a report says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) state: u32,
    pub(crate) rank: usize,
    pub(crate) peer: usize,
    pub(crate) epoch: u32,
    /// The tag of the packet that should not be there.
    pub(crate) found: u32,
    /// Which 128 packets of the slot were waited for.
    pub(crate) tile: u32,
    pub(crate) waited: Duration,
    /// What the rank was doing; nothing if the words are none that a rank writes.
    pub(crate) operation: Option<Operation>,
}

impl Failure {
    /// `theirs` is what the peer was doing, if that is known; `absent` are the ranks that had not begun the call.
    pub(super) fn into_error(self, theirs: Option<Operation>, absent: Vec<usize>) -> Error {
        let Failure {
            state,
            rank,
            peer,
            epoch,
            tile,
            waited,
            ..
        } = self;
        match (state, self.operation) {
            (STATE_PEER_TIMEOUT, Some(operation)) => Error::PeerTimeout {
                rank,
                peer,
                absent,
                epoch,
                waited,
                operation,
                tile,
            },
            (STATE_PEER_AHEAD, Some(_)) => Error::PeerAhead {
                rank,
                peer,
                epoch,
                found: self.found_epoch().get(),
            },
            (STATE_MISMATCH, Some(own)) => Error::Mismatch {
                rank,
                peer,
                epoch,
                own,
                theirs,
            },
            _ => Error::GroupFailed {
                reason: format!("rank {rank} stopped in state {state} at epoch {epoch}"),
            },
        }
    }

    fn found_epoch(&self) -> Epoch {
        let epoch = Epoch::new(self.epoch);
        epoch.after(Tag::new(epoch, 0).distance(Tag::from_bits(self.found)))
    }
}

impl Report {
    pub(super) fn timeout(&self) -> Duration {
        // Relaxed here and below: the word publishes nothing but itself.
        Duration::from_nanos(self.timeout_ns.load(Ordering::Relaxed))
    }

    pub(super) fn set_timeout(&self, timeout: Duration) {
        self.timeout_ns
            .store(nanoseconds(timeout), Ordering::Relaxed);
    }

    pub(super) fn write(&self, failure: &Failure) {
        let store = |to: &AtomicU32, value: u32| to.store(value, Ordering::Relaxed);
        store(&self.rank, failure.rank as u32);
        store(&self.peer, failure.peer as u32);
        store(&self.epoch, failure.epoch);
        store(&self.found, failure.found);
        store(&self.tile, failure.tile);
        let waited_ns = nanoseconds(failure.waited);
        self.waited_ns.store(waited_ns, Ordering::Relaxed);
        if let Some(operation) = failure.operation.map(Operation::to_words) {
            let record = &self.operation;
            store(&record.tag, operation.tag);
            store(&record.form, operation.form);
            store(&record.rows, operation.rows);
            store(&record.layer, operation.layer);
            record.columns.store(operation.columns, Ordering::Relaxed);
        }
        // Release, pairs with the acquire in `read`: who sees the state finds the rest.
        self.state.store(failure.state, Ordering::Release);
    }

    /// What it says, if it has been written.
    pub(super) fn read(&self) -> Option<Failure> {
        let state = self.state.load(Ordering::Acquire);
        let load = |word: &AtomicU32| word.load(Ordering::Relaxed);
        let words = OperationWords {
            tag: load(&self.operation.tag),
            form: load(&self.operation.form),
            rows: load(&self.operation.rows),
            layer: load(&self.operation.layer),
            columns: self.operation.columns.load(Ordering::Relaxed),
        };
        (state != STATE_OK).then(|| Failure {
            state,
            rank: load(&self.rank) as usize,
            peer: load(&self.peer) as usize,
            epoch: load(&self.epoch),
            found: load(&self.found),
            tile: load(&self.tile),
            waited: Duration::from_nanos(self.waited_ns.load(Ordering::Relaxed)),
            operation: Operation::from_words(words),
        })
    }

    /// Takes the failure back.
    pub(super) fn clear(&self) {
        self.state.store(STATE_OK, Ordering::Release);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(feature = "cuda")]
const _: () = {
    use crate::ffi::{TrellinkOperation, TrellinkReport as Theirs};
    use std::mem::offset_of;
    assert!(size_of::<Report>() == size_of::<Theirs>());
    assert!(offset_of!(Report, state) == offset_of!(Theirs, state));
    assert!(offset_of!(Report, rank) == offset_of!(Theirs, rank));
    assert!(offset_of!(Report, peer) == offset_of!(Theirs, peer));
    assert!(offset_of!(Report, epoch) == offset_of!(Theirs, epoch));
    assert!(offset_of!(Report, found) == offset_of!(Theirs, found));
    assert!(offset_of!(Report, tile) == offset_of!(Theirs, tile));
    assert!(offset_of!(Report, waited_ns) == offset_of!(Theirs, waited_ns));
    assert!(offset_of!(Report, timeout_ns) == offset_of!(Theirs, timeout_ns));
    assert!(offset_of!(Report, operation) == offset_of!(Theirs, operation));
    type Record = OperationRecord;
    assert!(size_of::<Record>() == size_of::<TrellinkOperation>());
    assert!(offset_of!(Record, tag) == offset_of!(TrellinkOperation, tag));
    assert!(offset_of!(Record, form) == offset_of!(TrellinkOperation, form));
    assert!(offset_of!(Record, rows) == offset_of!(TrellinkOperation, rows));
    assert!(offset_of!(Record, layer) == offset_of!(TrellinkOperation, layer));
    assert!(offset_of!(Record, columns) == offset_of!(TrellinkOperation, columns));
    assert!(STATE_OK == crate::ffi::TRELLINK_STATE_OK);
    assert!(STATE_PEER_TIMEOUT == crate::ffi::TRELLINK_STATE_PEER_TIMEOUT);
    assert!(STATE_PEER_AHEAD == crate::ffi::TRELLINK_STATE_PEER_AHEAD);
    assert!(STATE_ABORTED == crate::ffi::TRELLINK_STATE_ABORTED);
    assert!(STATE_MISMATCH == crate::ffi::TRELLINK_STATE_MISMATCH);
};
