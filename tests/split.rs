//! Claims about how channels are divided over ranks.

use proptest::prelude::*;
use trellink::Split;

const GROUP: usize = 128;

fn units(split: &Split) -> Vec<usize> {
    split.iter().map(|range| range.len() / GROUP).collect()
}

/// What every split must satisfy, however it was made.
fn assert_partition(split: &Split, channels: usize, world: usize) {
    assert_eq!((split.world(), split.channels()), (world, channels));
    let mut end = 0;
    for rank in 0..world {
        let range = split.range(rank);
        assert_eq!(range.start, end, "rank {rank} begins where the last ended");
        assert!(range.end >= range.start);
        assert_eq!(range.len() % GROUP, 0);
        end = range.end;
    }
    assert_eq!(end, channels, "all channels are covered");
    assert_eq!(split.iter().len(), world);
}

/// Asserts that `result` is an error whose text has each of `parts`.
fn refused(result: trellink::Result<Split>, parts: &[&str]) {
    let text = result.expect_err("should be refused").to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in `{text}`");
    }
}

#[test]
fn the_remainder_goes_to_the_first_ranks() {
    let split = Split::even(11 * GROUP, 4).unwrap();
    assert_eq!(units(&split), [3, 3, 3, 2]);
}

#[test]
fn more_ranks_than_units_leaves_the_last_ranks_empty() {
    let split = Split::even(3 * GROUP, 8).unwrap();
    assert_eq!(units(&split), [1, 1, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn weights_are_shares_by_largest_remainder() {
    let split = |channels, weights: &[f64]| units(&Split::weighted(channels, weights).unwrap());
    assert_eq!(split(10 * GROUP, &[3.0, 1.0]), [8, 2]);
    assert_eq!(split(10 * GROUP, &[1.0, 0.0, 1.0]), [5, 0, 5]);
    assert_eq!(split(7 * GROUP, &[0.2, 0.2, 0.6]), [2, 1, 4]);
    // Weights whose sum overflows f64, and weights below its normal range.
    assert_eq!(split(4 * GROUP, &[f64::MAX, f64::MAX]), [2, 2]);
    assert_eq!(split(4 * GROUP, &[5e-324, 5e-324]), [2, 2]);
    assert_eq!(split(4 * GROUP, &[f64::MAX, 5e-324]), [4, 0]);
}

#[test]
fn the_largest_number_of_channels_is_divided_without_overflow() {
    let channels = usize::MAX / GROUP * GROUP;
    for world in 1..=8 {
        assert_partition(&Split::even(channels, world).unwrap(), channels, world);
        let weighted = Split::weighted(channels, &vec![1.0; world]).unwrap();
        assert_eq!(weighted, Split::even(channels, world).unwrap());
    }
}

#[test]
fn explicit_splits_are_taken_as_they_are() {
    let split = Split::explicit(&[256, 0, 128]).unwrap();
    assert_eq!(
        split.iter().collect::<Vec<_>>(),
        [0..256, 256..256, 256..384]
    );
}

#[test]
fn impossible_splits_are_refused_with_what_was_found() {
    refused(Split::even(128, 0), &["0 ranks", "1 to 8 ranks"]);
    refused(Split::even(128, 9), &["9 ranks"]);
    refused(Split::even(100, 2), &["100 channels", "multiple of 128"]);
    refused(Split::even(0, 2), &["0 channels", "positive"]);
    refused(Split::explicit(&[]), &["0 ranks"]);
    refused(Split::explicit(&[0, 0]), &["0 channels", "positive"]);
    refused(Split::explicit(&[128, 64]), &["64 channels for rank 1"]);
    let half = (usize::MAX / 2 + 1) / GROUP * GROUP;
    refused(Split::explicit(&[half, half]), &["fits in usize"]);
    refused(Split::weighted(128, &[]), &["0 ranks"]);
    refused(
        Split::weighted(128, &[0.0, 0.0]),
        &["[0.0, 0.0]", "positive weight"],
    );
    for weight in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
        let found = format!("weight {weight} for rank 1");
        refused(Split::weighted(128, &[1.0, weight]), &[&found, "finite"]);
    }
}

fn weights() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(prop_oneof![Just(0.0), 1.0..100.0, 1e-9..1e9], 1..=8)
        .prop_filter("one weight is positive", |w| w.iter().any(|&w| w > 0.0))
}

proptest! {
    #[test]
    fn even_splits_are_partitions_within_one_unit(count in 1usize..2000, world in 1usize..=8) {
        let split = Split::even(count * GROUP, world).unwrap();
        assert_partition(&split, count * GROUP, world);
        let units = units(&split);
        prop_assert!(units.windows(2).all(|pair| pair[0] == pair[1] || pair[0] == pair[1] + 1));
        prop_assert!(units[0] - units[world - 1] <= 1);
    }

    #[test]
    fn weighted_splits_are_partitions_within_one_unit_of_the_quota(
        count in 1usize..2000,
        weights in weights(),
    ) {
        let split = Split::weighted(count * GROUP, &weights).unwrap();
        assert_partition(&split, count * GROUP, weights.len());
        let sum: f64 = weights.iter().sum();
        for (share, weight) in units(&split).into_iter().zip(&weights) {
            let quota = count as f64 * weight / sum;
            prop_assert!((share as f64 - quota).abs() < 1.0 + 1e-6, "{share} of {quota}");
            prop_assert!(*weight > 0.0 || share == 0);
        }
    }

    #[test]
    fn a_larger_weight_never_gets_less(
        count in 1usize..2000,
        weights in prop::collection::vec(0u32..1000, 1..=8),
    ) {
        prop_assume!(weights.iter().any(|&w| w > 0));
        let as_f64: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
        let units = units(&Split::weighted(count * GROUP, &as_f64).unwrap());
        for a in 0..weights.len() {
            for b in 0..weights.len() {
                prop_assert!(weights[a] <= weights[b] || units[a] >= units[b], "{units:?}");
            }
        }
    }

    #[test]
    fn a_common_factor_of_the_weights_changes_nothing(
        count in 1usize..2000,
        weights in prop::collection::vec(1u32..1000, 1..=8),
        shift in -20i32..20,
    ) {
        let scaled = |factor: f64| {
            let weights: Vec<f64> = weights.iter().map(|&w| f64::from(w) * factor).collect();
            Split::weighted(count * GROUP, &weights).unwrap()
        };
        prop_assert_eq!(scaled(1.0), scaled(2f64.powi(shift)));
    }

    #[test]
    fn equal_weights_are_an_even_split(
        count in 1usize..2000,
        world in 1usize..=8,
        weight in 1e-9..1e9f64,
    ) {
        prop_assert_eq!(
            Split::weighted(count * GROUP, &vec![weight; world]).unwrap(),
            Split::even(count * GROUP, world).unwrap()
        );
    }

    #[test]
    fn explicit_splits_round_trip(units in prop::collection::vec(0usize..50, 1..=8)) {
        prop_assume!(units.iter().any(|&u| u > 0));
        let channels: Vec<usize> = units.iter().map(|u| u * GROUP).collect();
        let split = Split::explicit(&channels).unwrap();
        assert_partition(&split, channels.iter().sum(), units.len());
        let ranges: Vec<usize> = split.iter().map(|range| range.len()).collect();
        prop_assert_eq!(ranges, channels);
    }
}
