//! How near to the reference an output must be.

use super::Values;
use trellink::format::DType;

/// What the arithmetic of a layer may cost, relative to its exact product in the 2-norm.
pub const TOLERANCE: f64 = 4e-4;

/// The relative error of `got` against `product + residual`; panics if it is too large.
///
/// The bound is `TOLERANCE · ‖product‖ + u · ‖product + residual‖`. The first term is the layer's;
/// the residual is added exactly as far as this bound can tell. The second is the final rounding:
/// a type with p significant bits changes each value by at most u = 2^−p of it (f16: 2^−11, bf16:
/// 2^−8, f32: 2^−24), hence the vector by at most u of its norm. f16 values below 2^−14, which
/// lose more, are too small to matter beside outputs of order 1.
#[track_caller]
pub fn check_accuracy(
    got: &Values,
    product: &[f64],
    residual: Option<&Values>,
    what: impl std::fmt::Display,
) -> f64 {
    let unit_roundoff = match got.dtype() {
        DType::F16 => 2f64.powi(-11),
        DType::Bf16 => 2f64.powi(-8),
        DType::F32 => 2f64.powi(-24),
    };
    let mut want = product.to_vec();
    if let Some(residual) = residual {
        for (want, residual) in want.iter_mut().zip(residual.to_f64()) {
            *want += residual;
        }
    }
    let got = got.to_f64();
    assert_eq!(got.len(), want.len(), "{what}: values");
    let error = norm(got.iter().zip(&want).map(|(got, want)| got - want));
    let bound =
        TOLERANCE * norm(product.iter().copied()) + unit_roundoff * norm(want.iter().copied());
    let relative = error / norm(product.iter().copied());
    assert!(
        norm(product.iter().copied()) > 0.0,
        "{what}: a test on zeros"
    );
    // Not `error > bound`: a NaN must fail.
    assert!(
        error <= bound,
        "{what}: error {error:.3e} exceeds {bound:.3e}, it is {relative:.2e} of the product"
    );
    relative
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}
