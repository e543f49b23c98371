//! The all-reduce kernel in both forms.

use crate::common::{group, on_each, on_ranks, rate, row_parallel_call, Random};
use half::{bf16, f16};
use rand::{rngs::StdRng, Rng, SeedableRng};
use std::time::{Duration, Instant};
use trellink::format::{Codebook, DType};
use trellink::{Arithmetic, Epilogue, ReduceForm, Split};
use trellink_sim::{Buffer, Channel, Reduction, SimGroup, SimLinear, SimOutput, SimRank};

const FORMS: [ReduceForm; 2] = [ReduceForm::OneShot, ReduceForm::TwoShot];
const EPILOGUES: [Epilogue; 2] = [Epilogue::Store, Epilogue::Add];

/// Memory with these values, rounded to `dtype`.
fn buffer(dtype: DType, values: &[f32]) -> Buffer {
    match dtype {
        DType::F16 => Buffer::new(&values.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>()),
        DType::Bf16 => Buffer::new(
            &values
                .iter()
                .map(|&v| bf16::from_f32(v))
                .collect::<Vec<_>>(),
        ),
        DType::F32 => Buffer::new(values),
    }
}

/// What the memory holds, exactly.
fn values(dtype: DType, buffer: &Buffer) -> Vec<f32> {
    match dtype {
        DType::F16 => buffer.read::<f16>().iter().map(|v| v.to_f32()).collect(),
        DType::Bf16 => buffer.read::<bf16>().iter().map(|v| v.to_f32()).collect(),
        DType::F32 => buffer.read(),
    }
}

fn rounded(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::Bf16 => bf16::from_f32(value).to_f32(),
        DType::F32 => value,
    }
}

/// A call of all ranks: dtypes, epilogue, form, and every rank's input and residual.
#[derive(Clone)]
struct Case {
    dtypes: (DType, DType),
    epilogue: Epilogue,
    form: ReduceForm,
    in_place: bool,
    inputs: Vec<Vec<f32>>,
    residual: Vec<f32>,
}

impl Case {
    fn random(rng: &mut StdRng, world: usize, octets: usize, dtypes: (DType, DType)) -> Self {
        let mut numbers = || -> Vec<f32> {
            // Of magnitudes so different that the order of additions shows.
            let number = |rng: &mut StdRng| {
                rng.random_range(-1.0f32..1.0) * 2f32.powi(rng.random_range(-8..8))
            };
            (0..8 * octets).map(|_| number(rng)).collect()
        };
        Case {
            dtypes,
            epilogue: Epilogue::Store,
            form: ReduceForm::OneShot,
            in_place: false,
            inputs: (0..world).map(|_| numbers()).collect(),
            residual: numbers(),
        }
    }

    fn want(&self) -> Vec<f32> {
        let (input, output) = self.dtypes;
        let add = self.epilogue == Epilogue::Add;
        let want = |i: usize| {
            let of = |rank: &Vec<f32>| rounded(input, rank[i]);
            let sum = self.inputs[1..]
                .iter()
                .fold(of(&self.inputs[0]), |sum, rank| sum + of(rank));
            let residual = rounded(output, self.residual[i]);
            rounded(output, if add { sum + residual } else { sum })
        };
        (0..self.residual.len()).map(want).collect()
    }

    /// One rank's part in the call; its output and the number of launches.
    fn run(&self, sim: &mut SimRank, rank: usize) -> (Vec<f32>, usize) {
        let (input, output) = self.dtypes;
        let x = buffer(input, &self.inputs[rank]);
        let before = match (self.in_place, self.epilogue) {
            (true, _) => self.inputs[rank].clone(),
            (_, Epilogue::Store) => vec![f32::NAN; self.residual.len()],
            (_, Epilogue::Add) => self.residual.clone(),
        };
        let out = SimOutput {
            data: buffer(output, &before),
            dtype: output,
            epilogue: self.epilogue,
        };
        let launches = sim.all_reduce(&Reduction {
            input: if self.in_place { &out.data } else { &x },
            dtype: input,
            len: self.residual.len(),
            form: self.form,
            output: &out,
        });
        (values(output, &out.data), launches)
    }

    fn check(&self, sim: &mut SimRank, rank: usize, what: &str) {
        let (got, _) = self.run(sim, rank);
        assert_eq!(sim.report().0, 0, "{what}: rank {rank} reported a failure");
        assert_same(&got, &self.want(), &format!("{what}: rank {rank}"));
    }
}

/// The same bits, except that one NaN is as good as another.
fn assert_same(got: &[f32], want: &[f32], what: &str) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
        assert!(same, "{what}: element {i} is {got:e}, not {want:e}");
    }
    assert_eq!(got.len(), want.len());
}

fn dtype_pairs() -> impl Iterator<Item = (DType, DType)> {
    DType::ALL
        .into_iter()
        .flat_map(|input| DType::ALL.map(|output| (input, output)))
}

#[test]
fn every_world_adds_in_rank_order_in_either_form() {
    let mut rng = StdRng::seed_from_u64(50);
    for world in 1..=8 {
        let mut cases = Vec::new();
        for (i, octets) in [1, 2, 17, 131, 700].into_iter().enumerate() {
            for form in FORMS {
                let dtypes = dtype_pairs().nth((world + 2 * i) % 9).unwrap();
                let mut case = Case::random(&mut rng, world, octets, dtypes);
                case.epilogue = EPILOGUES[(world + i) % 2];
                case.form = form;
                cases.push(case);
            }
        }
        on_ranks(&group(world), |rank, mut sim| {
            for (i, case) in cases.iter().enumerate() {
                case.check(&mut sim, rank, &format!("world {world}, case {i}"));
            }
        });
    }
}

#[test]
fn every_pair_of_dtypes_and_epilogue_is_rounded_once() {
    let mut rng = StdRng::seed_from_u64(51);
    let mut cases = Vec::new();
    for dtypes in dtype_pairs() {
        for epilogue in EPILOGUES {
            for form in FORMS {
                let mut case = Case::random(&mut rng, 3, 65, dtypes);
                (case.epilogue, case.form) = (epilogue, form);
                cases.push(case);
            }
        }
    }
    on_ranks(&group(3), |rank, mut sim| {
        for case in &cases {
            let what = format!("{:?} {:?} {:?}", case.dtypes, case.epilogue, case.form);
            case.check(&mut sim, rank, &what);
        }
    });
}

#[test]
fn tensors_larger_than_a_slot_take_several_launches() {
    let mut rng = StdRng::seed_from_u64(52);
    for slot_values in [128, 640] {
        let config = SimGroup {
            slot_values,
            ..group(2)
        };
        for form in FORMS {
            for dtypes in [(DType::F32, DType::F16), (DType::Bf16, DType::F32)] {
                let mut case = Case::random(&mut rng, 2, 301, dtypes);
                (case.form, case.epilogue) = (form, Epilogue::Add);
                on_ranks(&config, |rank, mut sim| {
                    let (got, launches) = case.run(&mut sim, rank);
                    assert!(launches > 1, "{launches} launches");
                    assert_same(&got, &case.want(), "several launches");
                });
            }
        }
    }
}

#[test]
fn a_call_in_place_replaces_its_input() {
    let mut rng = StdRng::seed_from_u64(53);
    for form in FORMS {
        for dtype in DType::ALL {
            let mut case = Case::random(&mut rng, 2, 900, (dtype, dtype));
            (case.form, case.in_place) = (form, true);
            on_ranks(&group(2), |rank, mut sim| {
                case.check(&mut sim, rank, "in place");
            });
        }
    }
}

#[test]
fn ranks_with_different_numbers_of_sms_agree_on_chunks() {
    let mut rng = StdRng::seed_from_u64(54);
    for form in FORMS {
        let mut case = Case::random(&mut rng, 3, 1500, (DType::F16, DType::F16));
        case.form = form;
        let mut ranks = group(3).build();
        ranks[0].set_sms(1);
        ranks[2].set_sms(5);
        on_each(ranks, |rank, mut sim| {
            case.check(&mut sim, rank, "uneven devices")
        });
    }
}

#[test]
fn special_values_pass() {
    let special = [
        -0.0,
        0.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        65504.0,
        1e-7,
        -1.0,
    ];
    for world in [1, 2, 4] {
        for form in FORMS {
            for dtypes in dtype_pairs() {
                let mut rng = StdRng::seed_from_u64(55);
                let mut case = Case::random(&mut rng, world, 8, dtypes);
                case.form = form;
                for (rank, input) in case.inputs.iter_mut().enumerate() {
                    // Every special value of one rank meets every one of the last.
                    for (i, value) in input.iter_mut().enumerate() {
                        *value = special[if rank + 1 == world { i / 8 } else { i % 8 }];
                    }
                }
                on_ranks(&group(world), |rank, mut sim| {
                    case.check(&mut sim, rank, &format!("{form:?} {dtypes:?} of {world}"));
                });
            }
        }
    }
}

#[test]
fn a_rank_alone_copies_every_bit() {
    let signalling = f32::from_bits(0x7f80_0001);
    let x = [
        signalling,
        -0.0,
        f32::MIN_POSITIVE / 2.0,
        1.0,
        -1.0,
        3.0,
        4.0,
        5.0,
    ];
    for form in FORMS {
        let mut sim = group(1).build().remove(0);
        let out = SimOutput {
            data: Buffer::new(&[0f32; 8]),
            dtype: DType::F32,
            epilogue: Epilogue::Store,
        };
        sim.all_reduce(&Reduction {
            input: &Buffer::new(&x),
            dtype: DType::F32,
            len: 8,
            form,
            output: &out,
        });
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&out.data.read::<f32>()), bits(&x));
    }
}

/// Plain words lie where the next calls poll for packets: here each looks like a packet of one of them.
#[test]
fn words_that_look_like_tags_are_gone_when_packets_are_polled() {
    let mut rng = StdRng::seed_from_u64(56);
    // As f32 numbers, small ones: their sums are exact.
    let first_epoch = 1000;
    let config = SimGroup {
        first_epoch,
        slot_values: 2048,
        ..group(2)
    };
    let mut cases = Vec::new();
    for call in 0..24u32 {
        let mut case = Case::random(&mut rng, 2, 96, (DType::F32, DType::F32));
        if call % 4 < 2 {
            case.form = ReduceForm::TwoShot;
            for input in &mut case.inputs {
                // The tags of the next call of this parity, of one far ahead, and of this call.
                for (i, value) in input.iter_mut().enumerate() {
                    let ahead = [2, 2, 1000, 0][i / 2 % 4];
                    *value = f32::from_bits(first_epoch + call + ahead);
                }
            }
        }
        cases.push(case);
    }
    on_ranks(&config, |rank, mut sim| {
        for (call, case) in cases.iter().enumerate() {
            case.check(&mut sim, rank, &format!("call {call}"));
        }
    });
}

#[test]
fn both_forms_and_layers_share_epochs_across_the_wrap_and_through_scrubs() {
    let mut rng = StdRng::seed_from_u64(57);
    let config = SimGroup {
        first_epoch: u32::MAX - 5,
        scrub_period: 4,
        slot_values: 4096,
        ..group(2)
    };
    let random = Random::new(&mut rng, 256, 128, Codebook::Mul1, rate(4));
    let linear = random.linear();
    let split = Split::even(256, 2).unwrap();
    let x = [f16::from_f32(0.5); 128];
    let cases: Vec<Case> = (0..16)
        .map(|i| {
            let octets = [300, 3, 40, 111][i % 4];
            let dtypes = dtype_pairs().nth(i % 9).unwrap();
            let mut case = Case::random(&mut rng, 2, octets, dtypes);
            (case.form, case.epilogue) = (FORMS[i / 2 % 2], EPILOGUES[i % 2]);
            case
        })
        .collect();
    let layer_outputs = std::sync::Mutex::new(Vec::new());
    on_ranks(&config, |rank, mut sim| {
        let layer = SimLinear::new(&linear.rows(split.range(rank)).unwrap());
        for (i, case) in cases.iter().enumerate() {
            case.check(&mut sim, rank, &format!("call {i}"));
            let y = row_parallel_call(&mut sim, Arithmetic::Fastest, &layer, &x, (1, 128));
            layer_outputs.lock().unwrap().push(y);
        }
        assert_eq!(sim.control(Channel::Group).1, 0);
    });
    let outputs = layer_outputs.into_inner().unwrap();
    assert!(outputs[0].iter().all(|y| y.is_finite()));
    assert!(outputs.iter().all(|y| *y == outputs[0]), "ranks and calls");
}

#[test]
fn a_peer_that_never_calls_is_named_and_outputs_stay_untouched() {
    let mut rng = StdRng::seed_from_u64(58);
    for form in FORMS {
        let config = SimGroup {
            timeout: Duration::from_millis(200),
            ..group(2)
        };
        let mut case = Case::random(&mut rng, 2, 300, (DType::F16, DType::F32));
        case.form = form;
        let mut ranks = config.build();
        let (got, _) = case.run(&mut ranks[0], 0);
        assert_eq!(
            ranks[0].report(),
            (1, 1, 1, 0),
            "timed out, peer 1, epoch 1"
        );
        assert!(got.iter().all(|y| y.is_nan()), "{form:?}");
        // A launch that waited again would take as long as this.
        let long = Duration::from_secs(600);
        ranks[0].set_timeout(long);
        let begun = Instant::now();
        let (got, _) = case.run(&mut ranks[0], 0);
        assert!(begun.elapsed() < long);
        assert!(got.iter().all(|y| y.is_nan()));
    }
}

#[test]
fn a_peer_that_is_calls_ahead_is_named_with_its_epoch() {
    let mut rng = StdRng::seed_from_u64(59);
    for form in FORMS {
        let mut case = Case::random(&mut rng, 2, 40, (DType::F16, DType::F16));
        case.form = form;
        let mut ranks = group(2).build();
        ranks[1].skip(Channel::Group, 2);
        let reports = std::sync::Mutex::new([(0, 0, 0, 0); 2]);
        on_each(ranks, |rank, mut sim| {
            case.run(&mut sim, rank);
            reports.lock().unwrap()[rank] = sim.report();
        });
        let reports = reports.into_inner().unwrap();
        let (state, peer, epoch, found) = reports[0];
        assert_eq!((state, peer, epoch), (2, 1, 1), "ahead, peer 1: {form:?}");
        assert_eq!(found >> 16, 3, "{form:?}");
    }
}
