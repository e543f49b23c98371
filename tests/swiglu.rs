//! SwiGLU: one output of a gate and what it lets through, in the launch that computes both.
//!
//! What the two linears compute is what `forward` stores of them in f32, bit for bit; so what is left to judge is
//! silu, one product and one rounding.

mod common;

use common::*;
use std::time::Duration;
use trellink::format::DType;
use trellink::reference::{self, ReferenceLinear};
use trellink::{Arithmetic, ColumnParallel, Epilogue, LoadOptions, Output, RmsNorm, Split};

/// A gate and what it lets through, with inputs for some rows.
struct Mlp {
    gate: RandomLinear,
    up: RandomLinear,
    x: Values,
}

impl Mlp {
    /// `variant` decides over formats, dtypes, biases and how large the gate's values are.
    fn random(seed: &Seed, variant: usize, [k, n]: [usize; 2], rows: usize) -> Self {
        let mut rng = seed.rng(variant as u64);
        let mut linear = |i: usize| {
            let format = formats()[(5 * variant + 7 * i) % formats().len()];
            let linear = RandomLinear::new(&mut rng, format, k, n);
            match (variant + i) % 3 {
                0 => linear,
                1 => linear.tame(&mut rng),
                _ => linear.with_bias(&mut rng, DType::ALL[variant % 3]),
            }
        };
        let (gate, up) = (linear(0), linear(1));
        let dtype = [DType::F16, DType::Bf16][variant % 2];
        let x = activations(&mut rng, dtype, rows * k, 2.0);
        Mlp { gate, up, x }
    }

    fn load(&self, worker: &Worker<'_>, split: &Split, arithmetic: Arithmetic) -> ColumnParallel {
        let options = LoadOptions::new().arithmetic(arithmetic);
        let (gate, up) = (self.gate.linear(), self.up.linear());
        let linears = [(&gate, split), (&up, split)];
        ColumnParallel::load_with(&worker.rank, &linears, options).unwrap()
    }

    fn reference(&self, rows: usize) -> Vec<f64> {
        let x = self.x.slice(0..rows * self.gate.k).to_f64();
        let [gate, up] = [&self.gate, &self.up]
            .map(|linear| ReferenceLinear::new(&linear.linear()).forward(&x, rows));
        reference::swiglu(&gate, &up)
    }
}

/// The gated output of the first rows, which held `before`.
fn gated(
    worker: &mut Worker<'_>,
    (mlp, layer): (&Mlp, &ColumnParallel),
    rows: usize,
    (before, epilogue): (&Values, Epilogue),
) -> Values {
    let elements = 0..rows * layer.k();
    let x = worker.memory.buffer(&mlp.x.slice(elements.clone()));
    let mut y = worker.memory.buffer(before);
    worker.collective(|rank, memory| {
        let (input, output) = (x.input(elements), y.output(epilogue));
        layer
            .forward_swiglu(rank, memory.stream(), input, output)
            .unwrap();
    });
    y.read()
}

/// What the gate and the other linear compute, in f32.
fn apart(
    worker: &mut Worker<'_>,
    (mlp, layer): (&Mlp, &ColumnParallel),
    rows: usize,
) -> [Values; 2] {
    let elements = 0..rows * layer.k();
    let x = worker.memory.buffer(&mlp.x.slice(elements.clone()));
    let poison = Values::poison(DType::F32, rows * layer.columns()[0]);
    let mut y = [0; 2].map(|_| worker.memory.buffer(&poison));
    worker.collective(|rank, memory| {
        let mut outputs = y.each_mut().map(|y| y.output(Epilogue::Store));
        let input = x.input(elements);
        layer
            .forward(rank, memory.stream(), input, &mut outputs)
            .unwrap();
    });
    y.map(|y| y.read())
}

/// Whether `got` is silu(gate) · up, added to what it held if so, as nearly as silu's documented error and the rounding to
/// its dtype allow.
#[track_caller]
fn assert_gated(got: &Values, [gate, up]: &[Values; 2], before: Option<&Values>, what: &str) {
    let (unit, least) = match got.dtype() {
        DType::F16 => (2f64.powi(-11), 2f64.powi(-25)),
        DType::Bf16 => (2f64.powi(-8), 0.0),
        DType::F32 => (2f64.powi(-24), 0.0),
    };
    let (gate, up) = (gate.to_f64(), up.to_f64());
    let held = before.map_or(vec![0.0; gate.len()], Values::to_f64);
    let products = reference::swiglu(&gate, &up);
    for (i, got) in got.to_f64().into_iter().enumerate() {
        let want = products[i] + held[i];
        // Two products besides, and the magnitude below which silu may be 0.
        let silu = 2f64.powi(-21) + (gate[i].abs() + 2.0) * 2f64.powi(-24);
        let product = silu * products[i].abs() + 1e-36 * up[i].abs();
        let bound = product + unit * (want.abs() + product) + 2f64.powi(-24) * want.abs() + least;
        // Not `>`: a NaN must fail.
        assert!(
            (got - want).abs() <= bound,
            "{what}, value {i}: {got} for {want}, gate {}, up {}",
            gate[i],
            up[i]
        );
    }
}

fn worlds(platform: &Platform) -> &'static [usize] {
    match platform.extent() {
        Extent::Reduced => &[2],
        _ => &[1, 2, 5],
    }
}

fn held(dtype: DType, len: usize, epilogue: Epilogue) -> Values {
    match epilogue {
        Epilogue::Store => Values::poison(dtype, len),
        Epilogue::Add => Values::of(dtype, (0..len).map(|i| 9.0 * (i as f32).sin())),
    }
}

on_both! {
    fn the_output_is_that_of_the_two_linears_gated_and_rounded_once(platform: &Platform) {
        let _watchdog = Watchdog::new("gated layers", Duration::from_secs(300));
        let seed = Seed::new(0x5161);
        let mlps: Vec<Mlp> = (0..9)
            .map(|variant| {
                let n = [384, 128, 1152][variant % 3];
                Mlp::random(&seed, variant, [640, n], 70)
            })
            .collect();
        for &world in worlds(platform) {
            on_ranks(platform, platform.group(world), |worker| {
                for (variant, mlp) in mlps.iter().enumerate() {
                    let arithmetic = [Arithmetic::Fastest, Arithmetic::Uniform][variant % 2];
                    let split = Shards::ALL[variant % 3].split(mlp.gate.n, world);
                    let layer = mlp.load(worker, &split, arithmetic);
                    for (i, rows) in [1, 4, 7, 9, 17, 33, 70].into_iter().enumerate() {
                        let (dtype, epilogue) = (
                            DType::ALL[(variant + i) % 3],
                            [Epilogue::Store, Epilogue::Add][(variant + i) / 3 % 2],
                        );
                        let what = format!("variant {variant}, {rows} rows, {dtype} {epilogue:?}, world {world}");
                        let held = held(dtype, rows * layer.columns()[0], epilogue);
                        let [got, again] =
                            [0; 2].map(|_| gated(worker, (mlp, &layer), rows, (&held, epilogue)));
                        got.assert_same_bits(&again, format_args!("{what}: two runs"));
                        let parts = apart(worker, (mlp, &layer), rows);
                        let before = (epilogue == Epilogue::Add).then_some(&held);
                        assert_gated(&got, &parts, before, &what);
                    }
                }
            });
        }
    }

    fn the_output_is_near_the_reference(platform: &Platform) {
        let _watchdog = Watchdog::new("a gated layer", Duration::from_secs(120));
        let mlp = Mlp::random(&Seed::new(0x5162), 3, [512, 384], 9);
        let want = mlp.reference(9);
        on_ranks(platform, platform.group(1), |worker| {
            let layer = mlp.load(worker, &Split::even(384, 1).unwrap(), Arithmetic::Fastest);
            let poison = Values::poison(DType::F32, 9 * 384);
            let got = gated(worker, (&mlp, &layer), 9, (&poison, Epilogue::Store));
            // A product of two has the errors of both.
            let error = reference::relative_error(got.to_f64().into_iter(), &want);
            assert!(error < 2.0 * TOLERANCE, "{error:.2e}");
        });
    }

    fn a_row_depends_neither_on_its_batch_nor_on_how_a_call_is_cut(platform: &Platform) {
        let _watchdog = Watchdog::new("gated batches", Duration::from_secs(240));
        let mlp = Mlp::random(&Seed::new(0x5163), 4, [640, 384], 40);
        let call = |slot, rows: usize| {
            on_ranks(platform, platform.group(1).slot_values(slot), |worker| {
                let split = Split::even(384, 1).unwrap();
                let layer = mlp.load(worker, &split, Arithmetic::Uniform);
                let poison = Values::poison(DType::Bf16, rows * 384);
                gated(worker, (&mlp, &layer), rows, (&poison, Epilogue::Store))
            })
            .swap_remove(0)
        };
        let all = call(1 << 16, 40);
        for (slot, rows) in [(1 << 16, 1), (1 << 16, 9), (768, 9), (1000, 40), (8500, 40)] {
            let some = call(slot, rows);
            let what = format_args!("{rows} rows in slots of {slot}");
            some.assert_same_bits(&all.slice(0..rows * 384), what);
        }
    }

    fn what_cannot_be_gated_is_refused_and_the_rank_still_works(platform: &Platform) {
        let _watchdog = Watchdog::new("refused gates", Duration::from_secs(120));
        let mlp = Mlp::random(&Seed::new(0x5164), 1, [256, 256], 2);
        on_ranks(platform, platform.group(1).slot_values(512), |worker| {
            let (gate, up) = (mlp.gate.linear(), mlp.up.linear());
            let (half, up_half) = (gate.columns(0..128).unwrap(), up.columns(128..256).unwrap());
            let splits = [128, 256].map(|n| Split::even(n, 1).unwrap());
            let load = |linears: &[_]| ColumnParallel::load(&worker.rank, linears).unwrap();
            let wide = load(&[(&gate, &splits[1]), (&up, &splits[1])]);
            let uneven = load(&[(&gate, &splits[1]), (&up_half, &splits[0])]);
            let three = load(&[(&half, &splits[0]), (&half, &splits[0]), (&half, &splits[0])]);
            let memory = &worker.memory;
            let x = memory.buffer(&mlp.x);
            let poison = Values::poison(DType::F16, 512);
            let [mut y, mut out] = [0; 2].map(|_| memory.buffer(&poison));
            let mut short = memory.buffer(&poison.slice(0..256));
            worker.phase(|rank, memory| {
                let mut forward = |layer: &ColumnParallel, output: Output<'_>| {
                    layer.forward_swiglu(rank, memory.stream(), x.input(0..512), output)
                };
                let store = Epilogue::Store;
                refused(forward(&uneven, y.output(store)), "self", "[256, 128]");
                refused(forward(&three, y.output(store)), "self", "two");
                refused(forward(&wide, short.output(store)), "output", "2 rows of 256");
                let norm = RmsNorm::new(x.input(0..256), 0.0, out.output(store));
                refused(forward(&wide, y.output(store).rms_norm(norm)), "output", "RMSNorm");
            });
            let before = (&poison, Epilogue::Store);
            let got = gated(worker, (&mlp, &wide), 2, before);
            let parts = apart(worker, (&mlp, &wide), 2);
            assert_gated(&got, &parts, None, "after the refusals");
        });
    }

    fn rows_that_do_not_fit_a_slot_together_are_refused(platform: &Platform) {
        let _watchdog = Watchdog::new("gates without a slot", Duration::from_secs(120));
        let mlp = Mlp::random(&Seed::new(0x5165), 1, [256, 256], 1);
        on_ranks(platform, platform.group(1).slot_values(384), |worker| {
            let layer = mlp.load(worker, &Split::even(256, 1).unwrap(), Arithmetic::Fastest);
            let x = worker.memory.buffer(&mlp.x);
            let mut y = worker.memory.buffer(&Values::poison(DType::F16, 256));
            worker.phase(|rank, memory| {
                let output = y.output(Epilogue::Store);
                let result = layer.forward_swiglu(rank, memory.stream(), x.input(0..256), output);
                refused(result, "output", "`slot_values` of at least 512");
            });
            // Apart, their columns may be cut.
            apart(worker, (&mlp, &layer), 1);
        });
    }
}
