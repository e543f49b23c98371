//! Memory that a layer writes, and what it does there.

use super::RmsNorm;
use crate::format::DType;
use crate::{Error, Result};
use half::{bf16, f16};

/// What happens to a finished value y (after the sum over ranks, the output transform and the bias).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Epilogue {
    /// `out = round(y)`.
    Store,
    /// `out = round(y + out)`, the sum taken in f32: the residual add, in place.
    Add,
}

/// Output `[M, N]`, row-major and contiguous, f16, bf16 or f32, with its epilogue.
///
/// For a row-parallel layer N is the whole layer's and every rank's output gets the same bits; for
/// a column-parallel one N is the rank's shard.
#[derive(Debug)]
pub struct Output<'a> {
    pub(crate) data: OutputData<'a>,
    pub(crate) epilogue: Epilogue,
    pub(crate) norm: Option<RmsNorm<'a>>,
    pub(crate) squares: Option<OutputData<'a>>,
}

/// What becomes of the finished values of column-parallel layers.
#[derive(Debug)]
pub(crate) enum Columns<'a, 'b> {
    /// Each layer has an output.
    Each(&'a mut [Output<'b>]),
    /// `silu(first) ⊙ second` goes to the one output of two layers.
    Gated(&'a mut Output<'b>),
}

#[cfg(feature = "cuda")]
impl<'b> Columns<'_, 'b> {
    pub(crate) fn outputs(&self) -> &[Output<'b>] {
        match self {
            Columns::Each(outputs) => outputs,
            Columns::Gated(output) => std::slice::from_ref(output),
        }
    }
}

#[derive(Debug)]
pub(crate) enum OutputData<'a> {
    F16(&'a mut [f16]),
    Bf16(&'a mut [bf16]),
    F32(&'a mut [f32]),
    #[cfg(feature = "cuda")]
    Device(crate::cuda::DeviceOutput<'a>),
}

impl OutputData<'_> {
    pub(crate) fn dtype(&self) -> DType {
        match self {
            OutputData::F16(_) => DType::F16,
            OutputData::Bf16(_) => DType::Bf16,
            OutputData::F32(_) => DType::F32,
            #[cfg(feature = "cuda")]
            OutputData::Device(device) => device.dtype,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            OutputData::F16(out) => out.len(),
            OutputData::Bf16(out) => out.len(),
            OutputData::F32(out) => out.len(),
            #[cfg(feature = "cuda")]
            OutputData::Device(device) => device.len,
        }
    }

    /// Fails for memory that the host cannot write.
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables))]
    pub(crate) fn require_host(&self, argument: &'static str) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            OutputData::Device(_) => Err(super::device_memory(argument)),
            _ => Ok(()),
        }
    }
}

impl<'a> Output<'a> {
    /// Overwrites `out`, a slice of f16, bf16 or f32.
    pub fn store(out: impl Into<Output<'a>>) -> Self {
        let mut output = out.into();
        output.epilogue = Epilogue::Store;
        output
    }

    /// Adds to what `residual` holds, in place.
    pub fn add_to(residual: impl Into<Output<'a>>) -> Self {
        let mut output = residual.into();
        output.epilogue = Epilogue::Add;
        output
    }

    /// Also writes the RMSNorm of the finished rows, the next layer's input, in the same kernel.
    ///
    /// For [`RowParallel::forward`](crate::RowParallel::forward) alone, whose ranks all hold whole rows. A
    /// row must fit a [slot](crate::Group::slot_values); a call of more rows than fit is cut between rows.
    ///
    /// ```
    /// # use half::f16;
    /// # use trellink::{Output, RmsNorm};
    /// # let (mut residual, mut x) = (vec![f16::ONE; 256], vec![f16::ZERO; 256]);
    /// # let weight = vec![f16::ONE; 256];
    /// let norm = RmsNorm::new(&weight[..], 1e-5, &mut x[..]);
    /// let output = Output::add_to(&mut residual[..]).rms_norm(norm);
    /// ```
    #[must_use]
    pub fn rms_norm(mut self, norm: RmsNorm<'a>) -> Self {
        self.norm = Some(norm);
        self
    }

    /// Fails if there is a norm or a part of one, for a call that makes none.
    pub(crate) fn refuse_norm(&self, argument: &'static str) -> Result<()> {
        let found = match (&self.norm, &self.squares) {
            (None, None) => return Ok(()),
            (Some(_), _) => "an output with an RMSNorm",
            (None, Some(_)) => "an output with sums of squares",
        };
        Err(Error::argument(
            argument,
            found,
            "one without; only a row-parallel layer's call has them",
        ))
    }

    /// Fails unless all that a call would write for it, and the weight of its norm, is host memory.
    pub(crate) fn require_host(&self) -> Result<()> {
        self.data.require_host("output")?;
        if let Some(RmsNorm { weight, out, .. }) = &self.norm {
            weight.require_host("weight")?;
            out.require_host("out")?;
        }
        let squares = self.squares.as_ref();
        squares.map_or(Ok(()), |squares| squares.require_host("squares"))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// Length in elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements, as on a rank with an empty column shard.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What happens to the values.
    pub fn epilogue(&self) -> Epilogue {
        self.epilogue
    }
}

/// Overwrites, unless [`Output::add_to`] says otherwise.
impl<'a> From<&'a mut [f16]> for Output<'a> {
    fn from(out: &'a mut [f16]) -> Self {
        Output {
            data: OutputData::F16(out),
            epilogue: Epilogue::Store,
            norm: None,
            squares: None,
        }
    }
}

/// Overwrites, unless [`Output::add_to`] says otherwise.
impl<'a> From<&'a mut [bf16]> for Output<'a> {
    fn from(out: &'a mut [bf16]) -> Self {
        Output {
            data: OutputData::Bf16(out),
            epilogue: Epilogue::Store,
            norm: None,
            squares: None,
        }
    }
}

/// Overwrites, unless [`Output::add_to`] says otherwise.
impl<'a> From<&'a mut [f32]> for Output<'a> {
    fn from(out: &'a mut [f32]) -> Self {
        Output {
            data: OutputData::F32(out),
            epilogue: Epilogue::Store,
            norm: None,
            squares: None,
        }
    }
}
