//! The stream a call runs on.

/// Where a call is enqueued.
///
/// On the host a call runs to its end before it returns. On a GPU it is enqueued on the stream and
/// returns at once.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    pub(crate) kind: StreamKind<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum StreamKind<'a> {
    Host(std::marker::PhantomData<&'a ()>),
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::StreamHandle<'a>),
}

impl Stream<'static> {
    /// The calling thread, for ranks on the host.
    pub fn host() -> Self {
        Stream {
            kind: StreamKind::Host(std::marker::PhantomData),
        }
    }
}

impl Stream<'_> {
    /// Fails unless this is the host's stream.
    pub(crate) fn require_host(&self) -> crate::Result<()> {
        match self.kind {
            StreamKind::Host(_) => Ok(()),
            #[cfg(feature = "cuda")]
            StreamKind::Cuda(_) => Err(crate::Error::argument(
                "stream",
                "a CUDA stream",
                "Stream::host(), since the rank runs on the host",
            )),
        }
    }
}
