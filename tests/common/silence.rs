//! A rank that does not call, and what the others are told of it.
//!
//! A rank that the machine holds up for the whole deadline has not called either and is named beside the silent one.
//! So each rank asks whether it has come in time itself: where all have, the silent one must be named alone.

use super::memory::Memory;
use super::Worker;
use trellink::{Device, Error, Rank, Result};

/// What must be said of a call that one rank has not made, once all others have made it.
pub struct Silence {
    silent: usize,
    /// This rank, if the group worked when it came to call.
    innocent: Option<usize>,
}

impl Silence {
    /// Asserts that this is the error of that call.
    pub fn assert_told(&self, error: &Error) {
        let Error::PeerTimeout {
            rank, peer, absent, ..
        } = error
        else {
            panic!("not a timeout: {error}");
        };
        assert_ne!(*rank, self.silent, "{error}");
        assert!(absent.contains(peer), "{error}");
        assert!(absent.contains(&self.silent), "{error}");
        let accused = self.innocent.filter(|rank| absent.contains(rank));
        assert_eq!(accused, None, "came in time: {error}");
    }
}

impl Worker<'_> {
    /// A phase in which all ranks call but one. Asserts that the calls fail, for want of the silent rank.
    pub fn phase_without(
        &mut self,
        silent: usize,
        call: impl FnOnce(&mut Rank, &dyn Memory) -> Result<()>,
    ) -> Silence {
        let here = self.rank.rank();
        let mut innocent = None;
        let called = self.phase(|rank, memory| {
            if here == silent {
                return Ok(());
            }
            // The call looks as well. Whoever has passed that leaves a report, however late.
            innocent = rank.check().is_ok().then_some(here);
            call(rank, memory)
        });
        match called {
            // On a device a failure shows when the call has run.
            Ok(()) => assert!(here == silent || self.rank.device() != Device::Host),
            // Others may not have come to begin the call yet.
            Err(Error::PeerTimeout { absent, .. }) if absent.contains(&silent) => {}
            Err(error) => panic!("rank {here}, when rank {silent} did not call: {error}"),
        }
        let silence = Silence { silent, innocent };
        silence.assert_told(&self.rank.check().expect_err("the group has failed"));
        silence
    }
}
