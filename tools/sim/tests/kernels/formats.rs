//! Every codebook and bitrate, alone and together.

use crate::common::*;
use rand::{rngs::StdRng, SeedableRng};
use trellink::format::{Bits, Codebook, DType};
use trellink::reference::{self, ReferenceLinear};
use trellink::{Arithmetic, Checkpoint, Epilogue, Split};
use trellink_sim::{Buffer, Call, Channel, SimLinear, SimOutput};

#[test]
fn the_decode_kernel_forms_every_weight_bit_for_bit() {
    let mut rng = StdRng::seed_from_u64(1);
    for (codebook, bits) in every_format() {
        let random = Random::new(&mut rng, 256, 128, codebook, bits);
        let same = trellink_sim::decode(&random.linear())
            .iter()
            .zip(reference::decode(&random.linear()))
            .all(|(got, want)| got.to_bits() == want.to_bits());
        assert!(same, "{codebook} {bits}");
    }
}

#[test]
fn every_format_is_within_tolerance_over_two_ranks() {
    let mut rng = StdRng::seed_from_u64(2);
    for (codebook, bits) in every_format() {
        let random = Random::new(&mut rng, 384, 128, codebook, bits);
        let linear = random.linear();
        let rows = 3;
        let x = random_input(&mut rng, rows * 384);
        let want = ReferenceLinear::new(&linear).forward(&wide(&x), rows);
        let split = Split::explicit(&[128, 256]).unwrap();
        let got = row_parallel(&group(2), &linear, &split, &x, rows);
        assert!(
            error(&got[0], &want) < 4e-4,
            "{codebook} {bits}: {}",
            error(&got[0], &want)
        );
        assert_eq!(got[0], got[1], "{codebook} {bits}");
    }
}

/// Its transformed outputs cancel: an arithmetic that leaves out a rounding of the format's weights shows it.
#[test]
fn a_real_layer_whose_outputs_cancel_is_exact_to_f32() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data");
    let checkpoint = Checkpoint::open(format!("{data}/models/austen-3bpw-mcg")).unwrap();
    let linear = checkpoint.linear("lm_head").unwrap();
    let reference = ReferenceLinear::new(&linear);
    let split = Split::even(linear.k(), 2).unwrap();
    let mut rng = StdRng::seed_from_u64(14);
    for rows in 1..=4 {
        let x = random_input(&mut rng, rows * linear.k());
        let want = reference.forward(&wide(&x), rows);
        let got = row_parallel(&group(2), &linear, &split, &x, rows);
        let error = error(&got[0], &want);
        assert!(error < 2e-6, "{rows} rows: {error}");
    }
}

#[test]
fn every_kernel_is_within_tolerance_for_every_format_it_serves() {
    let mut rng = StdRng::seed_from_u64(13);
    let split = Split::even(256, 1).unwrap();
    for (codebook, bits) in every_format() {
        let random = Random::new(&mut rng, 256, 128, codebook, bits);
        let linear = random.linear();
        let reference = ReferenceLinear::new(&linear);
        for (arithmetic, rows) in [
            (Arithmetic::Fastest, 4),
            (Arithmetic::Fastest, 7),
            (Arithmetic::Fastest, 15),
            (Arithmetic::Uniform, 2),
            (Arithmetic::Uniform, 12),
            (Arithmetic::Uniform, 31),
        ] {
            let x = random_input(&mut rng, rows * 256);
            let want = reference.forward(&wide(&x), rows);
            let got = &row_parallel_in(arithmetic, &group(1), &linear, &split, &x, rows)[0];
            let error = error(got, &want);
            assert!(
                error < 4e-4,
                "{codebook} {bits} {arithmetic:?} M = {rows}: {error}"
            );
        }
    }
}

#[test]
fn several_layers_of_different_formats_in_one_launch() {
    let mut rng = StdRng::seed_from_u64(7);
    let rate = |half_bits| Bits::from_half_bits(half_bits).unwrap();
    let randoms = [
        Random::new(&mut rng, 256, 256, Codebook::Mul1, rate(5)),
        Random::new(&mut rng, 256, 128, Codebook::Mcg, rate(12)),
        Random::new(&mut rng, 256, 384, Codebook::ThreeInst, rate(16)),
    ];
    let x = random_input(&mut rng, 4 * 256);
    let layers: Vec<SimLinear> = randoms
        .iter()
        .map(|r| SimLinear::new(&r.linear()))
        .collect();
    let outputs = randoms.each_ref().map(|r| SimOutput {
        data: Buffer::new(&vec![f32::NAN; 4 * r.n]),
        dtype: DType::F32,
        epilogue: Epilogue::Store,
    });
    let input = Buffer::new(&x);
    let call = Call {
        layers: &layers.iter().collect::<Vec<_>>(),
        input: &input,
        dtype: DType::F16,
        rows: 4,
        arithmetic: Arithmetic::Fastest,
        outputs: &outputs.iter().collect::<Vec<_>>(),
    };
    group(2).build()[1].run(Channel::Local, &call);
    for (random, output) in randoms.iter().zip(&outputs) {
        let want = ReferenceLinear::new(&random.linear()).forward(&wide(&x), 4);
        let got = output.data.read::<f32>();
        assert!(
            error(&got, &want) < 4e-4,
            "{}: {}",
            random.bits,
            error(&got, &want)
        );
    }
}

#[test]
fn layers_of_both_families_share_a_launch_for_every_number_of_tokens_of_a_pass() {
    let mut rng = StdRng::seed_from_u64(20);
    let mul1 = Random::new(&mut rng, 256, 128, Codebook::Mul1, rate(3));
    let mcg = Random::new(&mut rng, 256, 256, Codebook::Mcg, rate(6));
    let linears = [mul1.linear(), mcg.linear()];
    for rows in [1, 9, 20] {
        let x = random_input(&mut rng, rows * 256);
        let input = (&x[..], DType::F16);
        let got = column_parallel(Arithmetic::Fastest, &group(1), &linears, input, rows);
        assert_right(&format!("M = {rows}"), &linears, &x, &got);
    }
}

#[test]
fn equal_families_share_a_launch_in_their_own_arithmetic() {
    let mut rng = StdRng::seed_from_u64(21);
    for (codebooks, rates) in [
        ([Codebook::Mul1, Codebook::Mul1], [4, 10]),
        ([Codebook::Mcg, Codebook::ThreeInst], [16, 8]),
    ] {
        let randoms = [0, 1].map(|i| Random::new(&mut rng, 256, 256, codebooks[i], rate(rates[i])));
        let linears = [randoms[0].linear(), randoms[1].linear()];
        for rows in [2, 6] {
            let x = random_input(&mut rng, rows * 256);
            let input = (&x[..], DType::F16);
            let got = column_parallel(Arithmetic::Fastest, &group(1), &linears, input, rows);
            assert_right(&format!("M = {rows}"), &linears, &x, &got);
        }
    }
}
