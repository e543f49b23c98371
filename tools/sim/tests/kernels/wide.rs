//! K shared by the CTAs of clusters, and inputs that a launch of their own transforms.

use crate::common::*;
use half::bf16;
use rand::{rngs::StdRng, Rng, SeedableRng};
use trellink::format::{Codebook, DType};
use trellink::reference::ReferenceLinear;
use trellink::{Arithmetic, Choices, Split};
use trellink_sim::SimGroup;

/// So many K channels that CTAs share them where there are clusters.
const K: usize = 4096;

fn clusters(pairs: usize, world: usize) -> SimGroup {
    SimGroup {
        sms: 2 * pairs,
        cluster_pairs: pairs,
        ..group(world)
    }
}

/// Rows of one pass of each kernel, all of which share K, and several passes.
const SHARING: [(Codebook, Arithmetic, usize); 7] = [
    (Codebook::Mul1, Arithmetic::Fastest, 1),
    (Codebook::Mcg, Arithmetic::Fastest, 3),
    (Codebook::Mul1, Arithmetic::Fastest, 7),
    (Codebook::Mcg, Arithmetic::Uniform, 1),
    (Codebook::ThreeInst, Arithmetic::Fastest, 13),
    (Codebook::Mcg, Arithmetic::Fastest, 21),
    (Codebook::Mul1, Arithmetic::Fastest, 43),
];

#[test]
fn clusters_that_share_k_are_within_tolerance() {
    let mut rng = StdRng::seed_from_u64(60);
    for (codebook, arithmetic, rows) in SHARING {
        // 33 groups do not halve.
        for (k, pairs) in [(K, 2), (K + 128, 3), (K, 4)] {
            let random = Random::new(&mut rng, k, 128, codebook, rate(6));
            let linears = [random.linear()];
            let x = random_input(&mut rng, rows * k);
            let input = (&x[..], DType::F16);
            let got = column_parallel(arithmetic, &clusters(pairs, 1), &linears, input, rows);
            let what = format!("{arithmetic:?} M = {rows}, K = {k}, {pairs} clusters");
            assert_right(&what, &linears, &x, &got);
        }
    }
}

#[test]
fn ranks_with_and_without_clusters_agree() {
    let mut rng = StdRng::seed_from_u64(61);
    let random = Random::new(&mut rng, K + 512, 128, Codebook::Mul1, rate(8));
    let linear = random.linear();
    // Only the first rank has K enough to share.
    let split = Split::explicit(&[K, 512]).unwrap();
    for rows in [2, 5, 19] {
        let x = random_input(&mut rng, rows * linear.k());
        let want = ReferenceLinear::new(&linear).forward(&wide(&x), rows);
        let got = row_parallel(&clusters(2, 2), &linear, &split, &x, rows);
        assert!(error(&got[0], &want) < 4e-4, "{}", error(&got[0], &want));
        assert_eq!(got[0], got[1]);
    }
}

#[test]
fn ranks_whose_clusters_finish_their_own_columns_agree_with_those_that_collect_them() {
    let mut rng = StdRng::seed_from_u64(68);
    // One cluster has all columns. Ranks with less K have two CTAs: a group of columns for each, or half of one.
    for (n, pairs) in [(256, 1), (128, 1)] {
        for (codebook, arithmetic, rows) in SHARING {
            let random = Random::new(&mut rng, K + 640, n, codebook, rate(8));
            let linear = random.linear();
            let split = Split::explicit(&[512, K, 128]).unwrap();
            let x = random_input(&mut rng, rows * linear.k());
            let want = ReferenceLinear::new(&linear).forward(&wide(&x), rows);
            let config = clusters(pairs, 3);
            let got = row_parallel_in(arithmetic, &config, &linear, &split, &x, rows);
            let what = format!("{arithmetic:?} M = {rows}, N = {n}");
            for y in &got {
                assert!(error(y, &want) < 4e-4, "{what}: {}", error(y, &want));
                assert_eq!(*y, got[0], "{what}");
            }
        }
    }
}

#[test]
fn a_rank_without_channels_agrees_with_one_that_has_all() {
    let mut rng = StdRng::seed_from_u64(67);
    let random = Random::new(&mut rng, 512, 128, Codebook::Mul1, rate(8));
    let linear = random.linear();
    let split = Split::explicit(&[512, 0]).unwrap();
    // Of each kernel; 64 tokens a pass have no other input than one that is transformed ahead.
    for rows in [2, 5, 13, 19, 43] {
        let x = random_input(&mut rng, rows * linear.k());
        let want = ReferenceLinear::new(&linear).forward(&wide(&x), rows);
        let got = row_parallel(&clusters(2, 2), &linear, &split, &x, rows);
        assert!(error(&got[0], &want) < 4e-4, "{}", error(&got[0], &want));
        assert_eq!(got[0], got[1]);
    }
}

#[test]
fn a_rows_bits_do_not_depend_on_the_batch_in_clusters() {
    let mut rng = StdRng::seed_from_u64(62);
    let random = Random::new(&mut rng, K, 256, Codebook::Mcg, rate(6));
    let linears = [random.linear()];
    let x = random_input(&mut rng, 34 * K);
    // 16 strips on 2 clusters; on 4 CTAs without.
    let run = |config: &SimGroup, rows: std::ops::Range<usize>| {
        let input = (&x[rows.start * K..rows.end * K], DType::F16);
        column_parallel(Arithmetic::Uniform, config, &linears, input, rows.len()).remove(0)
    };
    let all = run(&clusters(2, 1), 0..34);
    for (first, rows) in [(0, 1), (33, 1), (0, 8), (3, 9), (0, 17), (2, 32)] {
        let some = run(&clusters(2, 1), first..first + rows);
        let what = format!("rows {first} to {}", first + rows);
        assert_eq!(some[..], all[first * 256..(first + rows) * 256], "{what}");
    }
}

#[test]
fn bits_in_clusters_do_not_depend_on_where_the_shared_memory_cuts_k() {
    let mut rng = StdRng::seed_from_u64(63);
    for rows in [7, 21] {
        let random = Random::new(&mut rng, K + 128, 384, Codebook::Mul1, rate(4));
        let linears = [random.linear()];
        let x = random_input(&mut rng, rows * linears[0].k());
        let run = |max_shared_bytes| {
            let config = SimGroup {
                max_shared_bytes,
                ..clusters(2, 1)
            };
            let input = (&x[..], DType::F16);
            column_parallel(Arithmetic::Uniform, &config, &linears, input, rows)
        };
        let whole = run(1 << 20);
        assert_right(&format!("M = {rows}"), &linears, &x, &whole);
        assert_eq!(run(64 << 10), whole, "M = {rows}");
    }
}

#[test]
fn a_launch_transforms_the_inputs_of_several_layers_and_passes() {
    let mut rng = StdRng::seed_from_u64(64);
    // Of 22 groups, three blocks of eight tokens are more than the two rounds from which on a launch does it. Each layer
    // has its own scales.
    let k = 22 * 128;
    for (codebook, rows) in [
        (Codebook::Mul1, 21),
        (Codebook::ThreeInst, 32),
        (Codebook::Mcg, 43),
        (Codebook::Mcg, 70),
    ] {
        let randoms = [128, 256, 128].map(|n| Random::new(&mut rng, k, n, codebook, rate(4)));
        let linears = randoms.each_ref().map(|random| random.linear());
        let x = random_input(&mut rng, rows * k);
        for slot_values in [1 << 14, 40 * 256] {
            let config = SimGroup {
                slot_values,
                ..group(1)
            };
            let input = (&x[..], DType::F16);
            let got = column_parallel(Arithmetic::Fastest, &config, &linears, input, rows);
            let what = format!("M = {rows}, {slot_values} values a slot");
            assert_right(&what, &linears, &x, &got);
        }
    }
}

#[test]
fn inputs_of_bf16_are_transformed_by_a_launch_as_by_a_cta() {
    let mut rng = StdRng::seed_from_u64(65);
    let (k, rows) = (22 * 128, 19);
    let random = Random::new(&mut rng, k, 128, Codebook::Mcg, rate(6));
    let linears = [random.linear()];
    let x: Vec<bf16> = (0..rows * k)
        .map(|_| bf16::from_f32(rng.random_range(-2.0f32..2.0)))
        .collect();
    let run = |rows: std::ops::Range<usize>| {
        let input = (&x[rows.start * k..rows.end * k], DType::Bf16);
        column_parallel(Arithmetic::Uniform, &group(1), &linears, input, rows.len()).remove(0)
    };
    let together = run(0..rows);
    let wide: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
    let want = ReferenceLinear::new(&linears[0]).forward(&wide, rows);
    assert!(
        error(&together, &want) < 4e-4,
        "{}",
        error(&together, &want)
    );
    // One row takes two rounds, which the CTAs do for themselves.
    for row in [0, 8, 18] {
        assert_eq!(run(row..row + 1)[..], together[row * 128..(row + 1) * 128]);
    }
}

#[test]
fn choices_other_than_the_models_are_right_and_a_transform_ahead_shows_in_no_bit() {
    let mut rng = StdRng::seed_from_u64(66);
    // Few groups and rows, for which the model neither shares K of eight tokens nor transforms ahead.
    for (codebook, rows) in [
        (Codebook::Mul1, 7),
        (Codebook::Mcg, 13),
        (Codebook::Mul1, 35),
    ] {
        let linears = [0; 2].map(|_| Random::new(&mut rng, 384, 256, codebook, rate(6)));
        let linears = linears.each_ref().map(Random::linear);
        let x = random_input(&mut rng, rows * 384);
        let run = |k_splits, transform| {
            let config = SimGroup {
                choices: Choices {
                    k_splits: Some(k_splits),
                    transform: Some(transform),
                },
                ..clusters(4, 1)
            };
            let input = (&x[..], DType::F16);
            let got = column_parallel(Arithmetic::Fastest, &config, &linears, input, rows);
            let what = format!("{rows} rows, {k_splits} k_splits, transform {transform}");
            assert_right(&what, &linears, &x, &got);
            got
        };
        for k_splits in [1, 2] {
            assert!(run(k_splits, true) == run(k_splits, false), "{rows} rows");
        }
    }
}
