//! Worlds, rows, columns, chunks of K.

use crate::common::*;
use rand::{rngs::StdRng, SeedableRng};
use trellink::format::{Bits, Codebook, DType};
use trellink::reference::ReferenceLinear;
use trellink::{Arithmetic, Split};
use trellink_sim::SimGroup;

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
    // Shared memory for sums and four of five groups of 9 rows; one SM for 40 strips.
    let config = SimGroup {
        sms: 1,
        max_shared_bytes: (20 << 10) + 2 * (64 + 9 * 576),
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
    let bits = Bits::from_half_bits(6).unwrap();
    let split = Split::even(768, 2).unwrap();
    for codebook in Codebook::ALL {
        let random = Random::new(&mut rng, 768, 256, codebook, bits);
        let linear = random.linear();
        let x = random_input(&mut rng, 34 * 768);
        let run = |arithmetic, config: &SimGroup, rows: std::ops::Range<usize>| {
            let x = &x[rows.start * 768..rows.end * 768];
            row_parallel_in(arithmetic, config, &linear, &split, x, rows.len()).remove(0)
        };
        let all = run(Arithmetic::Uniform, &group(2), 0..34);
        let three_a_message = SimGroup {
            slot_values: 3 * 256,
            ..group(2)
        };
        assert_eq!(run(Arithmetic::Uniform, &three_a_message, 0..34), all);
        for row in [0, 7, 8, 32, 33] {
            let alone = run(Arithmetic::Uniform, &group(2), row..row + 1);
            assert_eq!(
                alone[..],
                all[row * 256..(row + 1) * 256],
                "{codebook} row {row}"
            );
        }
        // The fastest arithmetic promises the same within a range of M.
        let together = run(Arithmetic::Fastest, &group(2), 0..4);
        for row in [0, 3] {
            let alone = run(Arithmetic::Fastest, &group(2), row..row + 1);
            assert_eq!(
                alone[..],
                together[row * 256..(row + 1) * 256],
                "{codebook} row {row}"
            );
        }
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
fn a_world_of_eight_is_within_tolerance_and_agrees() {
    let mut rng = StdRng::seed_from_u64(22);
    let random = Random::new(&mut rng, 1024, 128, Codebook::Mul1, rate(6));
    let linear = random.linear();
    let x = random_input(&mut rng, 2 * 1024);
    let want = ReferenceLinear::new(&linear).forward(&wide(&x), 2);
    let config = SimGroup { sms: 2, ..group(8) };
    let got = row_parallel(&config, &linear, &Split::even(1024, 8).unwrap(), &x, 2);
    assert!(error(&got[0], &want) < 4e-4, "{}", error(&got[0], &want));
    assert!(got.iter().all(|y| *y == got[0]));
}

#[test]
fn launches_that_begin_within_the_columns_of_several_layers_are_within_tolerance() {
    let mut rng = StdRng::seed_from_u64(23);
    for (codebook, arithmetic, rows) in EVERY_KERNEL {
        let widths = [128, 384, 256];
        let randoms = widths.map(|n| Random::new(&mut rng, 128, n, codebook, rate(4)));
        let linears = randoms.each_ref().map(|random| random.linear());
        let x = random_input(&mut rng, rows * 128);
        // A launch for every 256 columns of a row.
        let config = SimGroup {
            slot_values: 256,
            ..group(1)
        };
        let got = column_parallel(arithmetic, &config, &linears, (&x, DType::F16), rows);
        assert_right(&format!("{arithmetic:?} M = {rows}"), &linears, &x, &got);
    }
}

#[test]
fn a_ctas_strips_may_be_odd_or_more_than_its_warps_take_at_once() {
    let mut rng = StdRng::seed_from_u64(24);
    for (codebook, arithmetic, rows) in EVERY_KERNEL {
        for half_bits in [4, 10] {
            let random = Random::new(&mut rng, 384, 640, codebook, rate(half_bits));
            let linears = [random.linear()];
            let x = random_input(&mut rng, rows * 384);
            // 40 strips; 13, 13 and 14; 5 each.
            for sms in [1, 3, 8] {
                let config = SimGroup { sms, ..group(1) };
                let got = column_parallel(arithmetic, &config, &linears, (&x, DType::F16), rows);
                let what = format!("{arithmetic:?} M = {rows} on {sms} SMs");
                assert_right(&what, &linears, &x, &got);
            }
        }
    }
}

#[test]
fn one_row_may_have_fewer_groups_than_slices() {
    let mut rng = StdRng::seed_from_u64(25);
    for (codebook, half_bits) in [
        (Codebook::Mul1, 5),
        (Codebook::Mul1, 16),
        (Codebook::Mcg, 8),
    ] {
        for k in [128, 256, 640] {
            let random = Random::new(&mut rng, k, 128, codebook, rate(half_bits));
            let linears = [random.linear()];
            let x = random_input(&mut rng, k);
            for sms in [2, 4, 8] {
                let config = SimGroup { sms, ..group(1) };
                let input = (&x[..], DType::F16);
                let got = column_parallel(Arithmetic::Fastest, &config, &linears, input, 1);
                assert_right(&format!("K = {k} on {sms} SMs"), &linears, &x, &got);
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_where_the_shared_memory_cuts_k() {
    let mut rng = StdRng::seed_from_u64(26);
    for (codebook, arithmetic, rows) in EVERY_KERNEL {
        let random = Random::new(&mut rng, 896, 640, codebook, rate(4));
        let linears = [random.linear()];
        let x = random_input(&mut rng, rows * 896);
        let run = |sms, max_shared_bytes| {
            let config = SimGroup {
                sms,
                max_shared_bytes,
                ..group(1)
            };
            column_parallel(arithmetic, &config, &linears, (&x, DType::F16), rows)
        };
        // 5 strips a CTA are 3 slices where they are not paired; 40 take turns.
        for sms in [8, 1] {
            let whole = run(sms, 1 << 20);
            assert_right(&format!("{arithmetic:?} M = {rows}"), &linears, &x, &whole);
            // Weights and sums alone take 16 KiB, those of the two widest kernels 40 and 80.
            let few = match rows {
                33.. => [100, 128],
                5..=8 => [24, 28],
                _ => [52, 64],
            };
            let cut = few.map(|kib| run(sms, kib << 10));
            let what = format!("{arithmetic:?} M = {rows}, {few:?} KiB, {sms} SMs");
            assert_right(&what, &linears, &x, &cut[0]);
            assert_eq!(cut[0], cut[1], "{what}");
            // The wide kernels take longer spans of K where there is room.
            if arithmetic == Arithmetic::Fastest && rows <= 4 {
                assert_eq!(cut[0], whole, "{what}");
            }
        }
    }
}

#[test]
fn many_rows_fit_the_smallest_shared_memory_of_an_architecture() {
    let mut rng = StdRng::seed_from_u64(27);
    let random = Random::new(&mut rng, 1024, 128, Codebook::Mul1, rate(8));
    let linears = [random.linear()];
    let x = random_input(&mut rng, 70 * 1024);
    let config = SimGroup {
        max_shared_bytes: 99 << 10,
        ..group(1)
    };
    let input = (&x[..], DType::F16);
    let got = column_parallel(Arithmetic::Fastest, &config, &linears, input, 70);
    assert_right("M = 70", &linears, &x, &got);
}
