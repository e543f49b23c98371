//! cudarc's slices, views and streams as inputs, outputs and streams of a call; and raw ones.

use crate::call::{
    Epilogue, Input, InputData, InputNorm, Loan, Output, OutputData, Place, RmsNorm, Stream,
    StreamKind,
};
use crate::format::DType;
use crate::{Error, Result};
use cudarc::driver::{sys, CudaContext, CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};
use half::{bf16, f16};
use std::marker::PhantomData;
use std::sync::Arc;

/// Element types of inputs on a device: f16 and bf16, and f32, which only an
/// [`AllReduce`](crate::AllReduce) takes.
pub trait DeviceElement: sealed::Element {}
/// Element types of outputs on a device: f16, bf16 and f32.
pub trait DeviceOutputElement: sealed::Element {}

mod sealed {
    /// A type with a dtype; implemented in this crate alone.
    pub trait Element {
        /// The dtype of the type.
        const DTYPE: crate::format::DType;
    }
}

impl sealed::Element for f16 {
    const DTYPE: DType = DType::F16;
}
impl sealed::Element for bf16 {
    const DTYPE: DType = DType::Bf16;
}
impl sealed::Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl DeviceElement for f16 {}
impl DeviceElement for bf16 {}
impl DeviceElement for f32 {}
impl DeviceOutputElement for f16 {}
impl DeviceOutputElement for bf16 {}
impl DeviceOutputElement for f32 {}

/// Activations on a device.
#[derive(Debug)]
pub(crate) struct DeviceInput<'a> {
    pub(crate) pointer: sys::CUdeviceptr,
    pub(crate) dtype: DType,
    pub(crate) len: usize,
    /// Where cudarc says the memory is, and for which stream; unknown for raw pointers.
    loan: Option<Loan>,
    /// Tells cudarc, when dropped after the launch, that the memory is being read until then.
    _read: Option<SyncOnDrop<'a>>,
}

/// An output on a device.
#[derive(Debug)]
pub(crate) struct DeviceOutput<'a> {
    pub(crate) pointer: sys::CUdeviceptr,
    pub(crate) dtype: DType,
    pub(crate) len: usize,
    loan: Option<Loan>,
    /// As for the input: the memory is being written until then.
    _written: Option<SyncOnDrop<'a>>,
}

/// A CUDA stream and, where known, its context.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamHandle<'a> {
    pub(crate) raw: sys::CUstream,
    place: Option<Place>,
    life: PhantomData<&'a CudaStream>,
}

impl<'a> Input<'a> {
    /// Activations in a cudarc slice or view, to be read on `stream`, which must be the stream of the call
    /// (checked there): cudarc keeps the memory until `stream` has read it. The slice's own stream may be any
    /// of the device's primary context.
    ///
    /// While `stream` is being captured, cudarc's own bookkeeping gets in the way: a slice waits for
    /// events recorded before the capture, which CUDA refuses. Turn it off for the context before
    /// allocating (`CudaContext::disable_event_tracking`), or use [`device_raw`](Self::device_raw).
    ///
    /// Element 0 must be aligned to four elements (checked in the call).
    pub fn device<T: DeviceElement>(x: &'a impl DevicePtr<T>, stream: &'a Arc<CudaStream>) -> Self {
        let len = x.len();
        let place = place_of(x.stream().context());
        let (pointer, read) = x.device_ptr(stream);
        Input {
            data: InputData::Device(DeviceInput {
                pointer,
                dtype: T::DTYPE,
                len,
                loan: Some(loan(place, stream)),
                _read: Some(read),
            }),
            norm: None,
        }
    }

    /// Activations at a raw device pointer: `len` elements of `dtype`, f16 or bf16; f32 for an
    /// [`AllReduce`](crate::AllReduce).
    ///
    /// # Safety
    /// The memory must be readable by kernels on the rank's device, on the stream of the call, until
    /// the call has run there (for a captured call: whenever its graph runs), and must not overlap
    /// any of the call's outputs.
    pub unsafe fn device_raw(pointer: u64, dtype: DType, len: usize) -> Self {
        Input {
            data: InputData::Device(DeviceInput {
                pointer,
                dtype,
                len,
                loan: None,
                _read: None,
            }),
            norm: None,
        }
    }
}

impl<'a> Output<'a> {
    /// An output in a cudarc slice or view, to be written on `stream`, the stream of the call, as for
    /// [`Input::device`]. Element 0 must be aligned to four elements (checked in the call).
    pub fn device<T: DeviceOutputElement>(
        out: &'a mut impl DevicePtrMut<T>,
        stream: &'a Arc<CudaStream>,
        epilogue: Epilogue,
    ) -> Self {
        let len = out.len();
        let place = place_of(out.stream().context());
        let (pointer, written) = out.device_ptr_mut(stream);
        Output {
            data: OutputData::Device(DeviceOutput {
                pointer,
                dtype: T::DTYPE,
                len,
                loan: Some(loan(place, stream)),
                _written: Some(written),
            }),
            epilogue,
            norm: None,
            squares: None,
        }
    }

    /// An output at a raw device pointer: `len` elements of `dtype`.
    ///
    /// # Safety
    /// As [`Input::device_raw`], and the memory must be writable and overlap nothing else that the
    /// call reads or writes.
    pub unsafe fn device_raw(pointer: u64, dtype: DType, len: usize, epilogue: Epilogue) -> Self {
        Output {
            data: OutputData::Device(DeviceOutput {
                pointer,
                dtype,
                len,
                loan: None,
                _written: None,
            }),
            epilogue,
            norm: None,
            squares: None,
        }
    }
}

impl<'a> From<&'a Arc<CudaStream>> for Stream<'a> {
    fn from(stream: &'a Arc<CudaStream>) -> Self {
        Stream {
            kind: StreamKind::Cuda(StreamHandle {
                raw: stream.cu_stream(),
                place: Some(place_of(stream.context())),
                life: PhantomData,
            }),
        }
    }
}

impl Stream<'static> {
    /// A raw `CUstream` of the rank's device; null and `CU_STREAM_PER_THREAD` included.
    ///
    /// # Safety
    /// The stream must be of the rank's device, in its primary context, and alive until the call
    /// returns.
    pub unsafe fn cuda_raw(stream: *mut std::ffi::c_void) -> Self {
        Stream {
            kind: StreamKind::Cuda(StreamHandle {
                raw: stream.cast(),
                place: None,
                life: PhantomData,
            }),
        }
    }
}

/// A context as it is told from others.
pub(super) fn place_of(context: &CudaContext) -> Place {
    Place {
        ordinal: context.ordinal(),
        context: context.cu_ctx() as usize,
    }
}

fn loan(place: Place, stream: &CudaStream) -> Loan {
    Loan {
        place,
        stream: stream.cu_stream() as usize,
    }
}

/// Where a call runs: the rank's context and the call's stream in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    place: Place,
    pub(crate) stream: StreamHandle<'a>,
}

impl<'a> Site<'a> {
    /// A call on `stream` of what is at `place`.
    pub(crate) fn new(stream: &Stream<'a>, place: Place) -> Result<Self> {
        match stream.kind {
            StreamKind::Cuda(stream) => {
                let found = stream.place;
                found.map_or(Ok(()), |found| place.accept("stream", found))?;
                Ok(Site { place, stream })
            }
            StreamKind::Host(_) => Err(Error::argument(
                "stream",
                "the host",
                format!("a stream of CUDA device {}", place.ordinal),
            )),
        }
    }

    /// The input of a call, aligned as kernels read it.
    pub(crate) fn input<'b, 'c>(&self, input: &'b Input<'c>) -> Result<&'b DeviceInput<'c>> {
        self.read("input", &input.data)
    }

    /// An output of a call, aligned as kernels write it.
    pub(crate) fn output<'b, 'c>(&self, output: &'b Output<'c>) -> Result<&'b DeviceOutput<'c>> {
        self.written("output", &output.data)
    }

    /// The weight and the output of a norm, aligned likewise.
    pub(crate) fn norm<'b, 'c>(
        &self,
        norm: &'b RmsNorm<'c>,
    ) -> Result<(&'b DeviceInput<'c>, &'b DeviceOutput<'c>)> {
        let weight = self.read("weight", &norm.weight)?;
        Ok((weight, self.written("out", &norm.out)?))
    }

    /// The sums of squares that an input is normalised by, aligned likewise.
    pub(crate) fn read_squares<'b, 'c>(
        &self,
        norm: &'b InputNorm<'c>,
    ) -> Result<&'b DeviceInput<'c>> {
        self.read("squares", &norm.squares)
    }

    /// Those that an output leaves.
    pub(crate) fn written_squares<'b, 'c>(
        &self,
        squares: &'b OutputData<'c>,
    ) -> Result<&'b DeviceOutput<'c>> {
        self.written("squares", squares)
    }

    fn read<'b, 'c>(
        &self,
        argument: &'static str,
        data: &'b InputData<'c>,
    ) -> Result<&'b DeviceInput<'c>> {
        let InputData::Device(device) = data else {
            return Err(self.host_memory(argument));
        };
        self.accept(argument, device.loan)?;
        aligned(argument, device.pointer, device.dtype)?;
        Ok(device)
    }

    fn written<'b, 'c>(
        &self,
        argument: &'static str,
        data: &'b OutputData<'c>,
    ) -> Result<&'b DeviceOutput<'c>> {
        let OutputData::Device(device) = data else {
            return Err(self.host_memory(argument));
        };
        self.accept(argument, device.loan)?;
        aligned(argument, device.pointer, device.dtype)?;
        Ok(device)
    }

    fn accept(&self, argument: &'static str, loan: Option<Loan>) -> Result<()> {
        let stream = self.stream.raw as usize;
        loan.map_or(Ok(()), |loan| loan.accept(argument, self.place, stream))
    }

    fn host_memory(&self, argument: &'static str) -> Error {
        let ordinal = self.place.ordinal;
        let expected = format!("memory of CUDA device {ordinal}, on which the rank runs");
        Error::argument(argument, "host memory", expected)
    }
}

/// Layers move four elements at a time.
fn aligned(argument: &'static str, pointer: sys::CUdeviceptr, dtype: DType) -> Result<()> {
    aligned_to(4 * dtype.size() as u64, argument, pointer, dtype)
}

/// Fails unless the memory begins at a multiple of `alignment` bytes.
pub(crate) fn aligned_to(
    alignment: u64,
    argument: &'static str,
    pointer: sys::CUdeviceptr,
    dtype: DType,
) -> Result<()> {
    if pointer.is_multiple_of(alignment) {
        return Ok(());
    }
    Err(Error::argument(
        argument,
        format!("address {pointer:#x}"),
        format!("{dtype} memory aligned to {alignment} bytes"),
    ))
}
