//! How the channels of one dimension are divided over the ranks of a group.
//!
//! What must stay true: the ranges of the ranks follow one another without a gap, cover all
//! channels, and begin and end at multiples of 128, the group of channels that the Hadamard
//! transform mixes. All ranks compute the same split from the same arguments.

use crate::format::GROUP;
use crate::{Error, Result};
use std::ops::Range;

/// Ranks of a group at most.
pub const MAX_WORLD: usize = 8;

/// Weights are compared in steps of 1/2^52 of the largest, so that shares are integer arithmetic.
const WEIGHT_STEPS: f64 = (1u64 << 52) as f64;

/// A division of channels over 1 to 8 ranks, in units of 128. Uneven and empty ranges are legal.
///
/// ```
/// use trellink::Split;
///
/// let split = Split::even(640, 2)?;
/// assert_eq!(split.range(0), 0..384);
/// assert_eq!(split.range(1), 384..640);
/// # Ok::<(), trellink::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Split {
    /// Rank `r` has `bounds[r]..bounds[r + 1]`.
    bounds: Vec<usize>,
}

impl Split {
    /// Divides `channels` as evenly as units of 128 allow; the first ranks get one unit more
    /// where it does not come out even.
    ///
    /// # Errors
    /// [`Error::InvalidSplit`] unless `channels` is a positive multiple of 128 and `world` is
    /// 1 to 8.
    pub fn even(channels: usize, world: usize) -> Result<Self> {
        check_world(world)?;
        let units = check_channels(channels)?;
        let share = |rank| units / world + usize::from(rank < units % world);
        Ok(Self::from_units((0..world).map(share)))
    }

    /// Divides `channels` in proportion to `weights`, one per rank (say, each device's memory
    /// bandwidth), by largest remainder; of equal remainders the lower rank goes first.
    ///
    /// A rank of weight 0 gets nothing. Equal weights give [`Split::even`].
    ///
    /// # Errors
    /// [`Error::InvalidSplit`] unless `channels` is a positive multiple of 128, there are 1 to 8
    /// weights, all finite, none negative and at least one positive.
    pub fn weighted(channels: usize, weights: &[f64]) -> Result<Self> {
        check_world(weights.len())?;
        let units = check_channels(channels)?;
        let steps = weight_steps(weights)?;
        Ok(Self::from_units(largest_remainder(units, &steps)))
    }

    /// The split that gives rank `r` exactly `channels_per_rank[r]` channels; 0 is allowed.
    ///
    /// # Errors
    /// [`Error::InvalidSplit`] unless there are 1 to 8 entries, all multiples of 128, with a
    /// positive sum.
    pub fn explicit(channels_per_rank: &[usize]) -> Result<Self> {
        check_world(channels_per_rank.len())?;
        let mut sum = 0usize;
        for (rank, &channels) in channels_per_rank.iter().enumerate() {
            if !channels.is_multiple_of(GROUP) {
                return Err(invalid(
                    format!("{channels} channels for rank {rank}"),
                    "a multiple of 128",
                ));
            }
            sum = sum.checked_add(channels).ok_or_else(|| {
                invalid(
                    format!("channels {channels_per_rank:?}"),
                    "a sum that fits in usize",
                )
            })?;
        }
        check_channels(sum)?;
        Ok(Self::from_units(
            channels_per_rank.iter().map(|channels| channels / GROUP),
        ))
    }

    fn from_units(units: impl IntoIterator<Item = usize>) -> Self {
        let mut bounds = vec![0];
        let mut end = 0;
        for share in units {
            end += share * GROUP;
            bounds.push(end);
        }
        Split { bounds }
    }

    /// Number of ranks.
    pub fn world(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Channels of all ranks together.
    pub fn channels(&self) -> usize {
        self.bounds[self.world()]
    }

    /// The channels of `rank`: multiples of 128, possibly empty.
    ///
    /// # Panics
    /// If `rank >= world()`.
    pub fn range(&self, rank: usize) -> Range<usize> {
        self.bounds[rank]..self.bounds[rank + 1]
    }

    /// The ranges of all ranks, in rank order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.bounds.windows(2).map(|pair| pair[0]..pair[1])
    }
}

/// Each weight in steps of the largest one's 2^-52: integers, so that no rounding mode, order of
/// summation or overflow can make two ranks disagree.
fn weight_steps(weights: &[f64]) -> Result<Vec<u64>> {
    let valid = |w: &f64| w.is_finite() && *w >= 0.0;
    if let Some(rank) = weights.iter().position(|w| !valid(w)) {
        return Err(invalid(
            format!("weight {} for rank {rank}", weights[rank]),
            "a finite weight that is not negative",
        ));
    }
    let largest = weights.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        return Err(invalid(
            format!("weights {weights:?}"),
            "at least one positive weight",
        ));
    }
    let steps = |w: &f64| (w / largest * WEIGHT_STEPS) as u64;
    Ok(weights.iter().map(steps).collect())
}

/// Shares `units` in proportion to `steps`, whose sum is positive.
fn largest_remainder(units: usize, steps: &[u64]) -> Vec<usize> {
    // units < 2^57 and a step count <= 2^52, so the products fit in u128 with room to spare.
    let total: u128 = steps.iter().map(|&s| u128::from(s)).sum();
    let quota = |s: &u64| units as u128 * u128::from(*s);
    let mut shares: Vec<usize> = steps.iter().map(|s| (quota(s) / total) as usize).collect();
    let left = units - shares.iter().sum::<usize>();
    let mut ranks: Vec<usize> = (0..steps.len()).collect();
    // The sort is stable: of equal remainders the lower rank stays first.
    ranks.sort_by_key(|&rank| std::cmp::Reverse(quota(&steps[rank]) % total));
    for &rank in &ranks[..left] {
        shares[rank] += 1;
    }
    shares
}

fn check_world(world: usize) -> Result<()> {
    if !(1..=MAX_WORLD).contains(&world) {
        return Err(invalid(format!("{world} ranks"), "1 to 8 ranks"));
    }
    Ok(())
}

/// The number of 128-channel units in `channels`.
fn check_channels(channels: usize) -> Result<usize> {
    if channels == 0 || !channels.is_multiple_of(GROUP) {
        return Err(invalid(
            format!("{channels} channels"),
            "a positive multiple of 128",
        ));
    }
    Ok(channels / GROUP)
}

fn invalid(found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::InvalidSplit {
        found: found.into(),
        expected: expected.into(),
    }
}
