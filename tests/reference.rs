//! The reference against the golden files, and against the layer's formula written out.
//!
//! The files are read with the safetensors crate alone, so that a fault of the crate's own loader cannot
//! hide one of the reference.

mod common;

use common::{golden, RandomLinear};
use half::f16;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trellink::format::layout::{BlockLayout, BLOCK_TILES, LANES};
use trellink::format::{Bits, Codebook, DType, GROUP, TILE, TILE_WEIGHTS};
use trellink::reference::{
    decode, decode_state, decode_tile, hadamard_128, relative_error, ReferenceLinear,
};
use trellink::weights::Linear;
use trellink::Split;

fn f16s(bytes: &[u8]) -> Vec<f16> {
    let pairs = bytes.chunks_exact(2);
    pairs.map(|b| f16::from_le_bytes([b[0], b[1]])).collect()
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    let quads = bytes.chunks_exact(4);
    quads
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn bits_of(values: &[f16]) -> Vec<u16> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A layer with random weights and a bias.
fn random(k: usize, n: usize, bits: Bits, codebook: Codebook, seed: u64) -> RandomLinear {
    let rng = &mut StdRng::seed_from_u64(seed);
    RandomLinear::new(rng, (codebook, bits), k, n).with_bias(rng, DType::F32)
}

fn input(rows: usize, k: usize) -> Vec<f64> {
    let mut rng = StdRng::seed_from_u64(99);
    (0..rows * k).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// The columns `columns` of each row of `values` [rows, width].
fn columns(values: &[f64], width: usize, columns: std::ops::Range<usize>) -> Vec<f64> {
    values
        .chunks_exact(width)
        .flat_map(|row| row[columns.clone()].iter().copied())
        .collect()
}

fn four_bits() -> Bits {
    "4".parse().unwrap()
}

#[test]
fn decode_equals_the_golden_weights_bit_for_bit() {
    golden(|name, linear, file| {
        let want = f16s(file.tensor("inner").unwrap().data());
        assert_eq!(want.len(), linear.k() * linear.n());
        assert!(bits_of(&decode(linear)) == bits_of(&want), "{name}");
    });
}

#[test]
fn forward_equals_the_golden_outputs() {
    golden(|name, linear, file| {
        let x: Vec<f64> = f16s(file.tensor("x").unwrap().data())
            .into_iter()
            .map(f64::from)
            .collect();
        let rows = x.len() / linear.k();
        let y = ReferenceLinear::new(linear).forward(&x, rows);
        let want = |tensor: &str| -> Vec<f64> {
            let values = f32s(file.tensor(tensor).unwrap().data());
            values.into_iter().map(f64::from).collect()
        };
        let error = relative_error(y.iter().copied(), &want("y"));
        assert!(error < 1e-6, "{name}: {error:e} from y");
        // The format's own kernel works in fp16; the golden files' page gives its distance.
        let error = relative_error(y.iter().copied(), &want("y_reference_kernel"));
        assert!(error < 5e-4, "{name}: {error:e} from the reference kernel");
    });
}

/// `forward` by the formula: a dense matrix, the transform as an explicit matrix.
fn forward_by_the_formula(layer: &RandomLinear, x: &[f64], rows: usize) -> Vec<f64> {
    let linear = layer.linear();
    let weights = decode(&linear);
    let h = |i: usize, j: usize| {
        let sign = if (i & j & 127).count_ones().is_multiple_of(2) {
            1.0
        } else {
            -1.0
        };
        if i / GROUP == j / GROUP {
            sign / 128f64.sqrt()
        } else {
            0.0
        }
    };
    let (k, n) = (layer.k, layer.n);
    let mut y = vec![0.0; rows * n];
    for row in 0..rows {
        let scaled: Vec<f64> = (0..k)
            .map(|i| x[row * k + i] * linear.suh().get(i).to_f64())
            .collect();
        let mixed: Vec<f64> = (0..k)
            .map(|j| (0..k).map(|i| scaled[i] * h(i, j)).sum())
            .collect();
        let sums: Vec<f64> = (0..n)
            .map(|j| (0..k).map(|i| mixed[i] * weights[i * n + j].to_f64()).sum())
            .collect();
        for j in 0..n {
            let mixed: f64 = (0..n).map(|i| sums[i] * h(i, j)).sum();
            y[row * n + j] =
                mixed * linear.svh().get(j).to_f64() + linear.bias().unwrap().get(j) as f64;
        }
    }
    y
}

#[test]
fn forward_is_the_formula_written_out() {
    for codebook in Codebook::ALL {
        let layer = random(256, 384, four_bits(), codebook, 5);
        let x = input(3, layer.k);
        let want = forward_by_the_formula(&layer, &x, 3);
        let got = ReferenceLinear::new(&layer.linear()).forward(&x, 3);
        let error = relative_error(got.into_iter(), &want);
        assert!(error < 1e-14, "{codebook}: {error:e}");
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let layer = random(256, 128, four_bits(), Codebook::Mcg, 6);
    let reference = ReferenceLinear::new(&layer.linear());
    let x = input(19, layer.k);
    let all = reference.forward(&x, 19);
    for row in 0..19 {
        let alone = reference.forward(&x[row * layer.k..][..layer.k], 1);
        assert_eq!(alone, all[row * layer.n..][..layer.n], "row {row}");
    }
    assert!(reference.forward(&[], 0).is_empty());
}

#[test]
fn partials_of_row_shards_add_up_to_the_whole() {
    let layer = random(512, 256, four_bits(), Codebook::Mul1, 7);
    let linear = layer.linear();
    let whole = ReferenceLinear::new(&linear);
    let x = input(5, layer.k);
    // Uneven, with one rank that holds nothing.
    let split = Split::explicit(&[128, 0, 384]).unwrap();
    let mut sums = vec![0.0; 5 * layer.n];
    for range in split.iter() {
        let shard = ReferenceLinear::new(&linear.rows(range.clone()).unwrap());
        let partial = shard.partial(&columns(&x, layer.k, range.clone()), 5);
        assert!(!range.is_empty() || partial == vec![0.0; 5 * layer.n]);
        sums.iter_mut()
            .zip(partial)
            .for_each(|(sum, value)| *sum += value);
    }
    let error = relative_error(whole.finish(sums).into_iter(), &whole.forward(&x, 5));
    assert!(error < 1e-14, "{error:e}");
}

#[test]
fn outputs_of_column_shards_are_the_columns_of_the_whole() {
    let layer = random(128, 512, four_bits(), Codebook::ThreeInst, 8);
    let linear = layer.linear();
    let x = input(4, layer.k);
    let whole = ReferenceLinear::new(&linear).forward(&x, 4);
    for range in Split::explicit(&[256, 0, 128, 128]).unwrap().iter() {
        let shard = ReferenceLinear::new(&linear.columns(range.clone()).unwrap());
        assert_eq!(shard.forward(&x, 4), columns(&whole, layer.n, range));
    }
}

#[test]
fn the_transform_is_its_own_inverse() {
    let values = input(1, 3 * GROUP);
    let mut twice = values.clone();
    hadamard_128(&mut twice);
    hadamard_128(&mut twice);
    assert!(relative_error(twice.into_iter(), &values) < 1e-15);
}

#[test]
#[should_panic(expected = "bytes of a tile")]
fn a_tile_of_another_bitrate_is_refused() {
    decode_tile(Codebook::Mcg, four_bits(), &[0; 64]);
}

/// Decodes one tile of a block the way a warp does: each lane takes its own piece, and for the
/// bits before it the pieces of the lanes before, lane 31 preceding lane 0.
fn decode_packed_tile(
    layout: BlockLayout,
    codebook: Codebook,
    block: &[u32],
    tile: usize,
) -> [f16; TILE_WEIGHTS] {
    let bits = layout.bits();
    let piece = layout.piece_bits();
    let bit = |position: usize| {
        let (lane, offset) = (position / piece % LANES, tile * piece + position % piece);
        block[layout.word_index(lane, offset / 32)] >> (31 - offset % 32) & 1
    };
    let mut weights = [f16::ZERO; TILE_WEIGHTS];
    for t in 0..TILE_WEIGHTS {
        // One turn on, so that the first windows do not begin below zero.
        let end = bits.window_end(t) + LANES * piece;
        let state = (end - 16..end).fold(0, |state, i| state << 1 | bit(i));
        let (lane, j) = (t / 8, t % 8);
        let row = 2 * (lane % 4) + j % 2 + 8 * (j / 2 % 2);
        weights[row * TILE + lane / 4 + 8 * (j / 4)] = decode_state(codebook, state as u16);
    }
    weights
}

fn decode_packed(linear: &Linear) -> Vec<f16> {
    let layout = BlockLayout::new(linear.bits());
    let (k, n) = (linear.k(), linear.n());
    let packed = layout.pack(k, n, |kt, nt| linear.trellis().tile(kt, nt));
    let mut weights = vec![f16::ZERO; k * n];
    for kt in 0..k / TILE {
        for strip in 0..n / TILE {
            let index = layout.block_index(k, strip, kt / BLOCK_TILES);
            let block = &packed[index * layout.words_per_block()..][..layout.words_per_block()];
            let tile = decode_packed_tile(layout, linear.codebook(), block, kt % BLOCK_TILES);
            for (row, values) in tile.chunks_exact(TILE).enumerate() {
                weights[(kt * TILE + row) * n + strip * TILE..][..TILE].copy_from_slice(values);
            }
        }
    }
    weights
}

#[test]
fn the_packed_form_decodes_to_the_golden_weights() {
    golden(|name, linear, file| {
        let want = f16s(file.tensor("inner").unwrap().data());
        assert!(bits_of(&decode_packed(linear)) == bits_of(&want), "{name}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_packed_form_of_a_shard_decodes_to_its_weights(
        bits in prop::sample::select(Bits::ALL.to_vec()),
        first_group in 0usize..3,
        groups in 0usize..3,
        first_column_group in 0usize..2,
        seed: u64,
    ) {
        let layer = random(640, 256, bits, Codebook::Mul1, seed);
        let first = first_group * GROUP;
        let column = first_column_group * GROUP;
        let linear = layer.linear();
        let shard = linear.rows(first..first + groups * GROUP).unwrap();
        let shard = shard.columns(column..column + GROUP).unwrap();
        let decoded = decode(&shard);
        prop_assert!(bits_of(&decode_packed(&shard)) == bits_of(&decoded));
        // And the shard is the part of the whole that it says it is.
        let whole = decode(&linear);
        for (row, values) in decoded.chunks_exact(GROUP).enumerate() {
            let want = &whole[(first + row) * layer.n + column..][..GROUP];
            prop_assert!(bits_of(values) == bits_of(want));
        }
    }
}
