//! Calls that are refused.

use trellink::{Error, Result};

/// Asserts that a call was refused because of this argument, with a text that has `part`.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T>, argument: &str, part: &str) {
    let error = result.expect_err("should be refused");
    let Error::InvalidArgument {
        argument: found, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*found, argument, "{error}");
    let text = error.to_string();
    assert!(text.contains(part), "`{part}` is not in `{text}`");
}
