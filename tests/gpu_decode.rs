//! What the GPU decodes, bit for bit: the golden files' weights, and the reference's of random words.
#![cfg(feature = "cuda")]

mod common;

use common::*;
use half::f16;
use std::time::Duration;
use trellink::weights::Linear;
use trellink::{cuda, reference};

#[track_caller]
fn assert_same(got: &[f16], want: &[f16], what: &str) {
    let values = |v: &[f16]| Values::F16(v.to_vec());
    values(got).assert_same_bits(&values(want), what);
}

fn ordinals() -> std::ops::Range<usize> {
    0..cuda::devices().unwrap().len()
}

#[test]
fn every_golden_file_decodes_to_its_weights_on_cuda() {
    let Some(_platform) = Platform::cuda("golden files") else {
        return;
    };
    let _watchdog = Watchdog::new("golden files", Duration::from_secs(120));
    for ordinal in ordinals() {
        golden(|name, linear, file| {
            let inner = file.tensor("inner").unwrap().data();
            let want: Vec<f16> = inner
                .chunks_exact(2)
                .map(|b| f16::from_le_bytes([b[0], b[1]]))
                .collect();
            let got = cuda::decode(linear, ordinal).unwrap();
            assert_same(&got, &want, &format!("{name} on cuda:{ordinal}"));
        });
    }
}

#[test]
fn random_words_decode_as_the_reference_does_whole_and_as_shards_on_cuda() {
    let Some(_platform) = Platform::cuda("random words") else {
        return;
    };
    let _watchdog = Watchdog::new("random words", Duration::from_secs(120));
    let seed = Seed::new(0xdec0);
    for (i, format) in formats().into_iter().enumerate() {
        let mut rng = seed.rng(i as u64);
        let random = RandomLinear::new(&mut rng, format, 640, 384);
        let whole = random.linear();
        let shards: [(&str, Linear<'_>); 4] = [
            ("whole", whole),
            ("rows", whole.rows(128..512).unwrap()),
            ("columns", whole.columns(128..384).unwrap()),
            ("empty", whole.rows(128..128).unwrap()),
        ];
        for (name, linear) in shards {
            let want = reference::decode(&linear);
            for ordinal in ordinals() {
                let got = cuda::decode(&linear, ordinal).unwrap();
                let what = format!("{} {} bits, {name}, cuda:{ordinal}", format.0, format.1);
                assert_same(&got, &want, &what);
            }
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let linear = RandomLinear::new(&mut Seed::new(1).rng(0), formats()[0], 128, 128);
    let error = cuda::decode(&linear.linear(), 4096).unwrap_err();
    assert!(
        matches!(error, trellink::Error::CudaUnavailable { .. }),
        "{error}"
    );
}
