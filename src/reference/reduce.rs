//! The reduction over ranks, and how far two results are apart.

/// The sums of all ranks' values in f32, rank 0 first: what every exchange must return bit for bit.
///
/// # Panics
/// If there is no rank, or the ranks hold different numbers of values.
pub fn reduce(partials: &[&[f32]]) -> Vec<f32> {
    let (first, others) = partials.split_first().expect("at least one rank");
    let mut sums = first.to_vec();
    for partial in others {
        assert_eq!(partial.len(), sums.len(), "values of every rank");
        for (sum, value) in sums.iter_mut().zip(*partial) {
            *sum += value;
        }
    }
    sums
}

/// ‖got − want‖ / ‖want‖ in the 2-norm; 0 where both are all zeros.
///
/// Infinite where the error has no value: a NaN or an infinity on either side, or a reference of
/// zeros that `got` misses. So a comparison in either direction finds it too large.
///
/// # Panics
/// If `got` and `want` differ in length.
pub fn relative_error(got: impl Iterator<Item = f64>, want: &[f64]) -> f64 {
    let mut expected = want.iter();
    let (mut error, mut norm) = (0.0, 0.0);
    for got in got {
        let want = expected.next().expect("no more values than the reference");
        error += (got - want) * (got - want);
        norm += want * want;
    }
    assert!(expected.next().is_none(), "as many values as the reference");
    if error == 0.0 {
        return 0.0;
    }
    let relative = (error / norm).sqrt();
    if relative.is_nan() {
        f64::INFINITY
    } else {
        relative
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_added_in_order_in_f32() {
        // In any other order, or in f64, the small value would survive.
        assert_eq!(reduce(&[&[1e8], &[1.0], &[-1e8]]), [0.0]);
        assert_eq!(reduce(&[&[-0.0], &[-0.0]])[0].to_bits(), (-0f32).to_bits());
        assert_eq!(reduce(&[&[1.5, 2.5]]), [1.5, 2.5]);
    }

    #[test]
    fn errors_without_a_value_are_infinite() {
        let error = |got: &[f64], want: &[f64]| relative_error(got.iter().copied(), want);
        assert_eq!(error(&[f64::NAN, 1.0], &[1.0, 1.0]), f64::INFINITY);
        assert_eq!(error(&[1.0, 1.0], &[f64::NAN, 1.0]), f64::INFINITY);
        assert_eq!(error(&[f64::INFINITY], &[f64::INFINITY]), f64::INFINITY);
        assert_eq!(error(&[1.0], &[f64::INFINITY]), f64::INFINITY);
        assert_eq!(error(&[1e-30], &[0.0]), f64::INFINITY);
    }

    #[test]
    fn the_error_is_relative_to_the_reference() {
        let error = |got: &[f64], want: &[f64]| relative_error(got.iter().copied(), want);
        assert_eq!(error(&[0.0, 0.0], &[0.0, 0.0]), 0.0);
        assert_eq!(error(&[], &[]), 0.0);
        assert!((error(&[3.0, 4.4], &[3.0, 4.0]) - 0.08).abs() < 1e-12);
    }
}
