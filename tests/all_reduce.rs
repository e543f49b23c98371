//! The sum of a tensor over the ranks: in rank order, rounded once, the same bits everywhere.

mod common;

use common::*;
use rand::rngs::StdRng;
use rand::Rng;
use std::time::Duration;
use trellink::format::DType;
use trellink::{AllReduce, Epilogue, Error, Rank, ReduceForm};

const FORMS: [ReduceForm; 3] = [
    ReduceForm::Automatic,
    ReduceForm::OneShot,
    ReduceForm::TwoShot,
];

/// One call of all ranks, and what comes of it.
struct Case {
    inputs: Vec<Values>,
    residual: Values,
    epilogue: Epilogue,
    form: ReduceForm,
}

impl Case {
    /// Values of magnitudes so different that the order of additions shows.
    fn random(rng: &mut StdRng, world: usize, len: usize, (input, output): (DType, DType)) -> Self {
        let mut values = |dtype| {
            let number = |rng: &mut StdRng| {
                rng.random_range(-1.0f32..1.0) * 2f32.powi(rng.random_range(-8..8))
            };
            let numbers: Vec<f32> = (0..len).map(|_| number(rng)).collect();
            Values::of(dtype, numbers)
        };
        Case {
            inputs: (0..world).map(|_| values(input)).collect(),
            residual: values(output),
            epilogue: Epilogue::Store,
            form: ReduceForm::Automatic,
        }
    }

    /// f32 additions in rank order, then the residual, then one rounding.
    fn want(&self) -> Values {
        let ranks: Vec<Vec<f32>> = self.inputs.iter().map(narrow).collect();
        let partials: Vec<&[f32]> = ranks.iter().map(Vec::as_slice).collect();
        let sums = trellink::reference::reduce(&partials);
        let residual = narrow(&self.residual);
        let finished = sums
            .iter()
            .zip(&residual)
            .map(|(&sum, &r)| match self.epilogue {
                Epilogue::Store => sum,
                Epilogue::Add => sum + r,
            });
        Values::of(self.residual.dtype(), finished)
    }

    /// What an output holds before the call.
    fn before(&self) -> Values {
        match self.epilogue {
            Epilogue::Store => Values::poison(self.residual.dtype(), self.residual.len()),
            Epilogue::Add => self.residual.clone(),
        }
    }
}

/// The numbers as f32, exactly.
fn narrow(values: &Values) -> Vec<f32> {
    values.to_f64().iter().map(|&value| value as f32).collect()
}

/// Makes every call on all ranks of a group, and compares the outputs of each rank.
fn assert_right(platform: &Platform, world: usize, slot_values: usize, cases: &[Case]) {
    let group = platform.group(world).slot_values(slot_values);
    on_ranks(platform, group, |worker| {
        let here = worker.rank.rank();
        let buffer = |values: &Values| worker.memory.buffer(values);
        let inputs: Vec<_> = cases.iter().map(|c| buffer(&c.inputs[here])).collect();
        let mut outputs: Vec<_> = cases.iter().map(|c| buffer(&c.before())).collect();
        worker.collective(|rank, memory| {
            for ((case, x), y) in cases.iter().zip(&inputs).zip(&mut outputs) {
                let (input, output) = (x.input(0..case.residual.len()), y.output(case.epilogue));
                let reduce = AllReduce::new().form(case.form);
                reduce.run(rank, memory.stream(), input, output).unwrap();
            }
        });
        for (i, (case, y)) in cases.iter().zip(&outputs).enumerate() {
            let what = format!("call {i} of {world} ranks, rank {here}, {:?}", case.form);
            y.read().assert_same_bits(&case.want(), what);
        }
    });
}

fn dtype_pairs() -> impl Iterator<Item = (DType, DType)> {
    DType::ALL
        .into_iter()
        .flat_map(|input| DType::ALL.map(|output| (input, output)))
}

on_both! {
    fn every_world_adds_in_rank_order(platform: &Platform) {
        let _watchdog = Watchdog::new("worlds", Duration::from_secs(240));
        let seed = Seed::new(0xa11);
        for world in 1..=8 {
            let mut rng = seed.rng(world as u64);
            let mut cases = Vec::new();
            for (i, len) in [8, 16, 8 * 17, 8 * 331, 40_000].into_iter().enumerate() {
                for form in FORMS {
                    let dtypes = dtype_pairs().nth((world + 2 * i) % 9).unwrap();
                    let mut case = Case::random(&mut rng, world, len, dtypes);
                    case.form = form;
                    cases.push(case);
                }
            }
            assert_right(platform, world, 1 << 16, &cases);
        }
    }

    fn every_dtype_and_epilogue_is_rounded_once(platform: &Platform) {
        let _watchdog = Watchdog::new("dtypes", Duration::from_secs(120));
        let mut rng = Seed::new(0xa12).rng(0);
        let mut cases = Vec::new();
        for dtypes in dtype_pairs() {
            for epilogue in [Epilogue::Store, Epilogue::Add] {
                for form in FORMS {
                    let mut case = Case::random(&mut rng, 3, 8 * 123, dtypes);
                    (case.epilogue, case.form) = (epilogue, form);
                    cases.push(case);
                }
            }
        }
        assert_right(platform, 3, 1 << 16, &cases);
    }

    fn tensors_larger_than_the_slots_are_cut(platform: &Platform) {
        let _watchdog = Watchdog::new("messages", Duration::from_secs(120));
        let mut rng = Seed::new(0xa13).rng(0);
        for slot_values in [1, 1000] {
            let mut cases = Vec::new();
            for form in FORMS {
                for dtypes in [(DType::F32, DType::Bf16), (DType::F16, DType::F32)] {
                    let mut case = Case::random(&mut rng, 2, 8 * 777, dtypes);
                    (case.epilogue, case.form) = (Epilogue::Add, form);
                    cases.push(case);
                }
            }
            assert_right(platform, 2, slot_values, &cases);
        }
    }

    /// Long enough for two shots without being asked for them, in any world.
    fn long_tensors_give_the_same_bits(platform: &Platform) {
        let _watchdog = Watchdog::new("long tensors", Duration::from_secs(240));
        let mut rng = Seed::new(0xa14).rng(0);
        for world in [2, 5] {
            let cases = [(DType::F32, DType::F32), (DType::Bf16, DType::F16)];
            let cases = cases.map(|dtypes| Case::random(&mut rng, world, (1 << 19) + 8, dtypes));
            assert_right(platform, world, 1 << 17, &cases);
        }
    }

    fn a_call_in_place_equals_one_that_is_not(platform: &Platform) {
        let _watchdog = Watchdog::new("in place", Duration::from_secs(120));
        let mut rng = Seed::new(0xa15).rng(0);
        for world in [1, 2, 3] {
            for form in FORMS {
                let cases = DType::ALL.map(|dtype| {
                    Case::random(&mut rng, world, 8 * 999, (dtype, dtype))
                });
                on_ranks(platform, platform.group(world), |worker| {
                    let here = worker.rank.rank();
                    let buffer = |case: &Case| worker.memory.buffer(&case.inputs[here]);
                    let mut buffers = cases.each_ref().map(buffer);
                    worker.collective(|rank, memory| {
                        for buffer in &mut buffers {
                            let reduce = AllReduce::new().form(form);
                            let buffer = buffer.output(Epilogue::Store);
                            reduce.run_in_place(rank, memory.stream(), buffer).unwrap();
                        }
                    });
                    for (case, buffer) in cases.iter().zip(&buffers) {
                        let what = format_args!("{form:?} in place, rank {here} of {world}");
                        buffer.read().assert_same_bits(&case.want(), what);
                    }
                });
            }
        }
    }

    fn signed_zeros_infinities_and_nan_pass(platform: &Platform) {
        let _watchdog = Watchdog::new("special values", Duration::from_secs(120));
        let zeros = [-0.0; 8];
        let infinite = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0, -0.0, 0.0, 2.0, -2.0];
        on_ranks(platform, platform.group(2), |worker| {
            let second = if worker.rank.rank() == 0 { infinite.to_vec() } else { vec![1.0; 8] };
            for form in FORMS {
                for dtype in DType::ALL {
                    let values: Vec<f32> = zeros.iter().chain(&second).copied().collect();
                    let x = worker.memory.buffer(&Values::of(dtype, values));
                    let mut y = worker.memory.buffer(&Values::poison(dtype, 16));
                    worker.collective(|rank, memory| {
                        let (input, output) = (x.input(0..16), y.output(Epilogue::Store));
                        let reduce = AllReduce::new().form(form);
                        reduce.run(rank, memory.stream(), input, output).unwrap();
                    });
                    let y = y.read();
                    let negative_zeros = Values::of(dtype, zeros.iter().copied());
                    y.slice(0..8).assert_same_bits(&negative_zeros, "-0 + -0");
                    let y = narrow(&y.slice(8..16));
                    assert_eq!(y[..2], [f32::INFINITY, f32::NEG_INFINITY]);
                    assert!(y[2].is_nan());
                    assert_eq!(y[3..], [2.0, 1.0, 1.0, 3.0, -1.0]);
                }
            }
        });
    }

    fn wrong_arguments_are_refused_and_the_group_still_works(platform: &Platform) {
        let _watchdog = Watchdog::new("wrong arguments", Duration::from_secs(120));
        let reduce = AllReduce::new();
        on_ranks(platform, platform.group(2), |worker| {
            let x = worker.memory.buffer(&Values::of(DType::F16, vec![1.0; 24]));
            let buffer = |len| worker.memory.buffer(&Values::poison(DType::F32, len));
            let (mut y, mut odd) = (buffer(16), buffer(12));
            worker.phase(|rank, memory| {
                let stream = || memory.stream();
                let store = Epilogue::Store;
                let shorter = reduce.run(rank, stream(), x.input(0..8), y.output(store));
                refused(shorter, "input", "16, as many as the output");
                let uneven = reduce.run(rank, stream(), x.input(0..12), odd.output(store));
                refused(uneven, "output", "a multiple of 8");
                let uneven = reduce.run_in_place(rank, stream(), odd.output(store));
                refused(uneven, "output", "a multiple of 8");
                let adds = reduce.run_in_place(rank, stream(), y.output(Epilogue::Add));
                refused(adds, "buffer", "one that stores");
            });
            assert!(y.read().to_f64().iter().all(|value| value.is_nan()));
            worker.collective(|rank, memory| {
                let (input, output) = (x.input(0..16), y.output(Epilogue::Store));
                reduce.run(rank, memory.stream(), input, output).unwrap();
            });
            assert!(y.read().to_f64().iter().all(|&value| value == 2.0));
        });
    }

    fn a_tensor_without_elements_exchanges_nothing(platform: &Platform) {
        // All on one thread: a call that waited would time out.
        let group = platform.group(2).timeout(Duration::from_millis(300));
        for rank in &mut group.build().unwrap() {
            let memory = platform.memory(rank);
            let x = memory.buffer(&Values::of(DType::F16, []));
            let mut y = memory.buffer(&Values::of(DType::F16, []));
            let (input, output) = (x.input(0..0), y.output(Epilogue::Add));
            AllReduce::new().run(rank, memory.stream(), input, output).unwrap();
            memory.synchronize();
            rank.check().unwrap();
        }
    }

    fn a_rank_that_never_calls_is_named(platform: &Platform) {
        let _watchdog = Watchdog::new("a silent rank", Duration::from_secs(120));
        for form in FORMS {
            let group = platform.group(2).timeout(Duration::from_millis(300));
            on_ranks(platform, group, |worker| {
                let mut y = worker.memory.buffer(&Values::of(DType::F16, vec![1.0; 800]));
                worker.phase(|rank, memory| {
                    if rank.rank() == 0 {
                        let reduce = AllReduce::new().form(form);
                        let _ = reduce.run_in_place(rank, memory.stream(), y.output(Epilogue::Store));
                    }
                    memory.synchronize();
                });
                let error = worker.rank.check().expect_err("the group has failed");
                let named = matches!(error, Error::PeerTimeout { rank: 0, peer: 1, .. });
                assert!(named, "{error}");
                let again = worker.phase(|rank: &mut Rank, memory| {
                    AllReduce::new().run_in_place(rank, memory.stream(), y.output(Epilogue::Store))
                });
                again.expect_err("a failed group stays failed");
            });
        }
    }
}

/// Memory that layers would take and kernels of this call cannot.
#[cfg(feature = "cuda")]
#[test]
fn misaligned_memory_is_refused_on_cuda() {
    use trellink::{Input, Output};
    let Some(platform) = Platform::cuda("misaligned memory") else {
        return;
    };
    let mut rank = platform.group(1).build().unwrap().remove(0);
    let memory = platform.memory(&rank);
    // SAFETY: refused before anything is enqueued, so nobody follows the pointers.
    let (aligned, misaligned) = unsafe {
        let input = |pointer| Input::device_raw(pointer, DType::F16, 8);
        let output = |pointer| Output::device_raw(pointer, DType::F16, 8, Epilogue::Store);
        ((input(1 << 20), output(1 << 20)), (input(8), output(8)))
    };
    let reduce = AllReduce::new();
    let input = reduce.run(&mut rank, memory.stream(), misaligned.0, aligned.1);
    refused(input, "input", "16 bytes");
    let output = reduce.run(&mut rank, memory.stream(), aligned.0, misaligned.1);
    refused(output, "output", "16 bytes");
}
