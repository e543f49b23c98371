//! The reader of weights reads what it says: all of them, once. Its time is a floor only then.
#![cfg(feature = "cuda")]

mod common;

use common::*;
use std::time::Duration;
use trellink::cuda::{self, WeightReader};
use trellink::format::layout::BlockLayout;
use trellink::weights::Linear;
use trellink::{Device, Group, RowParallel, Split};

/// The XOR of the words that a device holds of `linear`.
fn expected(linear: &Linear<'_>) -> u32 {
    let trellis = linear.trellis();
    let layout = BlockLayout::new(linear.bits());
    let blocks = layout.pack(linear.k(), linear.n(), |kt, nt| trellis.tile(kt, nt));
    blocks.into_iter().fold(0, |sum, word| sum ^ word)
}

#[test]
fn every_word_of_a_layer_is_read_an_odd_number_of_times_on_cuda() {
    let Some(_platform) = Platform::cuda("reader") else {
        return;
    };
    let _watchdog = Watchdog::new("reader", Duration::from_secs(120));
    let seed = Seed::new(0x5eed);
    for ordinal in 0..cuda::devices().unwrap().len() {
        let reader = WeightReader::load(ordinal).unwrap();
        let ranks = Group::new([Device::Cuda(ordinal)]).build().unwrap();
        let last = formats().len() - 1;
        for (i, format) in formats().into_iter().enumerate() {
            // More than all threads have in flight at once, but packing that much takes its time.
            let large = (i == last).then_some((4096, 8192));
            for (k, n) in [(128, 128), (640, 384)].into_iter().chain(large) {
                let random = RandomLinear::new(&mut seed.rng(i as u64), format, k, n);
                let linear = random.linear();
                let split = Split::even(k, 1).unwrap();
                let layer = RowParallel::load(&ranks[0], &linear, &split).unwrap();
                let found = reader.checksum(&layer).unwrap();
                assert_eq!(found, expected(&linear), "{format:?} {k}x{n}");
            }
        }
    }
}

#[test]
fn a_layer_elsewhere_is_refused_on_cuda() {
    let Some(_platform) = Platform::cuda("reader of a layer elsewhere") else {
        return;
    };
    let rank = &Group::on_host(1).build().unwrap()[0];
    let seed = Seed::new(0x5eed);
    let random = RandomLinear::new(&mut seed.rng(0), formats()[0], 128, 128);
    let split = Split::even(128, 1).unwrap();
    let layer = RowParallel::load(rank, &random.linear(), &split).unwrap();
    let error = WeightReader::load(0).unwrap().checksum(&layer).unwrap_err();
    assert!(error.to_string().contains("found the host"), "{error}");
}
