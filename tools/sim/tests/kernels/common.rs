//! Random linears, and calls of them on simulated ranks.

use half::f16;
use rand::{rngs::StdRng, Rng};
use std::time::Duration;
use trellink::format::{Bits, Codebook, DType};
use trellink::reference::{self, ReferenceLinear};
use trellink::weights::{Bias, Linear, Scales};
use trellink::{Arithmetic, Choices, Epilogue, Split};
use trellink_sim::{Buffer, Call, Channel, Epilogues, SimGroup, SimLinear, SimOutput, SimRank};

/// The bytes of a random linear.
pub(crate) struct Random {
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) bits: Bits,
    pub(crate) codebook: Codebook,
    pub(crate) trellis: Vec<u8>,
    pub(crate) suh: Vec<u8>,
    pub(crate) svh: Vec<u8>,
    pub(crate) bias: Option<Vec<u8>>,
}

impl Random {
    pub(crate) fn new(
        rng: &mut StdRng,
        k: usize,
        n: usize,
        codebook: Codebook,
        bits: Bits,
    ) -> Self {
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

    pub(crate) fn linear(&self) -> Linear<'_> {
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

pub(crate) fn every_format() -> impl Iterator<Item = (Codebook, Bits)> {
    Codebook::ALL
        .into_iter()
        .flat_map(|codebook| Bits::ALL.map(|bits| (codebook, bits)))
        .filter(|(codebook, bits)| codebook.supports(*bits))
}

pub(crate) fn group(world: usize) -> SimGroup {
    SimGroup {
        world,
        slot_values: 1 << 14,
        first_epoch: 1,
        scrub_period: 1 << 13,
        timeout: Duration::from_secs(600),
        sms: 3,
        max_shared_bytes: 100 << 10,
        cluster_pairs: 0,
        choices: Choices::default(),
        straight: true,
    }
}

pub(crate) fn random_input(rng: &mut StdRng, len: usize) -> Vec<f16> {
    (0..len)
        .map(|_| f16::from_f32(rng.random_range(-2.0..2.0)))
        .collect()
}

/// Columns [range] of every row of x.
pub(crate) fn columns_of(x: &[f16], k: usize, range: std::ops::Range<usize>) -> Vec<f16> {
    x.chunks(k.max(1))
        .flat_map(|row| row[range.clone()].to_vec())
        .collect()
}

/// Runs a row-parallel call on all ranks at once; the f32 outputs of each.
pub(crate) fn row_parallel(
    config: &SimGroup,
    linear: &Linear<'_>,
    split: &Split,
    x: &[f16],
    rows: usize,
) -> Vec<Vec<f32>> {
    row_parallel_in(Arithmetic::Fastest, config, linear, split, x, rows)
}

/// The same in a given arithmetic.
pub(crate) fn row_parallel_in(
    arithmetic: Arithmetic,
    config: &SimGroup,
    linear: &Linear<'_>,
    split: &Split,
    x: &[f16],
    rows: usize,
) -> Vec<Vec<f32>> {
    on_ranks(config, |rank, mut sim| {
        let layer = SimLinear::new(&linear.rows(split.range(rank)).unwrap());
        let x = columns_of(x, linear.k(), split.range(rank));
        let y = row_parallel_call(&mut sim, arithmetic, &layer, &x, (rows, linear.n()));
        assert_eq!(sim.report().0, 0, "rank {rank} reported a failure");
        y
    })
}

/// One rank's part in a row-parallel call of an output [M, N]; that output in f32, NaN where nothing was written.
pub(crate) fn row_parallel_call(
    sim: &mut SimRank,
    arithmetic: Arithmetic,
    layer: &SimLinear,
    x: &[f16],
    shape: (usize, usize),
) -> Vec<f32> {
    row_parallel_call_with(sim, arithmetic, layer, x, shape, Epilogues::default())
}

/// The same, with what the output goes through besides.
pub(crate) fn row_parallel_call_with(
    sim: &mut SimRank,
    arithmetic: Arithmetic,
    layer: &SimLinear,
    x: &[f16],
    (rows, n): (usize, usize),
    epilogues: Epilogues<'_>,
) -> Vec<f32> {
    let output = SimOutput {
        data: Buffer::new(&vec![f32::NAN; rows * n]),
        dtype: DType::F32,
        epilogue: Epilogue::Store,
    };
    let call = Call {
        layers: &[layer],
        input: &Buffer::new(x),
        dtype: DType::F16,
        rows,
        arithmetic,
        outputs: &[&output],
    };
    sim.run_with(Channel::Group, &call, epilogues);
    output.data.read()
}

/// Runs `body` on every rank of a new group at once; results in rank order.
pub(crate) fn on_ranks<T: Send>(
    config: &SimGroup,
    body: impl Fn(usize, SimRank) -> T + Sync,
) -> Vec<T> {
    on_each(config.build(), body)
}

/// The same on ranks that are there.
pub(crate) fn on_each<T: Send>(
    ranks: Vec<SimRank>,
    body: impl Fn(usize, SimRank) -> T + Sync,
) -> Vec<T> {
    let body = &body;
    std::thread::scope(|scope| {
        let spawn = |(rank, sim)| scope.spawn(move || body(rank, sim));
        let ranks: Vec<_> = ranks.into_iter().enumerate().map(spawn).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

pub(crate) fn error(got: &[f32], want: &[f64]) -> f64 {
    reference::relative_error(got.iter().map(|&y| f64::from(y)), want)
}

pub(crate) fn wide(x: &[f16]) -> Vec<f64> {
    x.iter().map(|x| x.to_f64()).collect()
}

pub(crate) fn rate(half_bits: usize) -> Bits {
    Bits::from_half_bits(half_bits).unwrap()
}

/// Runs a column-parallel call on one rank; the f32 outputs of every layer.
pub(crate) fn column_parallel<T: Copy>(
    arithmetic: Arithmetic,
    config: &SimGroup,
    linears: &[Linear<'_>],
    (x, dtype): (&[T], DType),
    rows: usize,
) -> Vec<Vec<f32>> {
    let layers: Vec<SimLinear> = linears.iter().map(SimLinear::new).collect();
    let outputs: Vec<SimOutput> = linears
        .iter()
        .map(|linear| SimOutput {
            data: Buffer::new(&vec![f32::NAN; rows * linear.n()]),
            dtype: DType::F32,
            epilogue: Epilogue::Store,
        })
        .collect();
    let input = Buffer::new(x);
    let call = Call {
        layers: &layers.iter().collect::<Vec<_>>(),
        input: &input,
        dtype,
        rows,
        arithmetic,
        outputs: &outputs.iter().collect::<Vec<_>>(),
    };
    let mut rank = config.build().remove(0);
    rank.run(Channel::Local, &call);
    assert_eq!(rank.report().0, 0, "no failure");
    outputs.iter().map(|output| output.data.read()).collect()
}

/// Whether column-parallel outputs are those of the reference, within the tolerance.
pub(crate) fn assert_right(what: &str, linears: &[Linear<'_>], x: &[f16], got: &[Vec<f32>]) {
    for (linear, got) in linears.iter().zip(got) {
        let want = ReferenceLinear::new(linear).forward(&wide(x), got.len() / linear.n());
        let error = error(got, &want);
        let (codebook, bits) = (linear.codebook(), linear.bits());
        assert!(error < 4e-4, "{what}: {codebook} {bits}: {error}");
    }
}

/// One call for each kernel: a codebook, an arithmetic and a number of rows.
pub(crate) const EVERY_KERNEL: [(Codebook, Arithmetic, usize); 7] = [
    (Codebook::Mul1, Arithmetic::Fastest, 3),
    (Codebook::Mcg, Arithmetic::Fastest, 3),
    (Codebook::ThreeInst, Arithmetic::Fastest, 4),
    (Codebook::Mul1, Arithmetic::Fastest, 7),
    (Codebook::Mcg, Arithmetic::Uniform, 5),
    (Codebook::Mul1, Arithmetic::Uniform, 13),
    (Codebook::ThreeInst, Arithmetic::Uniform, 21),
];
