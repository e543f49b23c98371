//! The kernels, run on the CPU, against the reference.

use half::{bf16, f16};
use rand::{rngs::StdRng, Rng, SeedableRng};
use std::time::Duration;
use trellink::format::{Bits, Codebook, DType};
use trellink::reference::{self, ReferenceLinear};
use trellink::weights::{Bias, Linear, Scales};
use trellink::{Epilogue, Split};
use trellink_sim::{Buffer, Call, Channel, SimGroup, SimLinear, SimOutput};

/// The bytes of a random linear.
struct Random {
    k: usize,
    n: usize,
    bits: Bits,
    codebook: Codebook,
    trellis: Vec<u8>,
    suh: Vec<u8>,
    svh: Vec<u8>,
    bias: Option<Vec<u8>>,
}

impl Random {
    fn new(rng: &mut StdRng, k: usize, n: usize, codebook: Codebook, bits: Bits) -> Self {
        let mut scales = |len: usize| -> Vec<u8> {
            let scale = |rng: &mut StdRng| {
                let size: f32 = rng.random_range(0.5..2.0);
                f16::from_f32(if rng.random() { size } else { -size }).to_le_bytes()
            };
            (0..len).flat_map(|_| scale(rng)).collect()
        };
        let (suh, svh) = (scales(k), scales(n));
        let trellis = (0..k * n / 256 * bits.tile_bytes())
            .map(|_| rng.random())
            .collect();
        let bias = (0..n)
            .flat_map(|_| rng.random_range(-3.0f32..3.0).to_le_bytes())
            .collect();
        Random {
            k,
            n,
            bits,
            codebook,
            trellis,
            suh,
            svh,
            bias: Some(bias),
        }
    }

    fn linear(&self) -> Linear<'_> {
        let scales = |bytes| Scales::from_f16_bytes(bytes).unwrap();
        let bias = self
            .bias
            .as_ref()
            .map(|bytes| Bias::new(bytes, DType::F32).unwrap());
        let (suh, svh) = (scales(&self.suh), scales(&self.svh));
        Linear::from_parts(
            "random",
            self.k,
            self.n,
            self.bits,
            self.codebook,
            &self.trellis,
            suh,
            svh,
            bias,
        )
        .unwrap()
    }
}

fn every_format() -> impl Iterator<Item = (Codebook, Bits)> {
    Codebook::ALL
        .into_iter()
        .flat_map(|codebook| Bits::ALL.map(|bits| (codebook, bits)))
        .filter(|(codebook, bits)| codebook.supports(*bits))
}

fn group(world: usize) -> SimGroup {
    SimGroup {
        world,
        slot_values: 1 << 14,
        first_epoch: 1,
        scrub_period: 1 << 20,
        timeout: Duration::from_secs(60),
        sms: 3,
        max_shared_bytes: 100 << 10,
    }
}

fn random_input(rng: &mut StdRng, len: usize) -> Vec<f16> {
    (0..len)
        .map(|_| f16::from_f32(rng.random_range(-2.0..2.0)))
        .collect()
}

/// Columns [range] of every row of x.
fn columns_of(x: &[f16], k: usize, range: std::ops::Range<usize>) -> Vec<f16> {
    x.chunks(k.max(1))
        .flat_map(|row| row[range.clone()].to_vec())
        .collect()
}

/// Runs a row-parallel call on all ranks at once; the f32 outputs of each.
fn row_parallel(
    config: &SimGroup,
    linear: &Linear<'_>,
    split: &Split,
    x: &[f16],
    rows: usize,
) -> Vec<Vec<f32>> {
    let run = |(rank, mut sim): (usize, trellink_sim::SimRank)| {
        let layer = SimLinear::new(&linear.rows(split.range(rank)).unwrap());
        let input = Buffer::new(&columns_of(x, linear.k(), split.range(rank)));
        let output = SimOutput {
            data: Buffer::new(&vec![f32::NAN; rows * linear.n()]),
            dtype: DType::F32,
            epilogue: Epilogue::Store,
        };
        let call = Call {
            layers: &[&layer],
            input: &input,
            dtype: DType::F16,
            rows,
            outputs: &[&output],
        };
        sim.run(Channel::Group, &call);
        assert_eq!(sim.report().0, 0, "rank {rank} reported a failure");
        output.data.read::<f32>()
    };
    std::thread::scope(|scope| {
        let ranks: Vec<_> = config
            .build()
            .into_iter()
            .enumerate()
            .map(|r| scope.spawn(move || run(r)))
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn error(got: &[f32], want: &[f64]) -> f64 {
    reference::relative_error(got.iter().map(|&y| f64::from(y)), want)
}

fn wide(x: &[f16]) -> Vec<f64> {
    x.iter().map(|x| x.to_f64()).collect()
}

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

#[test]
fn worlds_and_rows_and_uneven_and_empty_shards_are_within_tolerance() {
    let mut rng = StdRng::seed_from_u64(3);
    let bits = Bits::from_half_bits(8).unwrap();
    for (world, rows, channels) in [
        (1, 1, vec![512]),
        (1, 9, vec![512]),
        (2, 33, vec![512, 0]),
        (3, 8, vec![128, 0, 384]),
        (4, 17, vec![0, 256, 128, 128]),
        (5, 2, vec![128, 128, 0, 128, 128]),
    ] {
        let random = Random::new(&mut rng, 512, 256, Codebook::Mul1, bits);
        let linear = random.linear();
        let x = random_input(&mut rng, rows * 512);
        let want = ReferenceLinear::new(&linear).forward(&wide(&x), rows);
        let got = row_parallel(
            &group(world),
            &linear,
            &Split::explicit(&channels).unwrap(),
            &x,
            rows,
        );
        for y in &got {
            assert!(
                error(y, &want) < 4e-4,
                "world {world} rows {rows}: {}",
                error(y, &want)
            );
            assert_eq!(*y, got[0]);
        }
    }
}

#[test]
fn chunked_k_and_many_strips_a_cta_are_within_tolerance() {
    let mut rng = StdRng::seed_from_u64(4);
    let bits = Bits::from_half_bits(6).unwrap();
    // Shared memory for two groups of 9 rows; one SM for 40 strips.
    let config = SimGroup {
        sms: 1,
        max_shared_bytes: (40 << 10) + 6000,
        ..group(1)
    };
    let random = Random::new(&mut rng, 640, 640, Codebook::Mcg, bits);
    let linear = random.linear();
    let x = random_input(&mut rng, 9 * 640);
    let want = ReferenceLinear::new(&linear).forward(&wide(&x), 9);
    let got = row_parallel(&config, &linear, &Split::even(640, 1).unwrap(), &x, 9);
    assert!(error(&got[0], &want) < 4e-4, "{}", error(&got[0], &want));
}

#[test]
fn a_rows_bits_do_not_depend_on_the_batch_or_the_message() {
    let mut rng = StdRng::seed_from_u64(5);
    let bits = Bits::from_half_bits(7).unwrap();
    let random = Random::new(&mut rng, 384, 256, Codebook::Mul1, bits);
    let linear = random.linear();
    let split = Split::even(384, 2).unwrap();
    let x = random_input(&mut rng, 34 * 384);
    let all = &row_parallel(&group(2), &linear, &split, &x, 34)[0];
    let few = SimGroup {
        slot_values: 3 * 256,
        ..group(2)
    };
    assert_eq!(
        &row_parallel(&few, &linear, &split, &x, 34)[0],
        all,
        "three rows a message"
    );
    for row in [0, 7, 8, 32, 33] {
        let alone = &row_parallel(
            &group(2),
            &linear,
            &split,
            &x[row * 384..(row + 1) * 384],
            1,
        )[0];
        assert_eq!(alone[..], all[row * 256..(row + 1) * 256], "row {row}");
    }
}

#[test]
fn columns_are_cut_where_a_row_does_not_fit_a_slot() {
    let mut rng = StdRng::seed_from_u64(6);
    let bits = Bits::from_half_bits(8).unwrap();
    let random = Random::new(&mut rng, 256, 640, Codebook::Mul1, bits);
    let linear = random.linear();
    let x = random_input(&mut rng, 2 * 256);
    let want = ReferenceLinear::new(&linear).forward(&wide(&x), 2);
    let config = SimGroup {
        slot_values: 256,
        ..group(2)
    };
    let got = row_parallel(&config, &linear, &Split::even(256, 2).unwrap(), &x, 2);
    assert!(error(&got[1], &want) < 4e-4, "{}", error(&got[1], &want));
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
fn many_calls_wrap_the_epoch_and_scrub_and_stay_right() {
    let mut rng = StdRng::seed_from_u64(10);
    let config = SimGroup {
        first_epoch: u32::MAX - 3,
        scrub_period: 4,
        slot_values: 1024,
        ..group(2)
    };
    let random = Random::new(
        &mut rng,
        256,
        128,
        Codebook::Mul1,
        Bits::from_half_bits(4).unwrap(),
    );
    let linear = random.linear();
    let split = Split::even(256, 2).unwrap();
    let inputs: Vec<Vec<f16>> = (0..12)
        .map(|i| random_input(&mut rng, (i % 5 + 1) * 256))
        .collect();
    let reference = ReferenceLinear::new(&linear);
    let run = |(rank, mut sim): (usize, trellink_sim::SimRank)| {
        let layer = SimLinear::new(&linear.rows(split.range(rank)).unwrap());
        for x in &inputs {
            let rows = x.len() / 256;
            let input = Buffer::new(&columns_of(x, 256, split.range(rank)));
            let output = SimOutput {
                data: Buffer::new(&vec![f32::NAN; rows * 128]),
                dtype: DType::F32,
                epilogue: Epilogue::Store,
            };
            let call = Call {
                layers: &[&layer],
                input: &input,
                dtype: DType::F16,
                rows,
                outputs: &[&output],
            };
            sim.run(Channel::Group, &call);
            let want = reference.forward(&wide(x), rows);
            assert!(error(&output.data.read::<f32>(), &want) < 4e-4);
        }
        assert_eq!(
            sim.control(Channel::Group),
            ((u32::MAX - 3).wrapping_add(12), 0)
        );
    };
    std::thread::scope(|scope| {
        for rank in config.build().into_iter().enumerate() {
            let run = &run;
            scope.spawn(move || run(rank));
        }
    });
}

#[test]
fn a_rank_whose_peer_never_calls_gives_up_names_it_and_stays_failed() {
    let mut rng = StdRng::seed_from_u64(11);
    let config = SimGroup {
        timeout: Duration::from_millis(200),
        ..group(2)
    };
    let random = Random::new(
        &mut rng,
        128,
        128,
        Codebook::Mul1,
        Bits::from_half_bits(8).unwrap(),
    );
    let layer = SimLinear::new(&random.linear());
    let input = Buffer::new(&random_input(&mut rng, 128));
    let output = SimOutput {
        data: Buffer::new(&[f32::NAN; 128]),
        dtype: DType::F32,
        epilogue: Epilogue::Store,
    };
    let call = Call {
        layers: &[&layer],
        input: &input,
        dtype: DType::F16,
        rows: 1,
        outputs: &[&output],
    };
    let mut ranks = config.build();
    ranks[0].run(Channel::Group, &call);
    assert_eq!(
        ranks[0].report(),
        (1, 1, 1, 0),
        "timed out, on peer 1, at epoch 1"
    );
    assert_eq!(ranks[0].control(Channel::Group).1, 1);
    let begun = std::time::Instant::now();
    ranks[0].run(Channel::Group, &call);
    assert!(
        begun.elapsed() < Duration::from_millis(150),
        "a failed group's launch returns at once"
    );
    assert!(
        output.data.read::<f32>().iter().all(|y| y.is_nan()),
        "outputs are untouched"
    );
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
