//! Tensors whose element type is known when the program runs.

use super::{Element, Tensor};
use crate::ranks::Lane;
use anyhow::Result;
use half::{bf16, f16};
use trellink::format::DType;
use trellink::{Epilogue, Input, Output};

/// Numbers of a dtype, as the f32 that each of them is.
#[derive(Clone, PartialEq, Debug)]
pub struct Numbers {
    /// What they can be stored as without a loss.
    pub dtype: DType,
    /// The numbers.
    pub values: Vec<f32>,
}

impl Numbers {
    /// The numbers of `dtype` nearest to these.
    pub fn round(dtype: DType, values: impl IntoIterator<Item = f32>) -> Self {
        let values = values.into_iter().map(|value| round(dtype, value));
        Numbers {
            dtype,
            values: values.collect(),
        }
    }

    /// What no call leaves behind.
    pub fn poison(dtype: DType, len: usize) -> Self {
        Numbers {
            dtype,
            values: vec![f32::NAN; len],
        }
    }

    /// Their bits, which tell zeros of different signs apart.
    pub fn bits(&self) -> impl Iterator<Item = u32> + '_ {
        self.values.iter().map(|value| value.to_bits())
    }

    fn of<T: Element>(dtype: DType, values: Vec<T>) -> Self {
        let values = values.into_iter().map(T::widen);
        Numbers {
            dtype,
            values: values.collect(),
        }
    }

    fn elements<T: Element>(&self) -> Vec<T> {
        self.values.iter().map(|&value| T::round(value)).collect()
    }
}

/// The number of `dtype` nearest to `value`.
pub fn round(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::Bf16 => bf16::from_f32(value).to_f32(),
        DType::F32 => value,
    }
}

/// A tensor of any element type.
pub enum AnyTensor {
    /// f16
    F16(Tensor<f16>),
    /// bf16
    Bf16(Tensor<bf16>),
    /// f32
    F32(Tensor<f32>),
}

/// The same for each element type.
macro_rules! each {
    ($tensor:expr, $inner:ident => $body:expr) => {
        match $tensor {
            AnyTensor::F16($inner) => $body,
            AnyTensor::Bf16($inner) => $body,
            AnyTensor::F32($inner) => $body,
        }
    };
}

impl AnyTensor {
    /// A copy of `numbers` on the lane's device.
    pub fn new(lane: &Lane, numbers: &Numbers) -> Result<Self> {
        Ok(match numbers.dtype {
            DType::F16 => AnyTensor::F16(Tensor::new(lane, numbers.elements())?),
            DType::Bf16 => AnyTensor::Bf16(Tensor::new(lane, numbers.elements())?),
            DType::F32 => AnyTensor::F32(Tensor::new(lane, numbers.elements())?),
        })
    }

    /// Replaces the elements by as many others, at the same address.
    pub fn write(&mut self, lane: &Lane, numbers: &Numbers) -> Result<()> {
        each!(self, tensor => tensor.write(lane, numbers.elements()))
    }

    /// The elements, once everything that was enqueued on the lane is done.
    pub fn numbers(&self, lane: &Lane) -> Result<Numbers> {
        let dtype = self.dtype();
        each!(self, tensor => Ok(Numbers::of(dtype, tensor.values(lane)?)))
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            AnyTensor::F16(_) => DType::F16,
            AnyTensor::Bf16(_) => DType::Bf16,
            AnyTensor::F32(_) => DType::F32,
        }
    }

    /// As the input of a call on `lane`.
    pub fn input<'a>(&'a self, lane: &'a Lane) -> Input<'a> {
        each!(self, tensor => tensor.input(lane))
    }

    /// As an output of a call on `lane`.
    pub fn output<'a>(&'a mut self, lane: &'a Lane, epilogue: Epilogue) -> Output<'a> {
        each!(self, tensor => tensor.output(lane, epilogue))
    }
}
