//! Kernels for one format against those for all.

use crate::common::*;
use crate::faults::{OK, STOPPED};
use half::f16;
use rand::{rngs::StdRng, SeedableRng};
use std::time::Duration;
use trellink::format::{Bits, Codebook, DType, GROUP};
use trellink::plan::LinearKernel;
use trellink::weights::Linear;
use trellink::{Arithmetic, Split};
use trellink_sim::{most_tokens, Buffer, Epilogues, Fault, SimGroup, SimLinear, SimNorm, SimRank};

/// Rows that the fastest arithmetic gives to a kernel.
fn rows(kernel: LinearKernel) -> &'static [usize] {
    match kernel {
        LinearKernel::Bytes4 | LinearKernel::Formed4 => &[1, 4],
        LinearKernel::Wide8 => &[5, 8],
        LinearKernel::Wide16 => &[16],
        LinearKernel::Wide32 => &[27],
        LinearKernel::Wide64 => &[60],
    }
}

/// What normalised rows hold that nobody has written: a NaN.
const POISON: u16 = 0x7fff;

fn norm_of(rows: usize, n: usize) -> SimNorm {
    SimNorm {
        weight: Buffer::new(&vec![1f32; n]),
        weight_dtype: DType::F32,
        epsilon: 1e-5,
        data: Buffer::new(&vec![POISON; rows * n]),
        dtype: DType::Bf16,
    }
}

/// One of two ranks' part of a call of `linear` with rows `x`, in the fastest arithmetic.
fn call(
    sim: &mut SimRank,
    rank: usize,
    linear: &Linear<'_>,
    x: &[f16],
    (rows, n): (usize, usize),
    epilogues: Epilogues<'_>,
) -> Vec<f32> {
    let k = x.len() / rows;
    let range = Split::even(k, 2).unwrap().range(rank);
    let layer = SimLinear::new(&linear.rows(range.clone()).unwrap());
    let x = columns_of(x, k, range);
    row_parallel_call_with(sim, Arithmetic::Fastest, &layer, &x, (rows, n), epilogues)
}

#[test]
fn kernels_for_one_format_give_the_bits_of_those_for_all() {
    let mut rng = StdRng::seed_from_u64(81);
    // On two SMs of the machine without clusters and on one pair: strips in pairs and alone, operands of the CTA's
    // own and of a launch ahead, some in rings; the last one's output in whole groups.
    for (k, n, cluster_pairs) in [(128, 128, 0), (768, 128, 0), (512, 128, 1), (2176, 128, 1)] {
        for kernel in LinearKernel::ALL {
            for &(codebook, half_bits) in kernel.straight_formats() {
                let bits = Bits::from_half_bits(half_bits).unwrap();
                let random = Random::new(&mut rng, k, n, codebook, bits);
                let linear = random.linear();
                // What has no kernel on this architecture takes passes of another.
                for &rows in rows(kernel).iter().filter(|&&rows| rows <= most_tokens()) {
                    let x = random_input(&mut rng, rows * k);
                    let run = |straight, norm: bool| {
                        let config = SimGroup {
                            sms: 2,
                            max_shared_bytes: 227 << 10,
                            cluster_pairs,
                            straight,
                            ..group(2)
                        };
                        on_ranks(&config, |rank, mut sim| {
                            let out = norm_of(rows, n);
                            let epilogues = Epilogues {
                                norm: norm.then_some(&out),
                                ..Default::default()
                            };
                            let y = call(&mut sim, rank, &linear, &x, (rows, n), epilogues);
                            let normalised: Vec<u16> = out.data.read();
                            (y, normalised, sim.straight_launches())
                        })
                    };
                    for norm in [false, true] {
                        let place = format!("{codebook} {bits} {rows} rows of {k} x {n}, {norm}");
                        for (got, want) in run(true, norm).iter().zip(run(false, norm)) {
                            assert_eq!((got.2, want.2), (1, 0), "{place}");
                            assert_eq!(got.0, want.0, "{place}");
                            assert_eq!(got.1, want.1, "{place}");
                            let left = got.1.iter().all(|&value| value == POISON);
                            assert_eq!(left, !norm, "{place}");
                        }
                    }
                }
            }
        }
    }
}

/// From 48 groups of a CTA on, spans have four, of which one sets out before the input is there and the others behind it;
/// the last one here has two.
#[test]
fn spans_that_set_out_in_two_parts_give_the_bits_of_whole_ones() {
    let mut rng = StdRng::seed_from_u64(83);
    let (k, n) = (2 * 50 * GROUP, 128);
    let random = Random::new(&mut rng, k, n, Codebook::Mul1, rate(8));
    let linear = random.linear();
    for rows in [8, 16] {
        let x = random_input(&mut rng, rows * k);
        let run = |straight| {
            let config = SimGroup {
                sms: 2,
                max_shared_bytes: 227 << 10,
                straight,
                ..group(2)
            };
            on_ranks(&config, |rank, mut sim| {
                let y = call(&mut sim, rank, &linear, &x, (rows, n), Epilogues::default());
                (y, sim.straight_launches())
            })
        };
        for (got, want) in run(true).iter().zip(run(false)) {
            assert_eq!(got.0, want.0, "{rows} rows");
            // Where there are no rings, the input of 16 comes in chunks.
            assert!(got.1 == 1 || rows == 16, "{rows} rows");
            assert_eq!(want.1, 0);
        }
    }
}

/// A peer's word to stop may come between the loads of two CTAs of a cluster: one does not begin, the other does. The
/// launch ends all the same, on this rank as told to stop, and on the other, which waits in vain, by its deadline. (That
/// the sums of the one stay until the other has read them is not seen here.)
#[test]
fn a_cluster_of_which_one_cta_is_told_to_stop_ends() {
    let mut rng = StdRng::seed_from_u64(82);
    // In the first epoch of these old tags are rewritten, in the second not.
    let n = 128;
    for (k, first_epoch) in [(512, 1), (512, 2), (2176, 1), (2176, 2)] {
        for kernel in LinearKernel::ALL {
            let Some(&(codebook, half_bits)) = kernel.straight_formats().first() else {
                continue;
            };
            let bits = Bits::from_half_bits(half_bits).unwrap();
            let rows = rows(kernel)[0];
            if rows > most_tokens() {
                continue;
            }
            let random = Random::new(&mut rng, k, n, codebook, bits);
            let linear = random.linear();
            let x = random_input(&mut rng, rows * k);
            let config = SimGroup {
                sms: 2,
                max_shared_bytes: 227 << 10,
                cluster_pairs: 1,
                scrub_period: 4,
                first_epoch,
                timeout: Duration::from_millis(50),
                ..group(2)
            };
            let states = on_ranks(&config, |rank, mut sim| {
                if rank == 0 {
                    sim.set_faults(&[Fault::HalfStopped]);
                }
                call(&mut sim, rank, &linear, &x, (rows, n), Epilogues::default());
                assert_eq!(sim.straight_launches(), 1);
                sim.report().0
            });
            let place = format!("{codebook} {bits} {rows} rows of {k} x {n}, epoch {first_epoch}");
            assert_eq!(states[0], STOPPED, "{place}");
            assert_ne!(
                states[1], OK,
                "{place}: it waits for what rank 0 has not sent"
            );
        }
    }
}
