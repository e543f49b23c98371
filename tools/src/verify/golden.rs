//! What a golden file holds besides its layer: the decoded weights, an input and its output.
//!
//! In such a file the layer is named `layer`; the tensors of other files mean other things.

use anyhow::{bail, Result};
use half::f16;
use trellink::checkpoint::{LinearInfo, Tensor};
use trellink::Checkpoint;

/// The name of a golden file's layer.
const LAYER: &str = "layer";

/// The tensors of a golden file, as far as it has them.
#[derive(Default)]
pub struct Golden {
    /// `inner` [K, N]: the decoded weights.
    pub inner: Option<Vec<f16>>,
    /// `x` [M, K].
    pub x: Option<Vec<f16>>,
    /// `y` [M, N], if there is an `x`.
    pub y: Option<Vec<f64>>,
}

impl Golden {
    /// The golden tensors that go with a linear.
    pub fn of(checkpoint: &Checkpoint, info: &LinearInfo) -> Result<Self> {
        if info.name != LAYER {
            return Ok(Golden::default());
        }
        let (k, n) = (info.k, info.n);
        let inner = tensor(checkpoint, "inner", "F16", [Some(k), Some(n)])?;
        let x = tensor(checkpoint, "x", "F16", [None, Some(k)])?;
        let y = match &x {
            None => None,
            Some(x) => tensor(checkpoint, "y", "F32", [Some(x.shape()[0]), Some(n)])?,
        };
        Ok(Golden {
            inner: inner.map(f16s),
            x: x.map(f16s),
            y: y.map(f32s),
        })
    }
}

/// A tensor of this dtype and shape, where `None` stands for any number of rows but none.
fn tensor<'a>(
    checkpoint: &'a Checkpoint,
    name: &str,
    dtype: &str,
    shape: [Option<usize>; 2],
) -> Result<Option<Tensor<'a>>> {
    let Ok(tensor) = checkpoint.tensor(name) else {
        return Ok(None);
    };
    let fits = |(found, expected): (&usize, Option<usize>)| match expected {
        Some(expected) => *found == expected,
        None => *found > 0,
    };
    let found = tensor.shape();
    if tensor.dtype() != dtype || found.len() != 2 || !found.iter().zip(shape).all(fits) {
        let dims = shape.map(|dim| dim.map_or("M".into(), |dim| dim.to_string()));
        bail!(
            "tensor `{name}` beside `{LAYER}`: found {} {found:?}, expected {dtype} [{}]",
            tensor.dtype(),
            dims.join(", "),
        );
    }
    Ok(Some(tensor))
}

fn f16s(tensor: Tensor<'_>) -> Vec<f16> {
    let pairs = tensor.bytes().chunks_exact(2);
    pairs.map(|b| f16::from_le_bytes([b[0], b[1]])).collect()
}

fn f32s(tensor: Tensor<'_>) -> Vec<f64> {
    let quads = tensor.bytes().chunks_exact(4);
    quads
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into())
        .collect()
}
