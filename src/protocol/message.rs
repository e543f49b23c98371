//! How the outputs of a call are cut into exchanges.
//!
//! What must stay true: the cut depends on the shape and the slot alone, since all ranks must make
//! the same exchanges. Whole rows are cut off where a slot holds one: then the cut of the columns
//! among CTAs, and with it the order of additions, does not depend on the number of rows.

use crate::format::GROUP;
use std::ops::Range;

/// The outputs of one exchange: value i is row `rows.start + i / columns.len()`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Rows of the call.
    pub rows: Range<usize>,
    /// Columns of the call; bounds are multiples of 128 (or the last column).
    pub columns: Range<usize>,
}

impl Message {
    /// Index of the value of this row and column.
    pub fn value(&self, row: usize, column: usize) -> usize {
        (row - self.rows.start) * self.columns.len() + (column - self.columns.start)
    }

    /// Values that one rank sends in it.
    pub fn values(&self) -> usize {
        self.rows.len() * self.columns.len()
    }
}

/// The messages that carry [rows, n]: whole rows if a slot holds one, else 128s of columns of a row.
///
/// # Panics
/// If a slot does not hold 128 values; `Group::build` sees to that.
pub fn messages(rows: usize, n: usize, slot_values: usize) -> impl Iterator<Item = Message> {
    let (row_step, column_step) = match slot_values.checked_div(n) {
        // Without columns there is nothing to send, whatever the step.
        None => (1, GROUP),
        Some(0) => (1, slot_values / GROUP * GROUP),
        Some(whole_rows) => (whole_rows, n),
    };
    (0..rows).step_by(row_step).flat_map(move |row| {
        (0..n).step_by(column_step).map(move |column| Message {
            rows: row..rows.min(row + row_step),
            columns: column..n.min(column + column_step),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_cover_every_output_once_and_fit_the_slot() {
        for (rows, n, slot) in [
            (7, 384, 768),
            (3, 640, 256),
            (5, 256, 1 << 19),
            (1, 128, 128),
        ] {
            let mut seen = vec![0; rows * n];
            for message in messages(rows, n, slot) {
                assert!(message.values() <= slot);
                let mut values = vec![0; message.values()];
                for row in message.rows.clone() {
                    for column in message.columns.clone() {
                        seen[row * n + column] += 1;
                        values[message.value(row, column)] += 1;
                    }
                }
                assert!(values.iter().all(|&count| count == 1));
            }
            assert!(seen.iter().all(|&count| count == 1), "{rows} {n} {slot}");
        }
    }

    #[test]
    fn rows_stay_whole_where_one_fits() {
        let of = |rows, n, slot| messages(rows, n, slot).collect::<Vec<_>>();
        let message = |rows, columns| Message { rows, columns };
        assert_eq!(
            of(3, 256, 639),
            [message(0..2, 0..256), message(2..3, 0..256)]
        );
        assert_eq!(
            of(1, 384, 256),
            [message(0..1, 0..256), message(0..1, 256..384)]
        );
        assert!(of(0, 256, 256).is_empty() && of(3, 0, 256).is_empty());
    }
}
