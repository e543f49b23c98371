//! What a call is, as far as all ranks must agree on it.
//!
//! What must stay true: two ranks that make the same call describe it alike, whatever their shards,
//! devices, arithmetic and, in a layer, epilogue are. The digest goes with every packet, so ranks that
//! make different calls find out at the first one; the description is only read when they have.

use crate::format::DType;
use crate::Epilogue;

/// The kinds of calls.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum OperationKind {
    /// [`RowParallel::forward`](crate::RowParallel::forward).
    RowParallel,
    /// [`ColumnParallel::forward`](crate::ColumnParallel::forward), which no other rank takes part in.
    ColumnParallel,
    /// An [`AllReduce`](crate::AllReduce) in one shot.
    OneShot,
    /// An [`AllReduce`](crate::AllReduce) in two shots.
    TwoShot,
}

/// A call of one rank.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Operation {
    /// What was called.
    pub kind: OperationKind,
    /// Rows of the call, M; 1 for an all-reduce.
    pub rows: u32,
    /// Columns of the output, of the whole layer; elements of an all-reduce.
    pub columns: u64,
    /// The dtype of the input.
    pub input: DType,
    /// The dtype of the output.
    pub output: DType,
    /// The epilogue of an all-reduce. Those of a layer's ranks may differ; then it is `Store`.
    pub epilogue: Epilogue,
    /// A digest of the layer's output scales, which all ranks hold: tells layers of one shape apart. 0 for
    /// an all-reduce.
    pub layer: u32,
}

/// An operation as a kernel gets it and a board holds it; `TrellinkOperation` of `csrc/params.h`.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OperationWords {
    pub tag: u32,
    pub form: u32,
    pub rows: u32,
    pub layer: u32,
    pub columns: u64,
}

impl Operation {
    /// The digest that packets carry.
    ///
    /// Two calls that differ in one property have different digests, unless that is the layer, or a
    /// number by a multiple of 2^16; all others agree by accident once in 2^16.
    pub fn digest(&self) -> u16 {
        let fold = |number: u64| (number ^ number >> 16 ^ number >> 32 ^ number >> 48) as u16;
        // Odd factors are invertible modulo 2^16, so none of the terms loses a difference.
        let terms = [
            fold(self.layer.into()),
            fold(self.rows.into()).wrapping_mul(0x9e37),
            fold(self.columns).wrapping_mul(0x6a09),
            fold(self.form().into()).wrapping_mul(0xb505),
        ];
        terms.into_iter().fold(0, u16::wrapping_add)
    }

    /// The words that stand for it.
    #[doc(hidden)]
    pub fn to_words(self) -> OperationWords {
        OperationWords {
            tag: self.digest().into(),
            form: self.form(),
            rows: self.rows,
            layer: self.layer,
            columns: self.columns,
        }
    }

    /// What words stand for; nothing if no rank writes such.
    pub(crate) fn from_words(words: OperationWords) -> Option<Self> {
        let [kind, dtypes, epilogue, 0] = words.form.to_le_bytes() else {
            return None;
        };
        let find = |code: u8| {
            DType::ALL
                .into_iter()
                .find(|dtype| dtype_code(*dtype) == code)
        };
        let operation = Operation {
            kind: KINDS.into_iter().find(|known| *known as u8 == kind)?,
            rows: words.rows,
            columns: words.columns,
            input: find(dtypes & 0xf)?,
            output: find(dtypes >> 4)?,
            epilogue: match epilogue {
                0 => Epilogue::Store,
                1 => Epilogue::Add,
                _ => return None,
            },
            layer: words.layer,
        };
        (u32::from(operation.digest()) == words.tag).then_some(operation)
    }

    /// Everything but the numbers, in one.
    fn form(&self) -> u32 {
        let dtypes = dtype_code(self.input) | dtype_code(self.output) << 4;
        let epilogue = match self.epilogue {
            Epilogue::Store => 0,
            Epilogue::Add => 1,
        };
        u32::from_le_bytes([self.kind as u8, dtypes, epilogue, 0])
    }
}

const KINDS: [OperationKind; 4] = [
    OperationKind::RowParallel,
    OperationKind::ColumnParallel,
    OperationKind::OneShot,
    OperationKind::TwoShot,
];

fn dtype_code(dtype: DType) -> u8 {
    match dtype {
        DType::F16 => 0,
        DType::Bf16 => 1,
        DType::F32 => 2,
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Operation {
            kind,
            rows,
            columns,
            input,
            output,
            ..
        } = self;
        let shots = match kind {
            OperationKind::RowParallel | OperationKind::ColumnParallel => {
                let side = match kind {
                    OperationKind::RowParallel => "row",
                    _ => "column",
                };
                let layer = self.layer;
                return write!(
                    f,
                    "a {side}-parallel layer ({rows} x {columns}, {input} to {output}, scales {layer:08x})"
                );
            }
            OperationKind::OneShot => "one shot",
            OperationKind::TwoShot => "two shots",
        };
        let epilogue = match self.epilogue {
            Epilogue::Store => "stored",
            Epilogue::Add => "added",
        };
        write!(
            f,
            "an all-reduce ({columns} elements, {input} to {output}, {epilogue}, {shots})"
        )
    }
}

/// A digest of a layer's output scales: FNV-1a over their bits.
pub(crate) fn digest_of_scales(bits: impl Iterator<Item = u16>) -> u32 {
    bits.fold(0x811c_9dc5, |hash, bits| {
        let [low, high] = bits.to_le_bytes();
        [low, high].into_iter().fold(hash, |hash: u32, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn operations() -> impl Strategy<Value = Operation> {
        let dtype = || proptest::sample::select(DType::ALL.to_vec());
        let epilogue = proptest::sample::select(vec![Epilogue::Store, Epilogue::Add]);
        let kind = proptest::sample::select(KINDS.to_vec());
        let numbers = (any::<u32>(), 0u64..1 << 40, any::<u32>());
        (kind, numbers, dtype(), dtype(), epilogue).prop_map(
            |(kind, (rows, columns, layer), input, output, epilogue)| Operation {
                kind,
                rows,
                columns,
                input,
                output,
                epilogue,
                layer,
            },
        )
    }

    proptest! {
        #[test]
        fn words_and_operations_are_inverse(operation in operations()) {
            prop_assert_eq!(Operation::from_words(operation.to_words()), Some(operation));
        }

        #[test]
        fn no_words_are_a_panic(words: (u32, u32, u32, u32, u64)) {
            let (tag, form, rows, layer, columns) = words;
            let words = OperationWords { tag, form, rows, layer, columns };
            if let Some(operation) = Operation::from_words(words) {
                prop_assert_eq!(operation.to_words(), words);
            }
        }

        #[test]
        fn one_different_property_is_another_digest(
            one in operations(), other in operations(), by in 1u32..1 << 16, property in 0..6,
        ) {
            let mut changed = one;
            match property {
                0 => changed.kind = other.kind,
                1 => changed.input = other.input,
                2 => changed.output = other.output,
                3 => changed.epilogue = other.epilogue,
                // Numbers of a call; a difference within the low 16 bits cannot fold away.
                4 => changed.rows ^= by,
                _ => changed.columns ^= u64::from(by),
            }
            prop_assert_eq!(changed == one, changed.digest() == one.digest());
        }
    }
}
