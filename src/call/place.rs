//! Where on GPUs a call, its memory and its stream are, and whether they belong together.
//!
//! What must stay true: who lends memory for a call keeps it until the stream has run the call that the lender
//! was told of. So that must be the stream of the call, and both must be in the context in which the rank is:
//! in another one the same address is other memory, or none.

use crate::{Error, Result};

/// A context of a CUDA device. Its handle only tells it from others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) ordinal: usize,
    pub(crate) context: usize,
}

/// Memory that somebody lends for a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loan {
    /// Where the memory is.
    pub(crate) place: Place,
    /// The handle of the stream on which it is lent.
    pub(crate) stream: usize,
}

impl Place {
    /// Fails unless `found`, where an argument is, is here, where the rank is.
    pub(crate) fn accept(self, argument: &'static str, found: Place) -> Result<()> {
        let ordinal = self.ordinal;
        if found.ordinal != ordinal {
            return Err(Error::argument(
                argument,
                format!("CUDA device {}", found.ordinal),
                format!("CUDA device {ordinal}, on which the rank runs"),
            ));
        }
        if found.context != self.context {
            return Err(Error::argument(
                argument,
                format!("another context of CUDA device {ordinal}"),
                "the device's primary context, in which the rank runs; make it with CudaContext::new",
            ));
        }
        Ok(())
    }
}

impl Loan {
    /// Fails unless a call on this stream, of a rank at `place`, may use the memory.
    pub(crate) fn accept(self, argument: &'static str, place: Place, stream: usize) -> Result<()> {
        place.accept(argument, self.place)?;
        if self.stream == stream {
            return Ok(());
        }
        Err(Error::argument(
            argument,
            "memory for another stream than the call's",
            "memory for the stream of the call; give `device` and the call the same stream",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = Place {
        ordinal: 0,
        context: 0xc0,
    };
    const STREAM: usize = 0x57;

    fn refused(found: Result<()>) -> String {
        found.expect_err("refused").to_string()
    }

    #[test]
    fn memory_of_the_ranks_context_lent_to_the_calls_stream_is_taken() {
        let (place, stream) = (HERE, STREAM);
        Loan { place, stream }
            .accept("input", HERE, STREAM)
            .unwrap();
    }

    #[test]
    fn memory_lent_to_another_stream_is_refused() {
        // The null stream is one like any other.
        for stream in [STREAM + 1, 0] {
            let place = HERE;
            let error = refused(Loan { place, stream }.accept("output", HERE, STREAM));
            assert!(error.contains("`output`") && error.contains("same stream"));
        }
    }

    #[test]
    fn another_context_of_the_same_device_is_refused() {
        let context = HERE.context + 1;
        let place = Place { context, ..HERE };
        let error = refused(HERE.accept("stream", place));
        assert!(error.contains("`stream`") && error.contains("primary context"));
        let loan = Loan {
            place,
            stream: STREAM,
        };
        let error = refused(loan.accept("input", HERE, STREAM));
        assert!(error.contains("`input`") && error.contains("primary context"));
    }

    #[test]
    fn another_device_is_named() {
        let place = Place { ordinal: 3, ..HERE };
        let error = refused(HERE.accept("weight", place));
        assert!(error.contains("found CUDA device 3"), "{error}");
        assert!(error.contains("expected CUDA device 0"), "{error}");
    }
}
