//! Kernels that are wrong on purpose.

extern "C" {
    fn trellink_sim_choose_faults(faults: u32);
}

/// What is wrong; the numbers of `csrc/comm/fault.cuh`, which says more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// One CTA takes its time, in every call another one.
    DelayedCta = 1,
    /// All CTAs of one rank do.
    DelayedRank = 2,
    /// Packets of rank 1 to rank 0 get lost, in epochs 15, 31 and so on.
    DroppedPacket = 4,
    /// Both halves of an arena are one.
    OneHalf = 8,
    /// Tags are compared with `==` alone.
    Equal = 16,
    /// Tags are not compared.
    AnyTag = 32,
    /// CTAs with an odd number begin as if they had been told to stop.
    HalfStopped = 256,
}

/// Makes the launches of the calling thread from now on have these faults and no others.
pub(crate) fn choose(faults: &[Fault]) {
    let bits = faults.iter().fold(0, |bits, fault| bits | *fault as u32);
    // SAFETY: sets a variable of the calling thread.
    unsafe { trellink_sim_choose_faults(bits) }
}
