//! RMSNorm and SwiGLU in f64.

/// (h ⊙ weight) / √(mean(h²) + epsilon) of every row of `h` [rows, N], N being the length of `weight`.
///
/// # Panics
/// If `h` is not whole rows.
pub fn rms_norm(h: &[f64], weight: &[f64], epsilon: f64) -> Vec<f64> {
    assert!(
        h.len().is_multiple_of(weight.len()),
        "{} values are no rows of {}",
        h.len(),
        weight.len()
    );
    let mut normalised = Vec::with_capacity(h.len());
    for row in h.chunks_exact(weight.len()) {
        let squares: f64 = row.iter().map(|h| h * h).sum();
        let rms = (squares / row.len() as f64 + epsilon).sqrt();
        normalised.extend(row.iter().zip(weight).map(|(h, weight)| h * weight / rms));
    }
    normalised
}

/// silu(gate) · up with silu(g) = g / (1 + exp(−g)), value by value.
///
/// # Panics
/// If there are not as many of the one as of the other.
pub fn swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    assert_eq!(gate.len(), up.len(), "values of gate and up");
    let values = gate.iter().zip(up);
    values.map(|(g, up)| g / (1.0 + (-g).exp()) * up).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_lets_through_what_is_positive() {
        let got = swiglu(
            &[0.0, 2.0, -2.0, 50.0, -1000.0],
            &[7.0, 3.0, 3.0, -1.0, 1.0],
        );
        let sigmoid = 1.0 / (1.0 + (-2f64).exp());
        let want = [0.0, 6.0 * sigmoid, -6.0 * (1.0 - sigmoid), -50.0, 0.0];
        assert!(got
            .iter()
            .zip(want)
            .all(|(got, want)| (got - want).abs() < 1e-15));
    }

    #[test]
    fn rows_are_normalised_by_themselves() {
        let got = rms_norm(&[3.0, 4.0, 0.0, 2.0], &[1.0, 2.0], 0.0);
        let (first, second) = (12.5f64.sqrt(), 2f64.sqrt());
        let want = [3.0 / first, 8.0 / first, 0.0, 4.0 / second];
        assert!(got
            .iter()
            .zip(want)
            .all(|(got, want)| (got - want).abs() < 1e-15));
    }

    #[test]
    fn epsilon_is_added_to_the_mean_of_the_squares() {
        assert_eq!(rms_norm(&[0.0, 0.0], &[1.0, 1.0], 1e-5), [0.0, 0.0]);
        assert_eq!(rms_norm(&[1.0, 1.0], &[1.0, 1.0], 3.0), [0.5, 0.5]);
    }
}
