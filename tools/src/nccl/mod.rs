//! NCCL, for comparison: found when the program runs, never linked.
//!
//! What must stay true: every result code is looked at, and one that is not success becomes a
//! [`Failed`]. `ffi` holds the declarations.

// Without CUDA only the tests have a use for it.
#![cfg_attr(not(feature = "cuda"), allow(dead_code))]

mod ffi;
#[cfg(test)]
mod tests;

use libloading::Library;
use std::error::Error as _;
use std::ffi::{c_int, c_void, CStr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trellink::format::DType;

/// The variable that says where NCCL is: the library or the folder that holds it.
pub const VARIABLE: &str = "TRELLINK_NCCL";
/// The library's name, which the loader looks for where it looks for all.
const NAME: &str = "libnccl.so.2";

/// A loaded NCCL.
pub struct Nccl {
    functions: ffi::Functions,
    version: String,
}

impl Nccl {
    /// The library that `TRELLINK_NCCL` names, else the one that the loader finds.
    ///
    /// # Errors
    /// Why there is none, for a reader.
    pub fn find() -> Result<Arc<Self>, String> {
        let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
        match named.map(PathBuf::from) {
            Some(folder) if folder.is_dir() => Self::open(&folder.join(NAME)),
            Some(file) => Self::open(&file),
            None => Self::open(Path::new(NAME)),
        }
    }

    fn open(path: &Path) -> Result<Arc<Self>, String> {
        let missing = |error: libloading::Error| {
            // The loader's own words are in the cause.
            let cause = error
                .source()
                .map_or(error.to_string(), ToString::to_string);
            format!("NCCL was not found ({cause}); install it, or name {NAME} or its folder in {VARIABLE}")
        };
        // SAFETY: whoever installs a library under NCCL's name, or names it, vouches for what runs when
        // it is loaded and for what its functions are.
        let functions =
            unsafe { Library::new(path).and_then(|library| ffi::Functions::of(library)) }
                .map_err(missing)?;
        let mut nccl = Nccl {
            functions,
            version: String::new(),
        };
        let version = nccl.version_code().map_err(|error| error.to_string())?;
        nccl.version = version_name(version);
        Ok(Arc::new(nccl))
    }

    /// As in `2.28.9`.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn version_code(&self) -> Result<c_int, Failed> {
        let mut version = 0;
        // SAFETY: `version` is a valid place for the result.
        let code = unsafe { (self.functions.get_version)(&mut version) };
        self.check(code, "ncclGetVersion")?;
        Ok(version)
    }

    /// The ranks of a group on these devices, one on each, in this order.
    ///
    /// # Errors
    /// [`Failed`], also if a device occurs twice.
    pub fn communicators(
        self: &Arc<Self>,
        ordinals: &[usize],
    ) -> Result<Vec<Communicator>, Failed> {
        let devices: Vec<c_int> = ordinals.iter().map(|&ordinal| ordinal as c_int).collect();
        let mut handles = vec![std::ptr::null_mut(); devices.len()];
        // SAFETY: both arrays have as many entries as are named.
        let code = unsafe {
            (self.functions.comm_init_all)(
                handles.as_mut_ptr(),
                devices.len() as c_int,
                devices.as_ptr(),
            )
        };
        self.check(code, "ncclCommInitAll")?;
        let communicator = |handle| Communicator {
            nccl: self.clone(),
            handle,
        };
        Ok(handles.into_iter().map(communicator).collect())
    }

    fn check(&self, code: ffi::ResultCode, call: &'static str) -> Result<(), Failed> {
        if code == ffi::SUCCESS {
            return Ok(());
        }
        // SAFETY: takes any number and gives a string that is never freed.
        let text = unsafe { CStr::from_ptr((self.functions.get_error_string)(code)) };
        Err(Failed {
            call,
            code,
            text: text.to_string_lossy().into_owned(),
        })
    }
}

/// One rank of a group. It may move between threads; `&mut` keeps its calls in one order.
///
/// Graphs that hold its calls go first: dropping it waits for them.
pub struct Communicator {
    nccl: Arc<Nccl>,
    handle: ffi::Comm,
}

// SAFETY: NCCL ties a communicator to a device, not to a thread, as long as calls do not overlap.
unsafe impl Send for Communicator {}

impl Communicator {
    /// Enqueues `receive` = the sum of all ranks' `send`, `count` elements of `dtype`. Collective.
    ///
    /// # Safety
    /// Until the streams of all ranks have run it, both must be `count` elements of memory on this rank's
    /// device, which are the same or do not overlap, and which peers can reach: no pool's memory. The
    /// stream must be of that device.
    ///
    /// # Errors
    /// [`Failed`].
    pub unsafe fn all_reduce(
        &mut self,
        send: u64,
        receive: u64,
        count: usize,
        dtype: DType,
        stream: *mut c_void,
    ) -> Result<(), Failed> {
        // SAFETY: the communicator is alive, all else is the caller's.
        let code = unsafe {
            (self.nccl.functions.all_reduce)(
                send as usize as *const c_void,
                receive as usize as *mut c_void,
                count,
                data_type(dtype),
                ffi::SUM,
                self.handle,
                stream,
            )
        };
        self.nccl.check(code, "ncclAllReduce")
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // SAFETY: made by ncclCommInitAll and destroyed only here.
        let code = unsafe { (self.nccl.functions.comm_destroy)(self.handle) };
        if let Err(failed) = self.nccl.check(code, "ncclCommDestroy") {
            eprintln!("warning: {failed}");
        }
    }
}

fn data_type(dtype: DType) -> ffi::DataType {
    match dtype {
        DType::F16 => ffi::FLOAT16,
        DType::Bf16 => ffi::BFLOAT16,
        DType::F32 => ffi::FLOAT32,
    }
}

/// The name of what `ncclGetVersion` gives: until 2.8 the minor version took one digit.
fn version_name(code: c_int) -> String {
    let major_unit = if code < 10_000 { 1_000 } else { 10_000 };
    let (major, minor, patch) = (code / major_unit, code % major_unit / 100, code % 100);
    format!("{major}.{minor}.{patch}")
}

/// A call to NCCL that did not succeed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    call: &'static str,
    code: ffi::ResultCode,
    text: String,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} failed ({}): {}", self.call, self.code, self.text)
    }
}

impl std::error::Error for Failed {}
