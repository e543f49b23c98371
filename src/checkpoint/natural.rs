//! The order in which people list layers: numbers inside names compare as numbers.
//!
//! What must stay true: this is a total order in which only identical names are equal, because
//! names are looked up by binary search.

use std::cmp::Ordering;

/// Compares names with runs of digits as numbers: `layers.2` before `layers.10`.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    // Names such as `x1` and `x01` are equal as numbers and still two names.
    compare_numbers_first(a.as_bytes(), b.as_bytes()).then_with(|| a.cmp(b))
}

fn compare_numbers_first(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        let (Some(&x), Some(&y)) = (a.first(), b.first()) else {
            return a.len().cmp(&b.len());
        };
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            compare_values(take_digits(&mut a), take_digits(&mut b))
        } else {
            (a, b) = (&a[1..], &b[1..]);
            x.cmp(&y)
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Splits the leading digits off `text`.
fn take_digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let count = text.iter().take_while(|c| c.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(count);
    *text = rest;
    digits
}

/// Compares numbers of any length by their decimal digits.
fn compare_values(a: &[u8], b: &[u8]) -> Ordering {
    let (a, b) = (significant(a), significant(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn significant(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&c| c == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layers_are_in_numeric_order() {
        let sorted = [
            "lm_head",
            "m.layers.0.q",
            "m.layers.02.q",
            "m.layers.2.q",
            "m.layers.10.a",
            "m.layers.10.q",
            "m.layers.99999999999999999999999.q",
            "m.norm",
        ];
        for pair in sorted.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in "[a0-2.]{0,5}", b in "[a0-2.]{0,5}", c in "[a0-2.]{0,5}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &b) == Ordering::Equal, a == b);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
