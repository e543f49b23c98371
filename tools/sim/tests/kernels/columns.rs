//! Sums of squares that one call leaves, an input that another normalises by them, and a gate.

use crate::common::*;
use half::f16;
use rand::{rngs::StdRng, SeedableRng};
use trellink::format::{Codebook, DType, GROUP};
use trellink::reference;
use trellink::weights::Linear;
use trellink::{Arithmetic, Epilogue, Split};
use trellink_sim::{Buffer, Call, Channel, Epilogues, SimGroup, SimLinear, SimOutput};

const EPSILON: f32 = 1e-3;

fn output(len: usize, epilogue: Epilogue) -> SimOutput {
    let held = match epilogue {
        Epilogue::Store => vec![f32::NAN; len],
        Epilogue::Add => (0..len).map(|i| (i as f32).sin()).collect(),
    };
    SimOutput {
        data: Buffer::new(&held),
        dtype: DType::F32,
        epilogue,
    }
}

/// A call of two linears over one input; their f32 outputs, or the one, which held `output`.
struct Pair<'a> {
    linears: [Linear<'a>; 2],
    arithmetic: Arithmetic,
    x: Vec<f16>,
    squares: Option<Vec<f32>>,
}

impl Pair<'_> {
    fn rows(&self) -> usize {
        self.x.len() / self.linears[0].k()
    }

    fn run(&self, config: &SimGroup, gated: Option<Epilogue>) -> Vec<Vec<f32>> {
        let layers = self.linears.each_ref().map(SimLinear::new);
        let len = |linear: &Linear<'_>| self.rows() * linear.n();
        let outputs: Vec<SimOutput> = match gated {
            Some(epilogue) => vec![output(len(&self.linears[0]), epilogue)],
            None => {
                let linears = self.linears.iter();
                linears.map(|l| output(len(l), Epilogue::Store)).collect()
            }
        };
        let input = Buffer::new(&self.x);
        let squares = self.squares.as_ref().map(|squares| Buffer::new(squares));
        let call = Call {
            layers: &layers.iter().collect::<Vec<_>>(),
            input: &input,
            dtype: DType::F16,
            rows: self.rows(),
            arithmetic: self.arithmetic,
            outputs: &outputs.iter().collect::<Vec<_>>(),
        };
        let epilogues = Epilogues {
            squares_in: squares.as_ref().map(|squares| (squares, EPSILON)),
            gated: gated.is_some(),
            ..Default::default()
        };
        let mut rank = config.build().remove(0);
        rank.run_with(Channel::Local, &call, epilogues);
        assert_eq!(rank.report().0, 0, "no failure");
        outputs.iter().map(|output| output.data.read()).collect()
    }

    /// The sums of squares of its input.
    fn with_squares(mut self) -> Self {
        let squares = |x: &[f16]| x.iter().map(|x| x.to_f32().powi(2)).sum();
        self.squares = Some(self.x.chunks_exact(GROUP).map(squares).collect());
        self
    }
}

fn wide32(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Whether values are silu(gate) · up + held, to within what silu may err.
fn assert_gated(what: &str, got: &[f32], parts: &[Vec<f32>], held: &[f32]) {
    let products = reference::swiglu(&wide32(&parts[0]), &wide32(&parts[1]));
    assert_eq!(got.len(), products.len());
    for (i, (&got, product)) in got.iter().zip(products).enumerate() {
        let (gate, held) = (f64::from(parts[0][i]), f64::from(held[i]));
        let silu = 2f64.powi(-21) + (gate.abs() + 4.0) * 2f64.powi(-24);
        let bound = silu * product.abs() + 2f64.powi(-23) * (product + held).abs() + 1e-30;
        let error = (f64::from(got) - product - held).abs();
        // Not `>`: a NaN must fail.
        assert!(error <= bound, "{what}, value {i}: {got}, gate {gate}");
    }
}

#[test]
fn every_kernel_gates_what_it_computes_of_two_linears() {
    let mut rng = StdRng::seed_from_u64(60);
    for (variant, (codebook, arithmetic, rows)) in EVERY_KERNEL.into_iter().enumerate() {
        let n = [128, 256, 384][variant % 3];
        let gate = Random::new(&mut rng, 256, n, codebook, rate(6));
        let up = Random::new(
            &mut rng,
            256,
            n,
            Codebook::Mul1,
            rate([2, 3, 5, 8, 10, 12, 16][variant]),
        );
        let rows = rows + variant % 2 * 30;
        let pair = Pair {
            linears: [gate.linear(), up.linear()],
            arithmetic,
            x: random_input(&mut rng, rows * 256),
            squares: None,
        };
        let what = format!("{codebook} {arithmetic:?}, {rows} rows");
        let config = |sms| SimGroup {
            sms,
            cluster_pairs: sms / 2,
            slot_values: 1 << 16,
            ..group(1)
        };
        let parts = pair.run(&config(4), None);
        assert_right(&what, &pair.linears, &pair.x, &parts);
        for epilogue in [Epilogue::Store, Epilogue::Add] {
            let got = pair.run(&config(4), Some(epilogue)).remove(0);
            let held: Vec<f32> = match epilogue {
                Epilogue::Store => vec![0.0; rows * n],
                Epilogue::Add => output(rows * n, epilogue).data.read(),
            };
            assert_gated(&what, &got, &parts, &held);
        }
    }
}

#[test]
fn every_kernel_divides_by_the_root_of_the_mean_square_of_its_input() {
    let mut rng = StdRng::seed_from_u64(61);
    for (variant, (codebook, arithmetic, rows)) in EVERY_KERNEL.into_iter().enumerate() {
        // A lane adds up nothing, one sum or two of them.
        let k = [256, 33 * 128, 65 * 128][variant % 3];
        let linears = [0; 2].map(|_| Random::new(&mut rng, k, 128, codebook, rate(2)));
        let pair = Pair {
            linears: linears.each_ref().map(Random::linear),
            arithmetic,
            x: random_input(&mut rng, rows * k),
            squares: None,
        };
        let config = SimGroup {
            cluster_pairs: 1,
            ..group(1)
        };
        let what = format!("{codebook} {arithmetic:?}, {rows} rows of {k}");
        let plain = pair.run(&config, None);
        let pair = pair.with_squares();
        let normalised = pair.run(&config, None);
        for (linear, (got, plain)) in pair.linears.iter().zip(normalised.iter().zip(&plain)) {
            let bias = linear.bias().unwrap().to_vec();
            for (i, (&got, &plain)) in got.iter().zip(plain).enumerate() {
                let row = &wide(&pair.x)[i / 128 * k..][..k];
                let mean = row.iter().map(|x| x * x).sum::<f64>() / k as f64;
                let bias = f64::from(bias[i % 128]);
                let scale = (mean + f64::from(EPSILON)).sqrt();
                let want = (f64::from(plain) - bias) / scale + bias;
                let bound = 4e-6 * ((want - bias).abs() + bias.abs());
                assert!((f64::from(got) - want).abs() <= bound, "{what}, value {i}");
            }
        }
        let gated = pair.run(&config, Some(Epilogue::Store)).remove(0);
        assert_gated(&what, &gated, &normalised, &vec![0.0; gated.len()]);
    }
}

#[test]
fn a_call_cut_between_rows_gates_and_divides_each() {
    let mut rng = StdRng::seed_from_u64(62);
    let linears = [0; 2].map(|_| Random::new(&mut rng, 256, 256, Codebook::Mcg, rate(4)));
    let pair = Pair {
        linears: linears.each_ref().map(Random::linear),
        arithmetic: Arithmetic::Uniform,
        x: random_input(&mut rng, 7 * 256),
        squares: None,
    };
    let pair = pair.with_squares();
    let run = |slot_values, gated| {
        let config = SimGroup {
            slot_values,
            ..group(1)
        };
        pair.run(&config, gated)
    };
    for gated in [None, Some(Epilogue::Store)] {
        assert_eq!(run(1100, gated), run(1 << 14, gated), "{gated:?}");
    }
}

#[test]
fn a_row_parallel_call_leaves_the_sums_of_the_squares_it_has_stored() {
    let mut rng = StdRng::seed_from_u64(63);
    for (variant, (codebook, arithmetic, rows)) in EVERY_KERNEL.into_iter().enumerate() {
        let random = Random::new(&mut rng, 256, 384, codebook, rate(6));
        let linear = random.linear();
        let x = random_input(&mut rng, rows * 256);
        let split = Split::even(256, 2).unwrap();
        let config = SimGroup {
            // Cut between columns, between rows, and not at all.
            slot_values: [256, 1000, 1 << 14][variant % 3],
            ..group(2)
        };
        let results = on_ranks(&config, |rank, mut sim| {
            let layer = SimLinear::new(&linear.rows(split.range(rank)).unwrap());
            let input = Buffer::new(&columns_of(&x, 256, split.range(rank)));
            let held: Vec<f16> = random_input(&mut StdRng::seed_from_u64(1), rows * 384);
            let output = SimOutput {
                data: Buffer::new(&held),
                dtype: DType::F16,
                epilogue: Epilogue::Add,
            };
            let squares = Buffer::new(&vec![f32::NAN; rows * 3]);
            let call = Call {
                layers: &[&layer],
                input: &input,
                dtype: DType::F16,
                rows,
                arithmetic,
                outputs: &[&output],
            };
            let epilogues = Epilogues {
                squares_out: Some(&squares),
                ..Default::default()
            };
            sim.set_sms(3 + rank);
            sim.run_with(Channel::Group, &call, epilogues);
            assert_eq!(sim.report().0, 0);
            (output.data.read::<f16>(), squares.read::<f32>())
        });
        assert!(results[0] == results[1], "ranks differ");
        let (y, squares) = &results[0];
        for (i, group) in wide(y).chunks_exact(GROUP).enumerate() {
            let want: f64 = group.iter().map(|y| y * y).sum();
            let near = (f64::from(squares[i]) - want).abs() <= 1e-6 * want;
            assert!(near, "{codebook}, sum {i}: {} for {want}", squares[i]);
        }
    }
}
