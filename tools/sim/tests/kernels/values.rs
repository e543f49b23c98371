//! Magnitudes of the input, and what happens to the output.

use crate::common::*;
use half::{bf16, f16};
use rand::{rngs::StdRng, Rng, SeedableRng};
use trellink::format::{Bits, Codebook, DType};
use trellink::reference::ReferenceLinear;
use trellink::{Arithmetic, Epilogue, Split};
use trellink_sim::{Buffer, Call, Channel, SimLinear, SimOutput};

#[test]
fn epilogues_round_once_and_add_in_f32() {
    let mut rng = StdRng::seed_from_u64(8);
    let random = Random::new(
        &mut rng,
        128,
        128,
        Codebook::Mcg,
        Bits::from_half_bits(8).unwrap(),
    );
    let layer = SimLinear::new(&random.linear());
    let x: Vec<bf16> = (0..2 * 128)
        .map(|_| bf16::from_f32(rng.random_range(-2.0..2.0)))
        .collect();
    let residual: Vec<f32> = (0..2 * 128)
        .map(|_| f16::from_f32(rng.random_range(-9.0..9.0)).to_f32())
        .collect();
    let mut rank = group(1).build().remove(0);
    let mut run = |data: Buffer, dtype, epilogue| {
        let output = SimOutput {
            data,
            dtype,
            epilogue,
        };
        let input = Buffer::new(&x);
        let call = Call {
            layers: &[&layer],
            input: &input,
            dtype: DType::Bf16,
            rows: 2,
            arithmetic: Arithmetic::Fastest,
            outputs: &[&output],
        };
        rank.run(Channel::Local, &call);
        output.data
    };
    let y: Vec<f32> = run(Buffer::new(&[f32::NAN; 256]), DType::F32, Epilogue::Store).read();
    let want = ReferenceLinear::new(&random.linear())
        .forward(&x.iter().map(|x| x.to_f64()).collect::<Vec<_>>(), 2);
    assert!(error(&y, &want) < 4e-4, "{}", error(&y, &want));

    let sum: Vec<f32> = y.iter().zip(&residual).map(|(y, r)| y + r).collect();
    let f32s: Vec<f32> = run(Buffer::new(&residual), DType::F32, Epilogue::Add).read();
    assert_eq!(f32s, sum);
    let start: Vec<f16> = residual.iter().map(|&r| f16::from_f32(r)).collect();
    let f16s: Vec<f16> = run(Buffer::new(&start), DType::F16, Epilogue::Add).read();
    assert_eq!(
        f16s,
        sum.iter().map(|&s| f16::from_f32(s)).collect::<Vec<_>>()
    );
    let bf16s: Vec<bf16> = run(Buffer::new(&[bf16::NAN; 256]), DType::Bf16, Epilogue::Store).read();
    assert_eq!(
        bf16s,
        y.iter().map(|&y| bf16::from_f32(y)).collect::<Vec<_>>()
    );
}

#[test]
fn inputs_of_every_magnitude_keep_their_precision() {
    let mut rng = StdRng::seed_from_u64(9);
    // A bias would hide the error of small outputs.
    let random = Random {
        bias: None,
        ..Random::new(
            &mut rng,
            256,
            128,
            Codebook::Mul1,
            Bits::from_half_bits(8).unwrap(),
        )
    };
    let linear = random.linear();
    for exponent in [-14, -8, 0, 14] {
        let x: Vec<f16> = random_input(&mut rng, 256)
            .iter()
            .map(|x| f16::from_f32(x.to_f32() * 2f32.powi(exponent)))
            .collect();
        let want = ReferenceLinear::new(&linear).forward(&wide(&x), 1);
        let got = row_parallel(&group(1), &linear, &Split::even(256, 1).unwrap(), &x, 1);
        assert!(
            error(&got[0], &want) < 4e-4,
            "2^{exponent}: {}",
            error(&got[0], &want)
        );
    }
}

#[test]
fn infinities_and_nan_reach_the_output_and_no_other_row() {
    let mut rng = StdRng::seed_from_u64(12);
    let random = Random::new(
        &mut rng,
        256,
        128,
        Codebook::Mul1,
        Bits::from_half_bits(8).unwrap(),
    );
    let linear = random.linear();
    let mut x = random_input(&mut rng, 3 * 256);
    let clean = row_parallel(&group(1), &linear, &Split::even(256, 1).unwrap(), &x, 3).remove(0);
    x[256 + 5] = f16::INFINITY;
    let got = row_parallel(&group(1), &linear, &Split::even(256, 1).unwrap(), &x, 3).remove(0);
    assert!(got[128..256].iter().all(|y| !y.is_finite()));
    assert_eq!(got[..128], clean[..128]);
    assert_eq!(got[256..], clean[256..]);
}

/// The error of every row by itself: a great one must not hide that of a small one.
fn row_errors(got: &[f32], want: &[f64], n: usize) -> Vec<f64> {
    let rows = got.chunks(n).zip(want.chunks(n));
    rows.map(|(got, want)| error(got, want)).collect()
}

#[test]
fn rows_of_every_magnitude_of_bf16_keep_their_precision_side_by_side() {
    let mut rng = StdRng::seed_from_u64(28);
    for (codebook, arithmetic, rows) in EVERY_KERNEL {
        let random = Random {
            bias: None,
            ..Random::new(&mut rng, 256, 128, codebook, rate(6))
        };
        let linears = [random.linear()];
        let magnitudes = [1e-30, 1.0, 1e34, 1e-20, 1e9];
        let x: Vec<bf16> = (0..rows * 256)
            .map(|i| rng.random_range(-1.0f32..1.0) * magnitudes[i / 256 % 5])
            .map(bf16::from_f32)
            .collect();
        let wide: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
        let want = ReferenceLinear::new(&linears[0]).forward(&wide, rows);
        let got = column_parallel(arithmetic, &group(1), &linears, (&x, DType::Bf16), rows);
        for (row, error) in row_errors(&got[0], &want, 128).iter().enumerate() {
            assert!(
                *error < 4e-4,
                "{codebook} {arithmetic:?} row {row}: {error}"
            );
        }
    }
}

#[test]
fn the_smallest_normal_inputs_keep_their_precision_where_weights_meet_fp16() {
    let mut rng = StdRng::seed_from_u64(29);
    for arithmetic in [Arithmetic::Uniform, Arithmetic::Fastest] {
        let random = Random {
            bias: None,
            ..Random::new(&mut rng, 256, 128, Codebook::Mcg, rate(6))
        };
        let linears = [random.linear()];
        let x: Vec<bf16> = (0..256)
            .map(|_| bf16::from_f32(rng.random_range(-1.0f32..1.0) * 4e-36))
            .collect();
        let wide: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
        let want = ReferenceLinear::new(&linears[0]).forward(&wide, 1);
        let got = column_parallel(arithmetic, &group(1), &linears, (&x, DType::Bf16), 1);
        assert!(error(&got[0], &want) < 4e-4, "{}", error(&got[0], &want));
    }
}

#[test]
fn rows_of_zeros_of_either_sign_and_of_vanishing_values_are_the_bias() {
    let mut rng = StdRng::seed_from_u64(30);
    for (codebook, arithmetic, rows) in EVERY_KERNEL {
        let random = Random::new(&mut rng, 256, 128, codebook, rate(6));
        let linears = [random.linear()];
        let bias = linears[0].bias().unwrap().to_vec();
        let values = [0.0, -0.0, 1e-38, -1e-40].map(bf16::from_f32);
        let x: Vec<bf16> = (0..rows * 256).map(|i| values[i / 256 % 4]).collect();
        let got = column_parallel(arithmetic, &group(1), &linears, (&x, DType::Bf16), rows);
        for row in got[0].chunks(128) {
            assert_eq!(row, bias, "{codebook} {arithmetic:?}");
        }
    }
}

#[test]
fn what_overflows_becomes_infinite_or_nan_and_touches_no_other_row() {
    let mut rng = StdRng::seed_from_u64(31);
    for (codebook, arithmetic, rows) in EVERY_KERNEL {
        let random = Random::new(&mut rng, 256, 128, codebook, rate(6));
        let linears = [random.linear()];
        let mut x: Vec<bf16> = (0..rows * 256)
            .map(|_| bf16::from_f32(rng.random_range(-1.0f32..1.0)))
            .collect();
        let run = |x: &[bf16]| {
            column_parallel(arithmetic, &group(1), &linears, (x, DType::Bf16), rows).remove(0)
        };
        let clean = run(&x);
        for great in [3e38, -f32::INFINITY, f32::NAN] {
            x[256..512].fill(bf16::from_f32(great));
            let got = run(&x);
            let what = format!("{codebook} {arithmetic:?} {great}");
            assert!(got[128..256].iter().all(|y| !y.is_finite()), "{what}");
            assert_eq!(got[..128], clean[..128], "{what}");
            assert_eq!(got[256..], clean[256..], "{what}");
        }
    }
}

#[test]
fn equal_weights_of_byte_sums_are_centred_to_a_unit() {
    let mut rng = StdRng::seed_from_u64(32);
    let ones = f16::ONE.to_le_bytes().repeat(128);
    let random = Random::new(&mut rng, 128, 128, Codebook::Mul1, rate(8));
    let random = Random {
        trellis: vec![0xff; random.trellis.len()],
        suh: ones.clone(),
        svh: ones,
        bias: None,
        ..random
    };
    // State 0xffff makes bytes whose sum is 414; the transform of ones is one value.
    let weight = (887.0 * 414.0 - 452608.0) / 131072.0;
    // More rows take formed weights, which the format rounds.
    for rows in [1, 3, 4] {
        let x = vec![f16::ONE; rows * 128];
        let input = (&x[..], DType::F16);
        let got = column_parallel(
            Arithmetic::Fastest,
            &group(1),
            &[random.linear()],
            input,
            rows,
        );
        for row in got[0].chunks(128) {
            let error = (f64::from(row[0]) / (128.0 * weight) - 1.0).abs();
            assert!(error < 1e-6, "{error}");
            assert!(row[1..].iter().all(|y| *y == 0.0));
        }
    }
}

#[test]
fn residuals_of_every_type_are_added_before_the_one_rounding() {
    let mut rng = StdRng::seed_from_u64(33);
    let random = Random::new(&mut rng, 128, 256, Codebook::Mul1, rate(8));
    let layer = SimLinear::new(&random.linear());
    let x = random_input(&mut rng, 3 * 128);
    let residual: Vec<f32> = (0..3 * 256)
        .map(|_| bf16::from_f32(rng.random_range(-9.0..9.0)).to_f32())
        .collect();
    let y = column_parallel(
        Arithmetic::Fastest,
        &group(1),
        &[random.linear()],
        (&x, DType::F16),
        3,
    )
    .remove(0);
    let sum: Vec<f32> = y.iter().zip(&residual).map(|(y, r)| y + r).collect();
    let run = |data, dtype| {
        let output = SimOutput {
            data,
            dtype,
            epilogue: Epilogue::Add,
        };
        let input = Buffer::new(&x);
        let call = Call {
            layers: &[&layer],
            input: &input,
            dtype: DType::F16,
            rows: 3,
            arithmetic: Arithmetic::Fastest,
            outputs: &[&output],
        };
        group(1).build()[0].run(Channel::Local, &call);
        output.data
    };
    let halves: Vec<f16> = residual.iter().map(|&r| f16::from_f32(r)).collect();
    let got: Vec<f16> = run(Buffer::new(&halves), DType::F16).read();
    let want: Vec<f16> = sum.iter().map(|&s| f16::from_f32(s)).collect();
    assert_eq!(got, want);
    let brains: Vec<bf16> = residual.iter().map(|&r| bf16::from_f32(r)).collect();
    let got: Vec<bf16> = run(Buffer::new(&brains), DType::Bf16).read();
    let want: Vec<bf16> = sum.iter().map(|&s| bf16::from_f32(s)).collect();
    assert_eq!(got, want);
}
