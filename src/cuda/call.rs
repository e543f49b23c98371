//! cudarc's slices, views and streams as inputs, outputs and streams of a call; and raw ones.

use crate::call::{
    Epilogue, Input, InputData, InputNorm, Output, OutputData, RmsNorm, Stream, StreamKind,
};
use crate::format::DType;
use crate::{Error, Result};
use cudarc::driver::{sys, CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};
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
    /// Where cudarc says the memory is; unknown for raw pointers.
    pub(crate) ordinal: Option<usize>,
    /// Tells cudarc, when dropped after the launch, that the memory is being read until then.
    _read: Option<SyncOnDrop<'a>>,
}

/// An output on a device.
#[derive(Debug)]
pub(crate) struct DeviceOutput<'a> {
    pub(crate) pointer: sys::CUdeviceptr,
    pub(crate) dtype: DType,
    pub(crate) len: usize,
    pub(crate) ordinal: Option<usize>,
    /// As for the input: the memory is being written until then.
    _written: Option<SyncOnDrop<'a>>,
}

/// A CUDA stream and, where known, its device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamHandle<'a> {
    pub(crate) raw: sys::CUstream,
    pub(crate) ordinal: Option<usize>,
    life: PhantomData<&'a CudaStream>,
}

impl<'a> Input<'a> {
    /// Activations in a cudarc slice or view, to be read on `stream`.
    ///
    /// While `stream` is being captured, cudarc's own bookkeeping gets in the way: a slice waits for
    /// events recorded before the capture, which CUDA refuses. Turn it off for the context before
    /// allocating (`CudaContext::disable_event_tracking`), or use [`device_raw`](Self::device_raw).
    /// Element 0 must be 8-byte
    /// aligned (checked in the call).
    pub fn device<T: DeviceElement>(x: &'a impl DevicePtr<T>, stream: &'a Arc<CudaStream>) -> Self {
        let len = x.len();
        let ordinal = x.stream().context().ordinal();
        let (pointer, read) = x.device_ptr(stream);
        Input {
            data: InputData::Device(DeviceInput {
                pointer,
                dtype: T::DTYPE,
                len,
                ordinal: Some(ordinal),
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
                ordinal: None,
                _read: None,
            }),
            norm: None,
        }
    }
}

impl<'a> Output<'a> {
    /// An output in a cudarc slice or view, to be written on `stream`. Element 0 must be aligned to
    /// four elements (checked in the call).
    pub fn device<T: DeviceOutputElement>(
        out: &'a mut impl DevicePtrMut<T>,
        stream: &'a Arc<CudaStream>,
        epilogue: Epilogue,
    ) -> Self {
        let len = out.len();
        let ordinal = out.stream().context().ordinal();
        let (pointer, written) = out.device_ptr_mut(stream);
        Output {
            data: OutputData::Device(DeviceOutput {
                pointer,
                dtype: T::DTYPE,
                len,
                ordinal: Some(ordinal),
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
                ordinal: None,
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
                ordinal: Some(stream.context().ordinal()),
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
                ordinal: None,
                life: PhantomData,
            }),
        }
    }
}

/// The stream of a call on `ordinal`.
pub(crate) fn stream_of<'a>(stream: &Stream<'a>, ordinal: usize) -> Result<StreamHandle<'a>> {
    match stream.kind {
        StreamKind::Cuda(handle) => {
            on_device("stream", handle.ordinal, ordinal)?;
            Ok(handle)
        }
        StreamKind::Host(_) => Err(Error::argument(
            "stream",
            "the host",
            format!("a stream of CUDA device {ordinal}"),
        )),
    }
}

/// The input of a call on `ordinal`, aligned as kernels read it.
pub(crate) fn input_of<'a, 'b>(
    input: &'b Input<'a>,
    ordinal: usize,
) -> Result<&'b DeviceInput<'a>> {
    read_on("input", &input.data, ordinal)
}

/// An output of a call on `ordinal`, aligned as kernels write it.
pub(crate) fn output_of<'a, 'b>(
    output: &'b Output<'a>,
    ordinal: usize,
) -> Result<&'b DeviceOutput<'a>> {
    written_on("output", &output.data, ordinal)
}

/// The weight and the output of a norm on `ordinal`, aligned likewise.
pub(crate) fn norm_of<'a, 'b>(
    norm: &'b RmsNorm<'a>,
    ordinal: usize,
) -> Result<(&'b DeviceInput<'a>, &'b DeviceOutput<'a>)> {
    let weight = read_on("weight", &norm.weight, ordinal)?;
    Ok((weight, written_on("out", &norm.out, ordinal)?))
}

/// The sums of squares that an input is normalised by, on `ordinal`, aligned likewise.
pub(crate) fn read_squares<'a, 'b>(
    norm: &'b InputNorm<'a>,
    ordinal: usize,
) -> Result<&'b DeviceInput<'a>> {
    read_on("squares", &norm.squares, ordinal)
}

/// Those that an output leaves.
pub(crate) fn written_squares<'a, 'b>(
    squares: &'b OutputData<'a>,
    ordinal: usize,
) -> Result<&'b DeviceOutput<'a>> {
    written_on("squares", squares, ordinal)
}

fn read_on<'a, 'b>(
    argument: &'static str,
    data: &'b InputData<'a>,
    ordinal: usize,
) -> Result<&'b DeviceInput<'a>> {
    let InputData::Device(device) = data else {
        return Err(host_memory(argument, ordinal));
    };
    on_device(argument, device.ordinal, ordinal)?;
    aligned(argument, device.pointer, device.dtype)?;
    Ok(device)
}

fn written_on<'a, 'b>(
    argument: &'static str,
    data: &'b OutputData<'a>,
    ordinal: usize,
) -> Result<&'b DeviceOutput<'a>> {
    let OutputData::Device(device) = data else {
        return Err(host_memory(argument, ordinal));
    };
    on_device(argument, device.ordinal, ordinal)?;
    aligned(argument, device.pointer, device.dtype)?;
    Ok(device)
}

fn host_memory(argument: &'static str, ordinal: usize) -> Error {
    let expected = format!("memory of CUDA device {ordinal}, on which the rank runs");
    Error::argument(argument, "host memory", expected)
}

fn on_device(argument: &'static str, found: Option<usize>, expected: usize) -> Result<()> {
    match found {
        Some(found) if found != expected => Err(Error::argument(
            argument,
            format!("CUDA device {found}"),
            format!("CUDA device {expected}, on which the rank runs"),
        )),
        _ => Ok(()),
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
