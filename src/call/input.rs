//! Activations that a layer reads.

use super::InputNorm;
use crate::format::DType;
use crate::Result;
use half::{bf16, f16};

/// Activations `[M, K]`, row-major and contiguous, f16 or bf16; for an
/// [`AllReduce`](crate::AllReduce) any tensor, f32 too.
///
/// K is what the rank holds: the shard's input channels for a row-parallel layer, all of them for
/// a column-parallel one. M follows from the length.
#[derive(Debug)]
pub struct Input<'a> {
    pub(crate) data: InputData<'a>,
    pub(crate) norm: Option<InputNorm<'a>>,
}

#[derive(Debug)]
pub(crate) enum InputData<'a> {
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    F32(&'a [f32]),
    #[cfg(feature = "cuda")]
    Device(crate::cuda::DeviceInput<'a>),
}

impl InputData<'_> {
    pub(crate) fn dtype(&self) -> DType {
        match self {
            InputData::F16(_) => DType::F16,
            InputData::Bf16(_) => DType::Bf16,
            InputData::F32(_) => DType::F32,
            #[cfg(feature = "cuda")]
            InputData::Device(device) => device.dtype,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            InputData::F16(x) => x.len(),
            InputData::Bf16(x) => x.len(),
            InputData::F32(x) => x.len(),
            #[cfg(feature = "cuda")]
            InputData::Device(device) => device.len,
        }
    }

    /// Fails for memory that the host cannot read.
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables))]
    pub(crate) fn require_host(&self, argument: &'static str) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            InputData::Device(_) => Err(super::device_memory(argument)),
            _ => Ok(()),
        }
    }
}

impl Input<'_> {
    /// Element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// Length in elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements, as on a rank with an empty shard.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fails unless all that a call would read of it is host memory.
    pub(crate) fn require_host(&self) -> Result<()> {
        self.data.require_host("input")?;
        let norm = self.norm.as_ref();
        norm.map_or(Ok(()), |norm| norm.squares.require_host("squares"))
    }
}

impl<'a> From<&'a [f16]> for Input<'a> {
    fn from(x: &'a [f16]) -> Self {
        Input {
            data: InputData::F16(x),
            norm: None,
        }
    }
}

impl<'a> From<&'a [bf16]> for Input<'a> {
    fn from(x: &'a [bf16]) -> Self {
        Input {
            data: InputData::Bf16(x),
            norm: None,
        }
    }
}

/// For an [`AllReduce`](crate::AllReduce), or the weight of an [`RmsNorm`](crate::RmsNorm); layers refuse it.
impl<'a> From<&'a [f32]> for Input<'a> {
    fn from(x: &'a [f32]) -> Self {
        Input {
            data: InputData::F32(x),
            norm: None,
        }
    }
}
