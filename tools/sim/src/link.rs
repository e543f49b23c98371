//! Two sides of a link's probe, and links that lie.

use crate::bindings::{TrellinkLinkProbe, TrellinkLinkVerdict, TRELLINK_LINK_PROBE_WORDS};
use crate::Buffer;
use std::ops::Range;
use std::time::Duration;
use trellink::plan::link::{Ending, Finding};

extern "C" {
    fn trellink_sim_link_probe(params: *const TrellinkLinkProbe);
    fn trellink_sim_break_link(begin: u64, end: u64, lie: u32, access: u64);
    fn trellink_sim_mend_link(begin: u64);
    fn trellink_sim_store_shared(to: u64, low: u64, high: u64);
    fn trellink_sim_load_shared(from: u64, low: *mut u64, high: *mut u64);
}

/// What becomes of an access that goes wrong; the numbers of `csrc/link_faults.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// A store that never arrives.
    Dropped,
    /// A store that is overtaken by later ones.
    Late,
    /// A store of which the tags arrive before the values.
    Torn,
    /// A load with a wrong bit.
    Misread,
}

/// The accesses by side 0 to the mailbox of side 1, of which one goes wrong.
#[derive(Clone, Debug)]
pub struct LinkFault {
    /// How.
    pub lie: Lie,
    /// To these words of the mailbox.
    pub words: Range<usize>,
    /// The number of the access that it happens to.
    pub access: u64,
}

/// Runs a probe of so many rounds; what each side has found.
pub fn probe_link(
    rounds: u32,
    first_tag: u32,
    timeout: Duration,
    fault: Option<LinkFault>,
) -> [Finding; 2] {
    let mailbox = || Buffer::new(&[0u64; TRELLINK_LINK_PROBE_WORDS as usize]);
    let (mailboxes, verdicts) = (
        [mailbox(), mailbox()],
        [0, 1].map(|_| Buffer::new(&[TrellinkLinkVerdict::default()])),
    );
    let _broken = fault.map(|fault| Broken::new(&mailboxes[1], &fault));
    std::thread::scope(|scope| {
        for side in 0..2 {
            let params = TrellinkLinkProbe {
                own: mailboxes[side].pointer(),
                peer: mailboxes[1 - side].pointer(),
                verdict: verdicts[side].pointer(),
                timeout_ns: timeout.as_nanos() as u64,
                first_tag,
                rounds,
            };
            // SAFETY: the buffers have the sizes that the kernel expects and outlive the scope.
            scope.spawn(move || unsafe { trellink_sim_link_probe(&params) });
        }
    });
    verdicts.map(|verdict| {
        let verdict = verdict.read::<TrellinkLinkVerdict>()[0];
        Finding {
            ending: Ending::of(verdict.state),
            round: verdict.round,
            word: verdict.word,
            expected: verdict.expected,
            found: verdict.found,
            elapsed: Duration::from_nanos(verdict.elapsed_ns),
        }
    })
}

/// Stores 16 bytes `stores` times, with equal halves, while another thread loads them; how many loads have seen halves of
/// two stores.
pub fn torn_loads(stores: u64) -> u64 {
    let place = Buffer::new(&[0u64; 2]);
    let at = place.pointer();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for i in 1..=stores {
                // SAFETY: 16 aligned bytes, which outlive the scope.
                unsafe { trellink_sim_store_shared(at, i, i) };
            }
        });
        let (mut low, mut high, mut torn) = (0, 0, 0);
        while high < stores {
            // SAFETY: as above; writes two words.
            unsafe { trellink_sim_load_shared(at, &mut low, &mut high) };
            torn += u64::from(low != high);
        }
        torn
    })
}

/// A range of memory with a fault; mended on drop.
struct Broken {
    begin: u64,
}

impl Broken {
    fn new(mailbox: &Buffer, fault: &LinkFault) -> Self {
        let at = |word: usize| mailbox.pointer() + 8 * word as u64;
        let (begin, end) = (at(fault.words.start), at(fault.words.end));
        // SAFETY: only remembers the range, which lies in a buffer that outlives `self`.
        unsafe { trellink_sim_break_link(begin, end, fault.lie as u32, fault.access) };
        Broken { begin }
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        // SAFETY: only forgets the range.
        unsafe { trellink_sim_mend_link(self.begin) }
    }
}
