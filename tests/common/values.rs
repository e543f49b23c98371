//! Numbers of a dtype that is known at run time.

use half::{bf16, f16};
use std::ops::Range;
use trellink::format::DType;

/// Elements of one dtype, in host memory.
#[derive(Clone, Debug)]
pub enum Values {
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    F32(Vec<f32>),
}

/// Evaluates an expression with `$v` bound to the vector, whichever it is.
macro_rules! each {
    ($values:expr, $v:ident => $result:expr) => {
        match $values {
            Values::F16($v) => $result,
            Values::Bf16($v) => $result,
            Values::F32($v) => $result,
        }
    };
}

impl Values {
    /// These numbers, rounded to `dtype`.
    pub fn of(dtype: DType, numbers: impl IntoIterator<Item = f32>) -> Self {
        let numbers = numbers.into_iter();
        match dtype {
            DType::F16 => Values::F16(numbers.map(f16::from_f32).collect()),
            DType::Bf16 => Values::Bf16(numbers.map(bf16::from_f32).collect()),
            DType::F32 => Values::F32(numbers.collect()),
        }
    }

    /// What outputs hold before a call that stores: an element that it leaves out shows.
    pub fn poison(dtype: DType, len: usize) -> Self {
        Values::of(dtype, std::iter::repeat_n(f32::NAN, len))
    }

    pub fn dtype(&self) -> DType {
        match self {
            Values::F16(_) => DType::F16,
            Values::Bf16(_) => DType::Bf16,
            Values::F32(_) => DType::F32,
        }
    }

    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// The numbers, exactly.
    pub fn to_f64(&self) -> Vec<f64> {
        each!(self, v => v.iter().map(|&x| f64::from(x)).collect())
    }

    /// The bits of every element.
    pub fn bits(&self) -> Vec<u32> {
        match self {
            Values::F16(v) => v.iter().map(|x| u32::from(x.to_bits())).collect(),
            Values::Bf16(v) => v.iter().map(|x| u32::from(x.to_bits())).collect(),
            Values::F32(v) => v.iter().map(|x| x.to_bits()).collect(),
        }
    }

    /// Some of the elements.
    pub fn slice(&self, range: Range<usize>) -> Values {
        match self {
            Values::F16(v) => Values::F16(v[range].to_vec()),
            Values::Bf16(v) => Values::Bf16(v[range].to_vec()),
            Values::F32(v) => Values::F32(v[range].to_vec()),
        }
    }

    /// Channels `range` of every row of `columns`.
    pub fn columns(&self, columns: usize, range: Range<usize>) -> Values {
        fn cut<T: Copy>(v: &[T], columns: usize, range: Range<usize>) -> Vec<T> {
            let rows = v.chunks_exact(columns);
            rows.flat_map(|row| &row[range.clone()]).copied().collect()
        }
        match self {
            Values::F16(v) => Values::F16(cut(v, columns, range)),
            Values::Bf16(v) => Values::Bf16(cut(v, columns, range)),
            Values::F32(v) => Values::F32(cut(v, columns, range)),
        }
    }

    /// Panics with the first element that differs, unless both hold the same bits.
    #[track_caller]
    pub fn assert_same_bits(&self, other: &Values, what: impl std::fmt::Display) {
        assert_eq!(self.dtype(), other.dtype(), "{what}: dtypes");
        assert_eq!(self.len(), other.len(), "{what}: lengths");
        let (a, b) = (self.bits(), other.bits());
        let Some(first) = (0..a.len()).find(|&i| a[i] != b[i]) else {
            return;
        };
        let count = a.iter().zip(&b).filter(|(a, b)| a != b).count();
        panic!(
            "{what}: {count} of {} {} values differ, first at {first}: {:#x} and {:#x}",
            a.len(),
            self.dtype(),
            a[first],
            b[first],
        );
    }
}
