//! EXL3 linear layers for tensor parallelism: decode, GEMM, all-reduce and epilogue in one kernel.
//!
//! An inference engine that splits a model over the GPUs of one machine calls this crate once for
//! each row-parallel projection (attention output, MLP down). One kernel decodes the
//! trellis-quantised weights, multiplies, pushes the partial sums into the other GPUs' memory, waits
//! for theirs, adds in rank order and applies the epilogue. There is no separate all-reduce, no host
//! in the loop and no intermediate tensor. Column-parallel layers (q, k and v; gate and up) run in
//! one launch with the same kernel, without the exchange between GPUs.
//!
//! Without the `cuda` feature the same API runs on the CPU, several ranks included, so that a program
//! can be written and tested on a machine without a GPU. The ranks of a group are threads of one
//! process or, on Linux, processes of one machine.
//!
//! # A layer on two ranks
//!
//! ```
//! use half::f16;
//! use trellink::{Checkpoint, Group, Input, Output, Rank, Result, RowParallel, Split, Stream};
//!
//! // What every rank runs, on a thread of its own.
//! fn down_proj(mut rank: Rank, checkpoint: &Checkpoint) -> Result<Vec<f16>> {
//!     let linear = checkpoint.linear("model.layers.0.mlp.down_proj")?;
//!     // K over the ranks; each loads its own part of the file and nothing else.
//!     let split = Split::even(linear.k(), rank.world())?;
//!     let layer = RowParallel::load(&rank, &linear, &split)?;
//!
//!     let rows = 3;
//!     let x = vec![f16::from_f32(0.5); rows * layer.k()]; // [rows, this rank's part of K]
//!     let mut residual = vec![f16::ONE; rows * layer.n()]; // [rows, N], a copy on every rank
//!     layer.forward(
//!         &mut rank,
//!         Stream::host(),
//!         Input::from(&x[..]),
//!         Output::add_to(&mut residual[..]), // residual += y, rounded once
//!     )?;
//!     Ok(residual)
//! }
//!
//! # fn main() -> Result<()> {
//! let checkpoint = Checkpoint::open("tests/data/models/austen-3bpw-mcg")?;
//! let ranks = Group::on_host(2).build()?;
//! let outputs = std::thread::scope(|scope| {
//!     let spawn = |rank| scope.spawn(|| down_proj(rank, &checkpoint));
//!     let threads: Vec<_> = ranks.into_iter().map(spawn).collect();
//!     let joined = threads.into_iter().map(|thread| thread.join().expect("no panic"));
//!     joined.collect::<Result<Vec<_>>>()
//! })?;
//! assert_eq!(outputs[0], outputs[1]); // the same bits on every rank
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! | for | look at |
//! |---|---|
//! | opening a model | [`Checkpoint`], [`weights`] for weights from elsewhere |
//! | dividing it | [`Split`] |
//! | the ranks | [`Group`], [`Device`], [`Rank`] |
//! | ranks in several processes | [`Group::join`], [`Rendezvous`] |
//! | the layers | [`RowParallel`], [`ColumnParallel`], [`LoadOptions`] |
//! | the sum of any other tensor over the ranks | [`AllReduce`] |
//! | launches shaped by measurement | [`Tuning`], which `trellink tune` writes |
//! | which way packets take between GPUs | [`ExchangePath`] |
//! | a call | [`Input`], [`Output`] with its [`Epilogue`], [`Stream`] |
//! | RMSNorm between layers | [`Output::rms_norm`]; or, cheaper, [`Output::sums_of_squares`] and [`Input::rms_norm`] |
//! | SwiGLU | [`ColumnParallel::forward_swiglu`] |
//! | what can go wrong | [`Error`], with the [`Operation`] concerned |
//! | the format's facts and the order of weights in memory | [`mod@format`] |
//! | the exchange and the argument for it | [`protocol`] |
//! | what results are judged by | [`mod@reference`] |
//! | decoding alone, to check a device against the reference | [`host`], and `cuda` with its feature |
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `cuda` | ranks on CUDA devices: builds the kernels with nvcc and embeds them |
//! | `cust` | `cuda`, and conversions from cust's streams and buffers |
//! | `tracing` | spans around opening, loading and building a group, an event when a group fails |
//! | `bindgen` | for work on the crate: regenerates the bindings of `csrc/params.h` |
//!
//! None is on by default. A C++17 compiler is always needed, for the host kernels.
//!
//! # What is collective
//!
//! | call | |
//! |---|---|
//! | [`Group::build`] | once, on one thread, for all ranks |
//! | [`Group::join`] | **collective**: instead of it, each process for its rank |
//! | `load` | each rank for itself, at any time, on all ranks at once if you like; not while the thread captures a graph |
//! | [`RowParallel::forward`] | **collective**: all ranks, with the same M and dtypes, in the same order |
//! | [`Rank::reset`] | **collective**: all ranks, after a failure, with none of their calls in flight |
//! | [`AllReduce::run`], [`AllReduce::run_in_place`] | **collective**: all ranks, with the same length, dtypes and epilogue |
//! | [`ColumnParallel::forward`], [`Rank::check`], [`Rank::synchronize`] | each rank for itself |
//! | [`Rank::set_timeout`] | any rank, for all |
//! | dropping a [`Rank`] | each for itself, but calls of the others then time out |
//! | dropping a layer | each rank for itself |
//!
//! A group has at most [`MAX_WORLD`] ranks, all on one machine. A rank with an empty
//! shard takes part in collective calls with an empty input. A call with M = 0 exchanges nothing.
//!
//! # Threads, streams and graphs
//!
//! - A [`Rank`] is `Send`; calls take it by `&mut`, so that it has one order of calls. On the host a
//!   collective call blocks until the others have made it, so each rank needs a thread of its own.
//!   On CUDA `forward` only enqueues, and one thread may serve all ranks in turn.
//! - On CUDA a call runs on the stream that it is given, any stream of the device's primary context:
//!   cudarc's, candle's, the per-thread default stream. It allocates nothing and never synchronises. Slices of
//!   cudarc are for the stream of the call: give both the same.
//! - What touches a GPU, calls and drops too, makes the primary context of the rank's device current on the
//!   calling thread and leaves it so, as cudarc does. Code that relies on the current context, cust's for
//!   example, sets it again.
//! - **The calls of one rank, and replays of graphs that hold them, must not overlap on the
//!   device.** Use one stream per rank, or order your streams with events: a rank's epoch and its
//!   place in the exchange are words in device memory, and two kernels of one rank at a time would
//!   share them. Nothing checks this.
//! - A call may be captured in a CUDA graph and replayed for ever. All ranks replay the same calls in
//!   the same order; between replays they may make calls that are not captured. Layer, rank, input
//!   and outputs must outlive the graph, at the addresses they were captured with.
//! - Only calls may be captured. While a thread captures, unless in relaxed mode, it neither loads nor drops a
//!   layer or a rank, nor builds a group: CUDA refuses to allocate and to free there, which ends the capture, and
//!   what is dropped then stays allocated. In global mode that holds for all threads. Waiting for a whole device
//!   ends the captures of all threads on it, in any mode; dropping a rank and [`Rank::reset`] do that.
//! - While ranks wait for one another their kernels occupy SMs. A group uses at most as many CTAs as
//!   the device has SMs (shared evenly by ranks on the same device); another kernel that holds all
//!   SMs and waits for one of these calls would be a deadlock, ended by the timeout.
//!
//! # Failures
//!
//! A wait ends by the group's [timeout](Group::timeout) at the latest, which
//! [may be changed](Rank::set_timeout) at run time. Ranks that call different things, or in another order,
//! find out at the first packet ([`Error::Mismatch`]). Either way the group *has failed*, on all ranks:
//! kernels in flight return, later calls give the failure as an [`Error`] and enqueue nothing, replays
//! return without touching their outputs. Contexts and devices stay usable: all ranks
//! [reset](Rank::reset) the group and go on, or drop it and build a new one. On the host the failing call
//! itself returns the error. On CUDA a call returns before it has run, so its failure shows in a later call,
//! in [`Rank::check`] or in [`Rank::synchronize`]: **call the latter, or synchronise the stream and call the
//! former, before you use a result whose correctness matters to you**; outputs since the last successful
//! check are not valid.
//!
//! Between processes a group also fails when one of them ends without dropping its rank: the others
//! notice at once, their waits end, kernels in flight included, and their calls give
//! [`Error::PeerLost`].
//!
//! A call that gives [`Error::InvalidArgument`] has enqueued nothing; the group goes on if all ranks
//! got the same error.
//!
//! # Safety
//!
//! Calls on slices, on the host or of cudarc, are safe, with two things left to the caller, because nothing
//! can see them:
//!
//! - the order of a rank's calls on the device, above;
//! - the life of graphs. A captured graph names the memory of its rank, layers, inputs and outputs (and of a
//!   `WeightReader`) and the kernels that were loaded for the rank. Launching it is safe code in cudarc; but once
//!   one of these has been dropped, it runs code and reads and writes memory that belong to others. **Drop a
//!   graph, or do not launch it any more, before you drop what its calls were made with.**
//!
//! Raw pointers ([`mod@format`] says their element types), raw streams
//! and cust's types come in by `unsafe` functions, whose contracts concern what the types cannot
//! show: the device, the context, and the time until the stream has run the call. The files of a
//! [`Checkpoint`] are mapped and must not change while it lives.

mod all_reduce;
mod board;
mod call;
pub mod checkpoint;
#[cfg(any(test, feature = "cuda"))]
mod code;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "cust")]
pub mod cust;
mod error;
#[cfg(feature = "cuda")]
mod ffi;
pub mod format;
mod group;
pub mod host;
mod linear;
mod path;
#[doc(hidden)]
pub mod plan;
pub mod protocol;
mod rank;
pub mod reference;
#[doc(hidden)]
pub mod rendezvous;
mod split;
mod trace;
pub mod weights;

pub use all_reduce::{AllReduce, ReduceForm};
pub use call::{Epilogue, Input, Output, RmsNorm, Stream};
pub use checkpoint::Checkpoint;
pub use error::{Error, Result};
pub use group::{Device, Group};
pub use linear::{Arithmetic, ColumnParallel, LoadOptions, RowParallel};
pub use path::ExchangePath;
pub use plan::{Choices, Tuning, TuningEntry};
pub use protocol::{Operation, OperationKind};
pub use rank::Rank;
#[cfg(target_os = "linux")]
pub use rendezvous::Rendezvous;
pub use split::{Split, MAX_WORLD};

/// The examples of README.md, compiled and, where they need no GPU, run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
