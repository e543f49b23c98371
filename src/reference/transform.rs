//! The Walsh-Hadamard transform of the format.

use crate::format::GROUP;

/// Transforms every 128 values in place: Sylvester order, scaled by 1/√128, its own inverse.
///
/// # Panics
/// If the length is not a multiple of 128.
pub fn hadamard_128(values: &mut [f64]) {
    assert!(
        values.len().is_multiple_of(GROUP),
        "{} values are no whole groups of 128",
        values.len()
    );
    for group in values.chunks_exact_mut(GROUP) {
        let mut stride = 1;
        while stride < GROUP {
            butterflies(group, stride);
            stride *= 2;
        }
        for value in group {
            *value /= (GROUP as f64).sqrt();
        }
    }
}

/// (a, b) → (a + b, a − b) for all pairs whose indices differ in the bit `stride`.
fn butterflies(group: &mut [f64], stride: usize) {
    for pair in group.chunks_exact_mut(2 * stride) {
        let (low, high) = pair.split_at_mut(stride);
        for (a, b) in low.iter_mut().zip(high) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_i_j_is_the_sign_of_the_parity_of_i_and_j() {
        for j in 0..GROUP {
            let mut column = [0.0; GROUP];
            column[j] = 1.0;
            hadamard_128(&mut column);
            for (i, value) in column.into_iter().enumerate() {
                let sign = if (i & j).count_ones() % 2 == 0 {
                    1.0
                } else {
                    -1.0
                };
                assert_eq!(value, sign / 128f64.sqrt(), "entry {i}, {j}");
            }
        }
    }

    #[test]
    fn groups_do_not_mix() {
        let mut values = vec![0.0; 3 * GROUP];
        values[GROUP + 5] = 1.0;
        hadamard_128(&mut values);
        assert!(values[..GROUP]
            .iter()
            .chain(&values[2 * GROUP..])
            .all(|&v| v == 0.0));
        hadamard_128(&mut values);
        assert!((values[GROUP + 5] - 1.0).abs() < 1e-15);
    }

    #[test]
    #[should_panic(expected = "no whole groups")]
    fn a_broken_group_is_refused() {
        hadamard_128(&mut [0.0; 100]);
    }
}
