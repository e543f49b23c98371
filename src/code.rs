//! What the kernels can do that a device has loaded. That follows from what they were compiled for, not from
//! the device alone: where the build has no machine code for a device, the driver translates PTX, and what the
//! sources leave out for the PTX's architecture is missing on every device.

/// What loaded kernels can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Abilities {
    /// Whether they know clusters and wait for the launch ahead by themselves. Others take every CTA for a
    /// cluster and rely on that launch having ended: in clusters or begun early they give wrong sums.
    pub(crate) hopper: bool,
    /// Tokens that a pass may have: as many as their MMAs leave registers for.
    pub(crate) most_tokens: usize,
    /// Whether inputs that were transformed ahead come to them in rings: `TRELLINK_RINGS` in csrc/linear/operands.cuh.
    pub(crate) rings: bool,
}

impl Abilities {
    /// Of kernels compiled for architecture `compiled_for` (80, 90), PTX by its own and not by what it was
    /// translated for, on a device of this compute capability; `built_for` lists the build's architectures.
    pub(crate) fn new(compiled_for: usize, capability: (i32, i32), built_for: &str) -> Self {
        let has = |arch| built_for.split(',').any(|built| built == arch);
        // The number is the same with and without the suffix, so that of two the worse must be assumed.
        let is_90a = compiled_for == 90 && capability == (9, 0) && has("90a") && !has("90");
        Abilities {
            hopper: compiled_for >= 90,
            most_tokens: if is_90a { 64 } else { 32 },
            rings: (90..120).contains(&compiled_for),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Abilities;

    const RELEASE: &str = "80,86,89,90a,100,120";

    #[test]
    fn machine_code_has_what_its_architecture_has() {
        let of = |compiled_for, capability| {
            let abilities = Abilities::new(compiled_for, capability, RELEASE);
            (abilities.hopper, abilities.most_tokens, abilities.rings)
        };
        assert_eq!(of(80, (8, 0)), (false, 32, false));
        assert_eq!(of(86, (8, 6)), (false, 32, false));
        assert_eq!(of(90, (9, 0)), (true, 64, true));
        assert_eq!(of(100, (10, 3)), (true, 32, true));
        assert_eq!(of(120, (12, 0)), (true, 32, false));
    }

    #[test]
    fn translated_ptx_has_only_what_the_ptx_has() {
        // A release's PTX on a GPU that is newer than all of its machine code, or that it is forced upon.
        for capability in [(9, 0), (11, 0), (13, 0)] {
            let abilities = Abilities::new(80, capability, RELEASE);
            assert!(!abilities.hopper, "{capability:?}");
            assert_eq!(abilities.most_tokens, 32, "{capability:?}");
        }
        // PTX of 9.0 knows clusters, but no warpgroups: these are 9.0a's alone.
        let abilities = Abilities::new(90, (10, 0), "90");
        assert_eq!((abilities.hopper, abilities.most_tokens), (true, 32));
        for built_for in ["90", "90,90a"] {
            assert_eq!(Abilities::new(90, (9, 0), built_for).most_tokens, 32);
        }
    }

    #[test]
    fn an_architecture_that_the_driver_does_not_tell_is_taken_for_an_old_one() {
        assert!(!Abilities::new(0, (9, 0), RELEASE).hopper);
    }
}
