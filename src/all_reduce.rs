//! The sum of a tensor over all ranks, for what no layer of this crate sums.

use crate::call::{Epilogue, Input, Output, Stream};
use crate::linear::traced;
use crate::plan::reduce::{ReducePlan, OCTET};
use crate::protocol::{Operation, OperationKind};
use crate::rank::Backend;
use crate::{Error, Rank, Result};

/// How an [`AllReduce`] moves its values. No bit of the result depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ReduceForm {
    /// One shot for short tensors, two for long ones; the border depends on the world.
    #[default]
    Automatic,
    /// Every rank sends everything to every other: the least latency.
    OneShot,
    /// Every rank adds up a part and sends that to all: the fewest bytes. One shot all the same where
    /// the [slots](crate::Group::slot_values) are too small.
    TwoShot,
}

/// The sum of a tensor over all ranks: `out = epilogue(Σ_r x_r)`.
///
/// The ranks' elements are added in f32, rank 0 first, then the output's epilogue is applied and the
/// result rounded once. All ranks get the same bits, in every run. For tensors that no
/// [`RowParallel`](crate::RowParallel) produces: those layers have their sum in their own kernel.
///
/// ```
/// use half::f16;
/// use trellink::{AllReduce, Group, Input, Output, Rank, Result, Stream};
///
/// # fn main() -> Result<()> {
/// // On the host calls wait for the other ranks, so each has a thread.
/// let sum = |mut rank: Rank| -> Result<Vec<f16>> {
///     let x = vec![f16::from_f32(rank.rank() as f32 + 1.0); 16];
///     let mut y = vec![f16::ZERO; 16];
///     let (input, output) = (Input::from(&x[..]), Output::store(&mut y[..]));
///     AllReduce::new().run(&mut rank, Stream::host(), input, output)?;
///     Ok(y)
/// };
/// let ranks = Group::on_host(2).build()?;
/// let sums = std::thread::scope(|scope| {
///     let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(|| sum(rank))).collect();
///     let joined = threads.into_iter().map(|thread| thread.join().expect("no panic"));
///     joined.collect::<Result<Vec<_>>>()
/// })?;
/// assert!(sums.iter().flatten().all(|y| y.to_f32() == 3.0)); // 1 + 2, on both
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AllReduce {
    form: ReduceForm,
}

impl AllReduce {
    /// An all-reduce that chooses its form by the length.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same in a given form, on a GPU. All ranks choose alike.
    #[must_use]
    pub fn form(mut self, form: ReduceForm) -> Self {
        self.form = form;
        self
    }

    /// Adds up `input`, f16, bf16 or f32, into `output`, of as many elements and any dtype.
    ///
    /// The number of elements is a multiple of 8; none is a no-op, and must be one on all ranks. On a
    /// GPU both tensors begin at a multiple of 16 bytes.
    ///
    /// Collective: all ranks call it with the same length, dtypes, epilogue and form, in the same order
    /// relative to other collective calls. On a GPU it is enqueued on `stream` and returns at once; it
    /// neither allocates nor synchronises and may be captured in a CUDA graph, as
    /// [`RowParallel::forward`](crate::RowParallel::forward) may. A tensor that does not fit the
    /// [slots](crate::Group::slot_values) takes several launches.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::Error::InvalidArgument) for wrong lengths, devices or alignment:
    /// nothing was launched and the group still works if the other ranks get the same error.
    /// [`PeerTimeout`](crate::Error::PeerTimeout), [`Mismatch`](crate::Error::Mismatch),
    /// [`PeerAhead`](crate::Error::PeerAhead), [`PeerLost`](crate::Error::PeerLost),
    /// [`GroupFailed`](crate::Error::GroupFailed): the group has failed, now or earlier, until
    /// [`Rank::reset`]; on a GPU failures of this call show in a later call or in [`Rank::check`].
    pub fn run(
        &self,
        rank: &mut Rank,
        stream: Stream<'_>,
        input: Input<'_>,
        mut output: Output<'_>,
    ) -> Result<()> {
        check_len(output.len())?;
        if input.len() != output.len() {
            return Err(Error::argument(
                "input",
                format!("{} elements", input.len()),
                format!("{}, as many as the output has", output.len()),
            ));
        }
        self.dispatch(rank, &stream, Some(&input), &mut output)
    }

    /// Replaces the elements of `buffer`, an output that stores, by their sums.
    ///
    /// Otherwise as [`run`](Self::run).
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`InvalidArgument`](crate::Error::InvalidArgument) for an output that
    /// adds: what it holds would count twice.
    pub fn run_in_place(
        &self,
        rank: &mut Rank,
        stream: Stream<'_>,
        mut buffer: Output<'_>,
    ) -> Result<()> {
        check_len(buffer.len())?;
        if buffer.epilogue() == Epilogue::Add {
            return Err(Error::argument(
                "buffer",
                "an output that adds to what it holds",
                "one that stores, since what it holds is the input",
            ));
        }
        self.dispatch(rank, &stream, None, &mut buffer)
    }

    /// Without an input the output is the input as well.
    fn dispatch(
        &self,
        rank: &mut Rank,
        stream: &Stream<'_>,
        input: Option<&Input<'_>>,
        output: &mut Output<'_>,
    ) -> Result<()> {
        output.refuse_norm(if input.is_some() { "output" } else { "buffer" })?;
        input.map_or(Ok(()), Input::refuse_norm)?;
        let (len, epilogue) = (output.len(), output.epilogue());
        let dtypes = (input.map_or(output.dtype(), Input::dtype), output.dtype());
        let slot = match &rank.backend {
            Backend::Host(host) => host.slot_values(),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.slot_values(),
        };
        let plan = ReducePlan::new(self.form, rank.world, slot, len, dtypes, epilogue);
        let operation = Operation {
            kind: match plan.two_shot {
                false => OperationKind::OneShot,
                true => OperationKind::TwoShot,
            },
            rows: 1,
            columns: len as u64,
            input: dtypes.0,
            output: dtypes.1,
            epilogue,
            layer: 0,
        };
        let result = match &mut rank.backend {
            Backend::Host(host) => {
                stream.require_host()?;
                host.all_reduce(operation, input, output)
            }
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.all_reduce(&plan, operation, stream, input, output),
        };
        traced(rank.rank, result)
    }
}

fn check_len(elements: usize) -> Result<()> {
    if elements.is_multiple_of(OCTET) {
        return Ok(());
    }
    Err(Error::argument(
        "output",
        format!("{elements} elements"),
        format!("a multiple of {OCTET}"),
    ))
}
