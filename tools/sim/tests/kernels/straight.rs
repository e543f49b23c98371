//! Kernels for one format against those for all.

use crate::common::*;
use rand::{rngs::StdRng, SeedableRng};
use trellink::format::{Bits, DType};
use trellink::plan::LinearKernel;
use trellink::{Arithmetic, Split};
use trellink_sim::{most_tokens, Buffer, Epilogues, SimGroup, SimLinear, SimNorm};

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
                            let split = Split::even(k, 2).unwrap();
                            let range = split.range(rank);
                            let layer = SimLinear::new(&linear.rows(range.clone()).unwrap());
                            let x = columns_of(&x, k, range);
                            let shape = (rows, n);
                            let fastest = Arithmetic::Fastest;
                            let out = norm_of(rows, n);
                            let epilogues = Epilogues {
                                norm: norm.then_some(&out),
                                ..Default::default()
                            };
                            let y = row_parallel_call_with(
                                &mut sim, fastest, &layer, &x, shape, epilogues,
                            );
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
