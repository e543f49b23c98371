//! What ranks compute in these tests, be they threads or processes.

use crate::common::*;
use trellink::format::{Codebook, DType};
use trellink::{ColumnParallel, Epilogue, Rank, RowParallel, Split};

#[cfg(feature = "cuda")]
use cudarc::driver::{
    sys::{CUgraphInstantiate_flags, CUstreamCaptureMode},
    CudaGraph,
};

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

/// A job that is made again and again: on CUDA the replays of a graph, on the host the calls themselves.
pub struct Replays {
    /// Before the job, whose memory it names.
    #[cfg(feature = "cuda")]
    graph: Option<CudaGraph>,
    job: Job,
}

impl Replays {
    /// On CUDA the job is captured here and does not run.
    pub fn new(rank: &mut Rank, memory: &dyn Memory) -> Self {
        #[cfg_attr(not(feature = "cuda"), expect(unused_mut))]
        let mut job = Job::new(rank, memory);
        Replays {
            #[cfg(feature = "cuda")]
            graph: capture(&mut job, rank, memory),
            job,
        }
    }

    /// Several replays in a row, waited for; the group's failure if one of them failed.
    pub fn replay(&mut self, rank: &mut Rank, memory: &dyn Memory) -> trellink::Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(graph) = &self.graph {
            (0..8).for_each(|_| graph.launch().unwrap());
            memory.synchronize();
            return rank.check();
        }
        self.job.run(rank, memory)
    }
}

#[cfg(feature = "cuda")]
fn capture(job: &mut Job, rank: &mut Rank, memory: &dyn Memory) -> Option<CudaGraph> {
    if rank.device() == trellink::Device::Host {
        return None;
    }
    let stream = memory.cuda_stream();
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    stream.begin_capture(mode).unwrap();
    job.run(rank, memory).unwrap();
    let graph = stream.end_capture(CUgraphInstantiate_flags(0)).unwrap();
    let graph = graph.expect("a stream that was captured has a graph");
    graph.upload().unwrap();
    memory.synchronize();
    Some(graph)
}
