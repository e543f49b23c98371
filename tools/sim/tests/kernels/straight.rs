//! Kernels for one format against those for all.

use crate::common::*;
use rand::{rngs::StdRng, SeedableRng};
use trellink::format::Bits;
use trellink::plan::LinearKernel;
use trellink::{Arithmetic, Split};
use trellink_sim::{most_tokens, SimGroup, SimLinear};

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
                    let run = |straight| {
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
                            let y = row_parallel_call(&mut sim, fastest, &layer, &x, shape);
                            (y, sim.straight_launches())
                        })
                    };
                    let place = format!("{codebook} {bits} {rows} rows of {k} x {n}");
                    for ((y, count), (want, none)) in run(true).iter().zip(run(false)) {
                        assert_eq!((*count, none), (1, 0), "{place}");
                        assert_eq!(*y, want, "{place}");
                    }
                }
            }
        }
    }
}
