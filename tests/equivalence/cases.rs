//! The factors of the matrix, and which of their combinations are run.

use super::common::{Extent, Shards};
use super::pairwise;
use trellink::format::DType;
use trellink::Epilogue;

/// Codebooks at their bitrates: the index into `common::formats()`.
pub const FORMATS: usize = 27;

/// Numbers of rows: within one MMA, one more, several passes; ascending, and each a prefix of the
/// rows that the reference is computed for.
pub const ROWS: [usize; 11] = [1, 2, 3, 5, 8, 13, 16, 17, 33, 64, 100];

const WORLDS: usize = 8;
const OUTPUTS: [DType; 3] = DType::ALL;
const EPILOGUES: [Epilogue; 2] = [Epilogue::Store, Epilogue::Add];
const INPUTS: [DType; 2] = [DType::F16, DType::Bf16];

/// Levels of each factor, in the order of `Case::of`.
pub const LEVELS: [usize; 8] = [FORMATS, ROWS.len(), WORLDS, 3, 3, 2, 2, 2];

/// One call, and the layer and group that it needs.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub format: usize,
    pub rows: usize,
    pub world: usize,
    pub shards: Shards,
    pub output: DType,
    pub epilogue: Epilogue,
    pub bias: bool,
    pub input: DType,
}

impl Case {
    fn of(levels: [usize; 8]) -> Self {
        let [format, rows, world, shards, output, epilogue, bias, input] = levels;
        Case {
            format,
            rows: ROWS[rows],
            world: world + 1,
            shards: Shards::ALL[shards],
            output: OUTPUTS[output],
            epilogue: EPILOGUES[epilogue],
            bias: bias == 1,
            input: INPUTS[input],
        }
    }
}

/// The cases of this extent.
pub fn cases(extent: Extent) -> Vec<Case> {
    match extent {
        Extent::Full => full(),
        Extent::Pairwise => {
            let cases = pairwise::cover(&LEVELS);
            cases.into_iter().map(Case::of).collect()
        }
        Extent::Reduced => reduced(),
    }
}

/// The whole product, except that the kind of shards follows from format, world and bias: over all
/// formats every kind occurs with every world.
fn full() -> Vec<Case> {
    let mut cases = Vec::new();
    for format in 0..FORMATS {
        for world in 0..WORLDS {
            for call in 0..ROWS.len() * 3 * 2 * 2 * 2 {
                let (rows, rest) = (call % ROWS.len(), call / ROWS.len());
                let (output, rest) = (rest % 3, rest / 3);
                let (epilogue, bias, input) = (rest % 2, rest / 2 % 2, rest / 4);
                let shards = (format + world + bias) % 3;
                cases.push(Case::of([
                    format, rows, world, shards, output, epilogue, bias, input,
                ]));
            }
        }
    }
    cases
}

/// Each format with few rows and with more, for which there are other kernels, on one to three ranks;
/// dtypes, epilogues, bias and kinds of shards change from case to case.
fn reduced() -> Vec<Case> {
    let few_rows = [0, 4, 2];
    let more_rows = [7, 5, 8];
    let mut cases = Vec::new();
    for format in 0..FORMATS {
        for (more, rows) in [few_rows, more_rows].into_iter().enumerate() {
            let i = 2 * format + more;
            cases.push(Case::of([
                format,
                rows[format % 3],
                (format + more) % 3,
                i / 2 % 3,
                i % 3,
                i / 3 % 2,
                i / 2 % 2,
                i / 4 % 2,
            ]));
        }
    }
    cases
}
