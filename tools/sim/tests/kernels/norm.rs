//! The RMSNorm after the epilogue.

use crate::common::*;
use half::{bf16, f16};
use rand::{rngs::StdRng, Rng, SeedableRng};
use std::time::Duration;
use trellink::format::{Codebook, DType};
use trellink::reference;
use trellink::weights::Linear;
use trellink::{Arithmetic, Epilogue, Split};
use trellink_sim::{
    Buffer, Call, Channel, Epilogues, Fault, SimGroup, SimLinear, SimNorm, SimOutput, SimRank,
};

/// About the mean of squares of these residuals, so that it counts.
const EPSILON: f32 = 30.0;

/// A row-parallel call over f16 inputs [rows, k], with all that its ranks have alike.
struct Normalised<'a> {
    linear: Linear<'a>,
    arithmetic: Arithmetic,
    x: Vec<f16>,
    residual: (DType, Vec<f32>),
    weight: (DType, Vec<f32>),
    out: DType,
}

fn buffer(dtype: DType, values: &[f32]) -> Buffer {
    let values = values.iter();
    match dtype {
        DType::F16 => Buffer::new(&values.map(|&v| f16::from_f32(v)).collect::<Vec<_>>()),
        DType::Bf16 => Buffer::new(&values.map(|&v| bf16::from_f32(v)).collect::<Vec<_>>()),
        DType::F32 => Buffer::new(&values.copied().collect::<Vec<_>>()),
    }
}

fn read(dtype: DType, buffer: &Buffer) -> Vec<f32> {
    match dtype {
        DType::F16 => buffer.read::<f16>().iter().map(|v| v.to_f32()).collect(),
        DType::Bf16 => buffer.read::<bf16>().iter().map(|v| v.to_f32()).collect(),
        DType::F32 => buffer.read(),
    }
}

impl<'a> Normalised<'a> {
    /// Of so many rows, with dtypes that differ from `variant` to variant.
    fn random(
        rng: &mut StdRng,
        linear: Linear<'a>,
        arithmetic: Arithmetic,
        rows: usize,
        variant: usize,
    ) -> Self {
        let n = linear.n();
        let mut numbers = |len: usize, range: std::ops::Range<f32>| {
            (0..len).map(|_| rng.random_range(range.clone())).collect()
        };
        let residual = (DType::ALL[variant % 3], numbers(rows * n, -9.0..9.0));
        let weight = (DType::ALL[variant / 3 % 3], numbers(n, -2.0..2.0));
        Normalised {
            linear,
            arithmetic,
            x: random_input(rng, rows * linear.k()),
            residual,
            weight,
            out: [DType::Bf16, DType::F16][variant % 2],
        }
    }

    fn rows(&self) -> usize {
        self.x.len() / self.linear.k()
    }

    /// The call of one rank: the residual, and the normalised rows if there is to be a norm.
    fn run(&self, sim: &mut SimRank, rank: usize, split: &Split, norm: bool) -> [Vec<f32>; 2] {
        let n = self.linear.n();
        let layer = SimLinear::new(&self.linear.rows(split.range(rank)).unwrap());
        let input = Buffer::new(&columns_of(&self.x, self.linear.k(), split.range(rank)));
        let output = SimOutput {
            data: buffer(self.residual.0, &self.residual.1),
            dtype: self.residual.0,
            epilogue: Epilogue::Add,
        };
        let call = Call {
            layers: &[&layer],
            input: &input,
            dtype: DType::F16,
            rows: self.rows(),
            arithmetic: self.arithmetic,
            outputs: &[&output],
        };
        let out = SimNorm {
            weight: buffer(self.weight.0, &self.weight.1),
            weight_dtype: self.weight.0,
            epsilon: EPSILON,
            data: buffer(self.out, &vec![f32::NAN; self.rows() * n]),
            dtype: self.out,
        };
        if norm {
            let epilogues = Epilogues {
                norm: Some(&out),
                ..Default::default()
            };
            sim.run_with(Channel::Group, &call, epilogues);
        } else {
            sim.run(Channel::Group, &call);
        }
        [read(output.dtype, &output.data), read(self.out, &out.data)]
    }

    /// Whether normalised rows are those of the residual beside them, as nearly as their dtype can tell.
    fn assert_right(&self, what: &str, [residual, normalised]: &[Vec<f32>; 2]) {
        let wide = |v: &[f32]| -> Vec<f64> { v.iter().map(|&v| f64::from(v)).collect() };
        let weight = read(self.weight.0, &buffer(self.weight.0, &self.weight.1));
        let want = reference::rms_norm(&wide(residual), &wide(&weight), EPSILON.into());
        let unit = if self.out == DType::F16 {
            2f64.powi(-11)
        } else {
            2f64.powi(-8)
        };
        for (i, (&got, want)) in normalised.iter().zip(want).enumerate() {
            // Half a unit in the last place, subnormals included, and f32's own rounding.
            let bound = unit * want.abs() + 2f64.powi(-25) + 1e-6 * want.abs();
            let error = (f64::from(got) - want).abs();
            // Not `error > bound`: a NaN must fail.
            assert!(error <= bound, "{what}, value {i}: {got} for {want}");
        }
    }
}

#[test]
fn every_kernel_normalises_the_stored_residual_and_leaves_it_as_without_a_norm() {
    let mut rng = StdRng::seed_from_u64(40);
    for (variant, (codebook, arithmetic, rows)) in EVERY_KERNEL.into_iter().enumerate() {
        let random = Random::new(&mut rng, 256, 384, codebook, rate(6));
        let (world, rows) = (1 + variant % 3, rows + variant % 2 * 30);
        let call = Normalised::random(&mut rng, random.linear(), arithmetic, rows, variant);
        let split = Split::even(256, 2.min(world)).unwrap();
        let mut shares = vec![0; world];
        shares[..split.world()].copy_from_slice(&split.iter().map(|r| r.len()).collect::<Vec<_>>());
        let split = Split::explicit(&shares).unwrap();
        let config = SimGroup {
            slot_values: 64 * 384,
            ..group(world)
        };
        let what = format!("{codebook} {arithmetic:?}, {rows} rows, world {world}");
        let results = on_ranks(&config, |rank, mut sim| {
            // The cut among CTAs must not show, of which ranks may have different numbers.
            sim.set_sms(3 + rank);
            let plain = call.run(&mut sim, rank, &split, false);
            let first = call.run(&mut sim, rank, &split, true);
            let second = call.run(&mut sim, rank, &split, true);
            assert_eq!(sim.report().0, 0, "{what}");
            assert_eq!(first[0], plain[0], "{what}: the residual");
            assert_eq!(first, second, "{what}: two runs");
            first
        });
        call.assert_right(&what, &results[0]);
        assert!(results.iter().all(|result| *result == results[0]), "{what}");
    }
}

/// A lane adds several sums of squares then, and waits more than once.
#[test]
fn rows_of_many_groups_are_normalised() {
    let mut rng = StdRng::seed_from_u64(41);
    for groups in [32, 33, 65, 97] {
        let random = Random::new(&mut rng, 128, groups * 128, Codebook::Mul1, rate(4));
        let call = Normalised::random(&mut rng, random.linear(), Arithmetic::Fastest, 2, groups);
        let config = SimGroup {
            slot_values: 1 << 15,
            sms: 5,
            ..group(1)
        };
        let split = Split::even(128, 1).unwrap();
        let results = on_ranks(&config, |rank, mut sim| {
            call.run(&mut sim, rank, &split, true)
        });
        call.assert_right(&format!("{groups} groups"), &results[0]);
    }
}

#[test]
fn a_call_cut_between_rows_normalises_each() {
    let mut rng = StdRng::seed_from_u64(42);
    let random = Random::new(&mut rng, 256, 256, Codebook::Mcg, rate(4));
    let call = Normalised::random(&mut rng, random.linear(), Arithmetic::Uniform, 7, 4);
    let split = Split::even(256, 2).unwrap();
    let run = |slot_values| {
        let config = SimGroup {
            slot_values,
            ..group(2)
        };
        on_ranks(&config, |rank, mut sim| {
            call.run(&mut sim, rank, &split, true)
        })
    };
    let (cut, whole) = (run(600), run(1 << 14));
    assert_eq!(cut, whole);
    call.assert_right("cut", &cut[1]);
}

/// Calls with and without a norm in turn, of the given rows; `skip` says how many epochs to skip before
/// a call. One CTA or another is late.
fn calls(config: &SimGroup, seed: u64, rows: &[(usize, bool)], skip: impl Fn(usize) -> u32 + Sync) {
    let mut rng = StdRng::seed_from_u64(seed);
    let random = Random::new(&mut rng, 256, 256, Codebook::Mul1, rate(4));
    let split = Split::even(256, config.world).unwrap();
    let calls: Vec<_> = rows
        .iter()
        .enumerate()
        .map(|(i, &(rows, norm))| {
            let arithmetic = Arithmetic::Fastest;
            let call = Normalised::random(&mut rng, random.linear(), arithmetic, rows, i);
            (call, norm)
        })
        .collect();
    on_ranks(config, |rank, mut sim| {
        sim.set_faults(&[Fault::DelayedCta]);
        for (i, (call, norm)) in calls.iter().enumerate() {
            sim.skip(Channel::Group, skip(i));
            let result = call.run(&mut sim, rank, &split, *norm);
            assert_eq!(sim.control(Channel::Group).1, 0, "call {i} failed");
            if *norm {
                call.assert_right(&format!("call {i}"), &result);
            }
        }
    });
}

#[test]
fn calls_with_and_without_a_norm_follow_one_another_across_the_wrap_of_epochs() {
    let config = SimGroup {
        first_epoch: u32::MAX - 5,
        scrub_period: 4,
        slot_values: 4096,
        ..group(2)
    };
    let rows: Vec<_> = (0..16).map(|i| (1 + i * 5 % 9, i % 3 != 1)).collect();
    calls(&config, 43, &rows, |_| 0);
}

#[test]
fn a_packet_of_a_quarter_of_all_tags_ago_is_not_taken_for_a_post() {
    // Three rows of 256 columns take a launch for two and one for the third, whose posts lie where the first has sums.
    let config = SimGroup {
        scrub_period: 4,
        slot_values: 600,
        ..group(2)
    };
    // Epochs 1 and 2, 3 to 13, and two, of which the posts of the second have the tag of epoch 1. The first of these is of
    // the other parity than the call before, in which a peer may still be.
    let skip = |call| if call == 12 { (1 << 14) - 14 } else { 0 };
    let mut rows = vec![(3, false)];
    rows.extend([(1, false); 11]);
    rows.push((3, true));
    calls(&config, 44, &rows, skip);
}

/// Rank 0 of a group of two whose other rank never calls, with a call of `n` columns: `check(call, rank, split)`.
fn alone(seed: u64, n: usize, check: impl FnOnce(&Normalised, &mut SimRank, &Split)) {
    let mut rng = StdRng::seed_from_u64(seed);
    let random = Random::new(&mut rng, 128, n, Codebook::Mul1, rate(8));
    let call = Normalised::random(&mut rng, random.linear(), Arithmetic::Fastest, 2, 0);
    let config = SimGroup {
        timeout: Duration::from_millis(200),
        ..group(2)
    };
    let split = Split::explicit(&[128, 0]).unwrap();
    check(&call, &mut config.build()[0], &split);
}

#[test]
fn a_rank_whose_peer_never_calls_blames_it_and_touches_no_output() {
    alone(45, 384, |call, rank, split| {
        let [residual, normalised] = call.run(rank, 0, split, true);
        assert_eq!(rank.report(), (1, 1, 1, 0), "timed out, on peer 1");
        let before = read(call.residual.0, &buffer(call.residual.0, &call.residual.1));
        assert_eq!(residual, before);
        assert!(normalised.iter().all(|y| y.is_nan()));
    });
}

/// Not even for what the CTAs of a rank post, which a packet that came later may have overwritten.
#[test]
fn where_no_tag_is_compared_nobody_waits() {
    alone(46, 1024, |call, rank, split| {
        rank.set_faults(&[Fault::AnyTag]);
        for i in 0..20 {
            call.run(rank, 0, split, true);
            assert_eq!(rank.report().0, 0, "call {i}");
        }
    });
}
