//! What ranks compute in these tests, be they threads or processes.

use crate::common::*;
use trellink::format::{Codebook, DType};
use trellink::{ColumnParallel, Epilogue, Rank, RowParallel, Split};

const K: usize = 640;
const N: usize = 384;
const ROWS: usize = 5;

/// Layers, inputs and outputs of one rank, the same numbers in every process.
pub struct Job {
    row: RowParallel,
    column: ColumnParallel,
    shard: Box<dyn Buffer>,
    whole: Box<dyn Buffer>,
    y: Box<dyn Buffer>,
    column_y: Box<dyn Buffer>,
}

impl Job {
    pub fn new(rank: &Rank, memory: &dyn Memory) -> Self {
        let mut rng = Seed::new(0x9a7c).rng(0);
        let format = (Codebook::Mcg, "3".parse().unwrap());
        let linear = RandomLinear::new(&mut rng, format, K, N).with_bias(&mut rng, DType::F32);
        let x = activations(&mut rng, DType::F16, ROWS * K, 1.0);
        let split = Split::even(K, rank.world()).unwrap();
        let columns = Split::even(N, rank.world()).unwrap();
        let own_columns = columns.range(rank.rank()).len();
        Job {
            row: RowParallel::load(rank, &linear.linear(), &split).unwrap(),
            column: ColumnParallel::load(rank, &[(&linear.linear(), &columns)]).unwrap(),
            shard: memory.buffer(&shard_columns(&x, &split, rank.rank())),
            whole: memory.buffer(&x),
            y: memory.buffer(&Values::poison(DType::F32, ROWS * N)),
            column_y: memory.buffer(&Values::poison(DType::F32, ROWS * own_columns)),
        }
    }

    /// One row-parallel call.
    pub fn call(&mut self, rank: &mut Rank, memory: &dyn Memory) -> trellink::Result<()> {
        let input = self.shard.input(0..ROWS * self.row.k());
        let output = self.y.output(Epilogue::Store);
        self.row.forward(rank, memory.stream(), input, output)
    }

    /// Both kinds of calls, the row-parallel one several times on its own output.
    pub fn run(&mut self, rank: &mut Rank, memory: &dyn Memory) -> trellink::Result<()> {
        self.call(rank, memory)?;
        for _ in 0..9 {
            let input = self.shard.input(0..ROWS * self.row.k());
            let output = self.y.output(Epilogue::Add);
            self.row.forward(rank, memory.stream(), input, output)?;
        }
        let input = self.whole.input(0..ROWS * K);
        let outputs = &mut [self.column_y.output(Epilogue::Store)];
        self.column.forward(rank, memory.stream(), input, outputs)
    }

    /// The bits of what is the same on all ranks.
    pub fn sums(&self) -> Vec<u32> {
        self.y.read().bits()
    }

    /// The bits of all outputs.
    pub fn bits(&self) -> Vec<u32> {
        let mut bits = self.y.read().bits();
        bits.extend(self.column_y.read().bits());
        bits
    }
}
