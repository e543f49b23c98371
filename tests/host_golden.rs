//! The host back end against the golden files: weights bit for bit, outputs through the public API.

mod common;

use common::golden;
use half::f16;
use trellink::host;
use trellink::reference::relative_error;
use trellink::{Group, Input, Output, RowParallel, Split, Stream};

fn f16s(bytes: &[u8]) -> Vec<f16> {
    let pairs = bytes.chunks_exact(2);
    pairs
        .map(|b| f16::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn f32s(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    let quads = bytes.chunks_exact(4);
    quads.map(|b| f32::from_le_bytes(b.try_into().unwrap()))
}

fn bits(values: &[f16]) -> Vec<u16> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_variant_decodes_the_golden_weights_bit_for_bit() {
    golden(|name, linear, file| {
        let want = bits(&f16s(file.tensor("inner").unwrap().data()));
        for (variant, got) in host::probe::decode_by_every_variant(linear) {
            assert!(bits(&got) == want, "{name} with {variant}");
        }
        assert!(bits(&host::decode(linear)) == want, "{name}");
    });
}

#[test]
fn the_layer_gives_the_golden_outputs() {
    golden(|name, linear, file| {
        let x = f16s(file.tensor("x").unwrap().data());
        let want: Vec<f64> = f32s(file.tensor("y").unwrap().data())
            .map(f64::from)
            .collect();
        let mut rank = Group::on_host(1).slot_values(1024).build().unwrap();
        let split = Split::even(linear.k(), 1).unwrap();
        let layer = RowParallel::load(&rank[0], linear, &split).unwrap();
        let mut out = vec![f32::NAN; want.len()];
        let output = Output::store(&mut out[..]);
        layer
            .forward(&mut rank[0], Stream::host(), Input::from(&x[..]), output)
            .unwrap();
        let error = relative_error(out.into_iter().map(f64::from), &want);
        assert!(error <= 1e-5, "{name}: {error:e}");
    });
}
