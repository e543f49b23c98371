//! The few declarations of nccl.h that are needed, found in the library by name.
//!
//! Compared with nccl.h of NCCL 2.32.3.

use libloading::{Library, Symbol};
use std::ffi::{c_char, c_int, c_void};

/// `ncclResult_t`.
pub type ResultCode = c_int;
/// `ncclSuccess`.
pub const SUCCESS: ResultCode = 0;

/// `ncclDataType_t`: f16, f32 and bf16 as NCCL numbers them.
pub type DataType = c_int;
/// `ncclFloat16`.
pub const FLOAT16: DataType = 6;
/// `ncclFloat32`.
pub const FLOAT32: DataType = 7;
/// `ncclBfloat16`.
pub const BFLOAT16: DataType = 9;

/// `ncclRedOp_t`.
pub type ReduceOp = c_int;
/// `ncclSum`.
pub const SUM: ReduceOp = 0;

/// `ncclComm_t`, a pointer to what only NCCL knows.
pub type Comm = *mut c_void;
/// `cudaStream_t`, the same as the driver's `CUstream`.
pub type Stream = *mut c_void;

/// `ncclGetVersion(version)`.
type GetVersion = unsafe extern "C" fn(*mut c_int) -> ResultCode;
/// `ncclGetErrorString(result)`: a constant of the library's, never null.
type GetErrorString = unsafe extern "C" fn(ResultCode) -> *const c_char;
/// `ncclCommInitAll(comms, ndev, devlist)`: a communicator for each of `ndev` different devices.
type CommInitAll = unsafe extern "C" fn(*mut Comm, c_int, *const c_int) -> ResultCode;
/// `ncclCommDestroy(comm)`.
type CommDestroy = unsafe extern "C" fn(Comm) -> ResultCode;
/// `ncclAllReduce(sendbuff, recvbuff, count, datatype, op, comm, stream)`: buffers may be the same.
type AllReduce = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    DataType,
    ReduceOp,
    Comm,
    Stream,
) -> ResultCode;

/// The functions of a loaded library, and with them the library.
pub struct Functions {
    pub get_version: GetVersion,
    pub get_error_string: GetErrorString,
    pub comm_init_all: CommInitAll,
    pub comm_destroy: CommDestroy,
    pub all_reduce: AllReduce,
}

impl Functions {
    /// Finds all of them.
    ///
    /// The library stays loaded for the rest of the process: NCCL has threads of its own, whose code
    /// must not go away.
    ///
    /// # Safety
    /// What the library has under these names must be what nccl.h declares.
    pub unsafe fn of(library: Library) -> Result<Self, libloading::Error> {
        let library: &'static Library = Box::leak(Box::new(library));
        // SAFETY: the types are those of nccl.h, and the caller vouches for the library.
        unsafe {
            Ok(Functions {
                get_version: *symbol(library, c"ncclGetVersion")?,
                get_error_string: *symbol(library, c"ncclGetErrorString")?,
                comm_init_all: *symbol(library, c"ncclCommInitAll")?,
                comm_destroy: *symbol(library, c"ncclCommDestroy")?,
                all_reduce: *symbol(library, c"ncclAllReduce")?,
            })
        }
    }
}

/// # Safety
/// The symbol must be of type `T`.
unsafe fn symbol<T>(
    library: &'static Library,
    name: &std::ffi::CStr,
) -> Result<Symbol<'static, T>, libloading::Error> {
    // SAFETY: the caller's.
    unsafe { library.get(name.to_bytes_with_nul()) }
}
