//! Claims about layers on the host: against the reference, over ranks, and when a peer fails.

use super::kernels::Kernels;
use super::{HostLinear, HostRank};
use crate::call::{Columns, Epilogue, Input, Output};
use crate::format::{Bits, Codebook, DType, TILE};
use crate::protocol::{Operation, OperationKind};
use crate::rank::Backend;
use crate::reference::{self, relative_error, ReferenceLinear};
use crate::weights::{Bias, Linear, Scales};
use crate::{Error, Group, Rank, Result, Split};
use half::{bf16, f16};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::time::{Duration, Instant};

/// The bytes of a linear with random weights and real-valued scales.
struct Packed {
    k: usize,
    n: usize,
    codebook: Codebook,
    bits: Bits,
    trellis: Vec<u8>,
    suh: Vec<u8>,
    svh: Vec<u8>,
    bias: Option<Vec<u8>>,
}

impl Packed {
    fn random(codebook: Codebook, bits: Bits, k: usize, n: usize, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut trellis = vec![0; k / TILE * (n / TILE) * bits.tile_bytes()];
        rng.fill_bytes(&mut trellis);
        let mut scales = |count| {
            let value = |_| {
                let sign = if rng.random() { 1.0 } else { -1.0 };
                f16::from_f32(sign * rng.random_range(0.25..2.0f32)).to_le_bytes()
            };
            (0..count).flat_map(value).collect()
        };
        Packed {
            k,
            n,
            codebook,
            bits,
            trellis,
            suh: scales(k),
            svh: scales(n),
            bias: None,
        }
    }

    /// 3 bits, mul1: what tests use that are not about the format.
    fn small(k: usize, n: usize) -> Self {
        Self::random(Codebook::Mul1, "3".parse().unwrap(), k, n, 5)
    }

    fn with_bias(mut self) -> Self {
        let values = (0..self.n).map(|i| 3.0 + i as f32 * 0.37);
        self.bias = Some(values.flat_map(f32::to_le_bytes).collect());
        self
    }

    fn linear(&self) -> Linear<'_> {
        let bias = self.bias.as_deref();
        Linear::from_parts(
            "layer",
            self.k,
            self.n,
            self.bits,
            self.codebook,
            &self.trellis,
            Scales::from_f16_bytes(&self.suh).unwrap(),
            Scales::from_f16_bytes(&self.svh).unwrap(),
            bias.map(|bytes| Bias::new(bytes, DType::F32).unwrap()),
        )
        .unwrap()
    }

    fn reference(&self, x: &[f16], rows: usize) -> Vec<f64> {
        let x: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
        ReferenceLinear::new(&self.linear()).forward(&x, rows)
    }
}

/// Every codebook at every bitrate that the format defines for it.
fn formats() -> impl Iterator<Item = (Codebook, Bits)> {
    Codebook::ALL
        .into_iter()
        .flat_map(|codebook| Bits::ALL.map(|bits| (codebook, bits)))
        .filter(|(codebook, bits)| codebook.supports(*bits))
}

fn activations(count: usize, seed: u64) -> Vec<f16> {
    let mut rng = StdRng::seed_from_u64(seed);
    let value = |_| f16::from_f32(rng.random_range(-1.0..1.0f32));
    (0..count).map(value).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn widen(values: &[f32]) -> impl Iterator<Item = f64> + '_ {
    values.iter().copied().map(f64::from)
}

fn host(rank: &mut Rank) -> &mut HostRank {
    match &mut rank.backend {
        Backend::Host(host) => host,
        #[cfg(feature = "cuda")]
        _ => unreachable!("a group on the host"),
    }
}

/// A small arena and a deadline that no working group meets.
fn group(world: usize) -> Group {
    Group::on_host(world)
        .slot_values(4096)
        .timeout(Duration::from_secs(15))
}

/// The columns of a shard, for all rows.
fn columns<T: Copy>(x: &[T], k: usize, range: std::ops::Range<usize>) -> Vec<T> {
    x.chunks_exact(k)
        .flat_map(|row| &row[range.clone()])
        .copied()
        .collect()
}

/// What one rank does in a test, given its number, itself, its shard and its part of the input.
type Body<'a, T> = &'a (dyn Fn(usize, &mut HostRank, &HostLinear, &[f16]) -> T + Sync);

/// Runs `body` on a thread per rank, each with its row shard; results in rank order.
fn on_ranks<T: Send>(
    group: Group,
    packed: &Packed,
    split: &Split,
    x: &[f16],
    body: Body<'_, T>,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let spawn = |mut rank: Rank| {
            let range = split.range(rank.rank());
            let shard = packed.linear().rows(range.clone()).unwrap();
            let layer = HostLinear::load(&shard).unwrap();
            let x = columns(x, packed.k, range);
            scope.spawn(move || body(rank.rank(), host(&mut rank), &layer, &x))
        };
        let threads: Vec<_> = group.build().unwrap().into_iter().map(spawn).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// One call that stores f32.
fn call(rank: &mut HostRank, layer: &HostLinear, x: &[f16], rows: usize) -> Result<Vec<f32>> {
    let mut out = vec![f32::NAN; rows * layer.n()];
    rank.row_parallel(
        layer,
        operation(layer, rows),
        &x.into(),
        &mut Output::store(&mut out[..]),
    )?;
    Ok(out)
}

/// What a call of a row-parallel layer is.
fn operation(layer: &HostLinear, rows: usize) -> Operation {
    Operation {
        kind: OperationKind::RowParallel,
        rows: rows as u32,
        columns: layer.n() as u64,
        input: DType::F16,
        output: DType::F32,
        epilogue: Epilogue::Store,
        layer: 0,
    }
}

/// The output of a row-parallel layer, after checking that it is the same on all ranks.
fn row_parallel(group: Group, packed: &Packed, split: &Split, x: &[f16]) -> Vec<f32> {
    let rows = x.len() / packed.k;
    let mut outs = on_ranks(group, packed, split, x, &|_, rank, layer, x| {
        call(rank, layer, x, rows).unwrap()
    });
    let first = outs.swap_remove(0);
    for out in outs {
        assert_eq!(bits(&out), bits(&first), "ranks differ");
    }
    first
}

fn one_rank(packed: &Packed, x: &[f16]) -> Vec<f32> {
    let split = Split::even(packed.k, 1).unwrap();
    row_parallel(group(1), packed, &split, x)
}

#[test]
fn every_variant_decodes_every_format_as_the_reference_does() {
    for (codebook, bits) in formats() {
        let packed = Packed::random(codebook, bits, 256, 384, 1);
        let linear = packed.linear();
        let shard = linear.rows(128..256).unwrap().columns(128..384).unwrap();
        for linear in [linear, shard] {
            let want = reference::decode(&linear);
            for (variant, got) in super::probe::decode_by_every_variant(&linear) {
                let same = got
                    .iter()
                    .zip(&want)
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(
                    same && got.len() == want.len(),
                    "{variant} {codebook} {bits}"
                );
            }
        }
    }
}

#[test]
fn every_variant_computes_every_format_like_the_reference() {
    for (codebook, bits) in formats() {
        let packed = Packed::random(codebook, bits, 384, 256, 2);
        let x = activations(6 * packed.k, 3);
        let want = ReferenceLinear::new(&packed.linear())
            .partial(&x.iter().map(|x| x.to_f64()).collect::<Vec<_>>(), 6);
        let layer = HostLinear::load(&packed.linear()).unwrap();
        for kernels in Kernels::available() {
            let sums = layer.partial(kernels, 1, &x[..].into(), 6);
            let got = (0..6).flat_map(|row| {
                let sums = &sums;
                (0..packed.n / TILE).flat_map(move |strip| widen(sums.strip(row, strip)))
            });
            let error = relative_error(got, &want);
            assert!(
                error <= 1e-5,
                "{} {codebook} {bits}: {error:e}",
                kernels.name
            );
        }
        let out = one_rank(&packed, &x);
        let error = relative_error(widen(&out), &packed.reference(&x, 6));
        assert!(error <= 1e-5, "{codebook} {bits}: {error:e}");
    }
}

/// Splits of 5 groups of channels over a world: even, uneven and with empty shards.
fn splits(world: usize) -> Vec<Split> {
    let mut last_has_all = vec![0; world];
    last_has_all[world - 1] = 640;
    let mut weights = vec![1.0; world];
    weights[0] = 3.0;
    vec![
        Split::even(640, world).unwrap(),
        Split::weighted(640, &weights).unwrap(),
        Split::explicit(&last_has_all).unwrap(),
    ]
}

#[test]
fn every_world_gives_one_result_on_all_ranks_and_in_every_run() {
    let packed = Packed::small(640, 256).with_bias();
    let x = activations(3 * packed.k, 9);
    let want = packed.reference(&x, 3);
    for world in 1..=8 {
        for split in splits(world) {
            let out = row_parallel(group(world), &packed, &split, &x);
            let error = relative_error(widen(&out), &want);
            assert!(error <= 1e-5, "{split:?}: {error:e}");
            let again = row_parallel(group(world), &packed, &split, &x);
            assert_eq!(bits(&again), bits(&out), "{split:?}: runs differ");
        }
    }
}

#[test]
fn a_row_depends_on_neither_its_batch_nor_its_place_in_it() {
    let packed = Packed::small(256, 128);
    let (k, n) = (packed.k, packed.n);
    // More rows than one pass of the kernel takes, and not a multiple of its blocks.
    let rows = 71;
    let x = activations(rows * k, 4);
    let layer = HostLinear::load(&packed.linear()).unwrap();
    let turned: Vec<f16> = x.chunks_exact(k).rev().flatten().copied().collect();
    for kernels in Kernels::available() {
        let partial = |x: &[f16]| {
            let rows = x.len() / k;
            let sums = layer.partial(kernels, 1, &x.into(), rows);
            let row = |row| {
                (0..n / TILE)
                    .flat_map(|s| sums.strip(row, s).to_vec())
                    .collect()
            };
            (0..rows).map(row).collect::<Vec<Vec<f32>>>()
        };
        let batch = partial(&x);
        let turned = partial(&turned);
        for row in 0..rows {
            let alone = &partial(&x[row * k..][..k])[0];
            assert_eq!(bits(alone), bits(&batch[row]), "{} {row}", kernels.name);
            assert_eq!(
                bits(alone),
                bits(&turned[rows - 1 - row]),
                "{} {row}",
                kernels.name
            );
        }
    }
}

#[test]
fn a_call_gives_the_same_rows_whatever_its_batch() {
    let packed = Packed::small(512, 256).with_bias();
    let x = activations(9 * packed.k, 8);
    let split = Split::explicit(&[128, 384]).unwrap();
    let batch = row_parallel(group(2), &packed, &split, &x);
    for rows in [1, 2, 5] {
        let part = row_parallel(group(2), &packed, &split, &x[..rows * packed.k]);
        assert_eq!(bits(&part), bits(&batch[..rows * packed.n]));
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let packed = Packed::small(1024, 2176);
    let x = activations(3 * packed.k, 6);
    let layer = HostLinear::load(&packed.linear()).unwrap();
    let with_threads = |threads| {
        let sums = layer.partial(Kernels::best(), threads, &x[..].into(), 3);
        let strips = (0..packed.n / TILE).flat_map(|strip| (0..3).map(move |row| (row, strip)));
        strips
            .flat_map(|(row, strip)| bits(sums.strip(row, strip)))
            .collect::<Vec<_>>()
    };
    let alone = with_threads(1);
    for threads in [2, 3, 4] {
        assert!(with_threads(threads) == alone, "{threads} threads");
    }
}

#[test]
fn messages_in_pieces_give_the_same_bits() {
    let packed = Packed::small(384, 640).with_bias();
    let x = activations(7 * packed.k, 7);
    let split = Split::even(packed.k, 3).unwrap();
    let whole = row_parallel(group(3).slot_values(7 * 640), &packed, &split, &x);
    // Columns in 1, 2 and 4 groups; 1, 2 and 3 whole rows.
    for slot_values in [128, 256, 512, 640, 1280, 2000] {
        let pieces = row_parallel(group(3).slot_values(slot_values), &packed, &split, &x);
        assert_eq!(bits(&pieces), bits(&whole), "{slot_values}");
    }
}

#[test]
fn outputs_are_rounded_once_for_every_epilogue_and_dtype() {
    let packed = Packed::small(256, 256).with_bias();
    let x = activations(2 * packed.k, 10);
    let split = Split::even(packed.k, 2).unwrap();
    let y = row_parallel(group(2), &packed, &split, &x);
    let residual: Vec<f32> = (0..y.len())
        .map(|i| (i as f32 * 0.1).sin() * 40.0)
        .collect();
    on_ranks(group(2), &packed, &split, &x, &|_, rank, layer, x| {
        /// Stores and adds in one dtype, against the f32 result and the widened residual.
        macro_rules! check {
            ($type:ty, $round:expr) => {{
                let before: Vec<$type> = residual.iter().map(|&r| $round(r)).collect();
                let sum = |(&y, &r): (&f32, &$type)| $round(y + f32::from(r));
                let mut out = before.clone();
                rank.row_parallel(
                    layer,
                    operation(layer, 2),
                    &x.into(),
                    &mut Output::add_to(&mut out[..]),
                )
                .unwrap();
                assert!(out.iter().copied().eq(y.iter().zip(&before).map(sum)));
                rank.row_parallel(
                    layer,
                    operation(layer, 2),
                    &x.into(),
                    &mut Output::store(&mut out[..]),
                )
                .unwrap();
                assert!(out.iter().copied().eq(y.iter().map(|&y| $round(y))));
            }};
        }
        check!(f16, f16::from_f32);
        check!(bf16, bf16::from_f32);
        check!(f32, std::convert::identity::<f32>);
    });
}

#[test]
fn bf16_activations_are_read_as_such() {
    let packed = Packed::small(128, 128);
    let x: Vec<bf16> = activations(packed.k, 1)
        .iter()
        .map(|x| bf16::from_f32(x.to_f32()))
        .collect();
    let layer = HostLinear::load(&packed.linear()).unwrap();
    let mut ranks = group(1).build().unwrap();
    let mut out = vec![0.0; packed.n];
    host(&mut ranks[0])
        .row_parallel(
            &layer,
            operation(&layer, 1),
            &x[..].into(),
            &mut Output::store(&mut out[..]),
        )
        .unwrap();
    let wide: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
    let want = ReferenceLinear::new(&packed.linear()).forward(&wide, 1);
    assert!(relative_error(widen(&out), &want) <= 1e-5);
}

#[test]
fn the_bias_is_added_once() {
    let packed = Packed::small(512, 256).with_bias();
    let x = vec![f16::ZERO; packed.k];
    let bias = packed.linear().bias().unwrap().to_vec();
    for world in [1, 2, 4, 7] {
        let split = Split::even(packed.k, world).unwrap();
        let out = row_parallel(group(world), &packed, &split, &x);
        assert_eq!(bits(&out), bits(&bias), "{world} ranks");
    }
}

#[test]
fn column_shards_are_the_columns_of_the_whole() {
    let packed = Packed::small(256, 640).with_bias();
    let x = activations(5 * packed.k, 12);
    let whole = one_rank(&packed, &x);
    let split = Split::explicit(&[128, 0, 512]).unwrap();
    let shards: Vec<HostLinear> = split
        .iter()
        .map(|range| HostLinear::load(&packed.linear().columns(range).unwrap()).unwrap())
        .collect();
    let mut outs: Vec<Vec<f32>> = shards.iter().map(|s| vec![f32::NAN; 5 * s.n()]).collect();
    let mut outputs: Vec<Output> = outs.iter_mut().map(|o| Output::store(&mut o[..])).collect();
    // Of a larger group: nobody else has to take part.
    let mut ranks = group(2).build().unwrap();
    let input = Input::from(&x[..]);
    host(&mut ranks[1])
        .column_parallel(&shards, &input, 5, Columns::Each(&mut outputs))
        .unwrap();
    drop(outputs);
    for (range, out) in split.iter().zip(&outs) {
        let want = columns(&whole, packed.n, range);
        assert_eq!(bits(out), bits(&want));
    }
}

#[test]
fn calls_go_on_across_the_wrap_of_the_epoch_and_through_scrubs() {
    let packed = Packed::small(256, 256);
    let x = activations(5 * packed.k, 13);
    let split = Split::even(packed.k, 3).unwrap();
    let want = row_parallel(group(3), &packed, &split, &x);
    for scrub_period in [2, 4] {
        for first in [u32::MAX - 5, u32::MAX, 0] {
            let group = group(3).first_epoch(first).scrub_period(scrub_period);
            on_ranks(group, &packed, &split, &x, &|_, rank, layer, x| {
                for call_number in 0..16 {
                    // Other rows and numbers of rows in every call: what an earlier call left in
                    // the slot is never right, and some of it grows old.
                    let rows = call_number % 4..call_number % 4 + 1 + call_number % 2;
                    let (k, n) = (layer.k(), layer.n());
                    let out = call(rank, layer, &x[rows.start * k..rows.end * k], rows.len());
                    let want = &want[rows.start * n..rows.end * n];
                    assert_eq!(
                        bits(&out.unwrap()),
                        bits(want),
                        "from {first}, {call_number}"
                    );
                }
            });
        }
    }
}

#[test]
fn calls_without_rows_exchange_nothing() {
    let packed = Packed::small(256, 128);
    let x = activations(packed.k, 1);
    let split = Split::even(packed.k, 2).unwrap();
    on_ranks(group(2), &packed, &split, &x, &|number, rank, layer, x| {
        // Had it been an exchange, this rank would now be one ahead.
        if number == 0 {
            assert!(call(rank, layer, &[], 0).unwrap().is_empty());
        }
        call(rank, layer, x, 1).unwrap();
    });
}

#[test]
fn a_peer_that_never_calls_is_named_and_the_group_stays_failed() {
    let packed = Packed::small(128, 128);
    let layer = HostLinear::load(&packed.linear()).unwrap();
    let x = activations(packed.k, 1);
    let timeout = Duration::from_millis(60);
    let mut ranks = group(2).timeout(timeout).first_epoch(7).build().unwrap();

    let failure = call(host(&mut ranks[0]), &layer, &x, 1).unwrap_err();
    let Error::PeerTimeout {
        rank: 0,
        peer: 1,
        epoch: 7,
        waited,
        operation,
        tile: 0,
        absent,
    } = failure
    else {
        panic!("{failure}");
    };
    assert_eq!(absent, [1]);
    assert!(waited >= timeout);
    assert_eq!((operation.rows, operation.columns), (1, 128));

    let timeout = Duration::from_secs(15);
    ranks[0].set_timeout(timeout);
    let started = Instant::now();
    for rank in &mut ranks {
        // Both ranks tell of the first failure, and neither waits again nor touches an output.
        assert!(matches!(
            rank.check(),
            Err(Error::PeerTimeout {
                rank: 0,
                peer: 1,
                ..
            })
        ));
        let later = call(host(rank), &layer, &x, 1).unwrap_err();
        assert!(
            matches!(later, Error::PeerTimeout { peer: 1, .. }),
            "{later}"
        );
        let (layers, input) = (std::slice::from_ref(&layer), Input::from(&x[..]));
        let mut out = [0f32; 128];
        let outputs = &mut [Output::store(&mut out[..])];
        let columns = Columns::Each(outputs);
        let later = host(rank).column_parallel(layers, &input, 1, columns);
        assert!(matches!(later, Err(Error::PeerTimeout { peer: 1, .. })));
    }
    assert!(started.elapsed() < timeout);
}

#[test]
fn a_failure_ends_the_waits_of_all_ranks() {
    let packed = Packed::small(384, 128);
    let x = activations(packed.k, 1);
    let split = Split::even(packed.k, 3).unwrap();
    let rank_1_calls = std::sync::Barrier::new(2);
    let errors = on_ranks(group(3), &packed, &split, &x, &|number, rank, layer, x| {
        match number {
            // Its deadline is short, that of rank 1 is not.
            0 => rank.board().set_timeout(0, Duration::from_millis(200)),
            1 => {}
            _ => return None, // The one that is missed.
        }
        rank_1_calls.wait();
        let in_time = rank.check().is_ok();
        let (started, deadline) = (Instant::now(), rank.board().timeout(1));
        let error = call(rank, layer, x, 1).unwrap_err();
        assert!(started.elapsed() < deadline, "rank {number}");
        Some((in_time, error))
    });
    for (number, told) in errors[..2].iter().enumerate() {
        let Some((
            in_time,
            Error::PeerTimeout {
                rank: 0, absent, ..
            },
        )) = told
        else {
            panic!("{errors:?}");
        };
        // Whoever has come in time knows at least that of itself.
        assert!(absent.contains(&2), "{errors:?}");
        assert!(!in_time || !absent.contains(&number), "{errors:?}");
    }
}

#[test]
fn nan_and_infinity_reach_the_outputs_of_their_row_and_of_no_other() {
    let packed = Packed::small(256, 256);
    let split = Split::even(packed.k, 2).unwrap();
    let x = activations(3 * packed.k, 14);
    let clean = row_parallel(group(2), &packed, &split, &x);
    for special in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
        let mut x = x.clone();
        x[packed.k + 130] = special;
        let out = row_parallel(group(2), &packed, &split, &x);
        let n = packed.n;
        assert!(out[n..2 * n].iter().all(|y| !y.is_finite()), "{special}");
        assert_eq!(bits(&out[..n]), bits(&clean[..n]));
        assert_eq!(bits(&out[2 * n..]), bits(&clean[2 * n..]));
    }
}

/// `cargo test --release host -- --ignored --nocapture`
#[test]
#[ignore = "prints timings and asserts nothing"]
fn timing_of_4096_by_4096_at_4_bits() {
    for codebook in Codebook::ALL {
        let packed = Packed::random(codebook, "4".parse().unwrap(), 4096, 4096, 1);
        let layer = HostLinear::load(&packed.linear()).unwrap();
        let mut ranks = group(1).slot_values(64 * 4096).build().unwrap();
        for rows in [1, 4, 16, 64] {
            let x = activations(rows * 4096, 1);
            let time = |_| {
                let started = Instant::now();
                call(host(&mut ranks[0]), &layer, &x, rows).unwrap();
                started.elapsed()
            };
            let best = (0..20).map(time).min().unwrap();
            println!("{codebook} M = {rows}: {best:?} ({})", Kernels::best().name);
        }
    }
}
