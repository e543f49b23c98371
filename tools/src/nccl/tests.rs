//! Claims about finding and calling NCCL, on a library that stands in for it.

use super::*;
use std::process::Command;

/// Compiles a library into `folder`; `None`, with a line that says so, where there is no compiler.
fn library(folder: &Path, source: &str) -> Option<PathBuf> {
    let path = folder.join(NAME);
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let source_path = folder.join("source.cpp");
    std::fs::write(&source_path, source).unwrap();
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-o"]).arg(&path);
    match command.arg(&source_path).status() {
        Ok(status) => assert!(status.success()),
        Err(error) => {
            eprintln!("skipped, a compiler is needed: {error}");
            return None;
        }
    }
    Some(path)
}

fn stand_in() -> Option<(tempfile::TempDir, Arc<Nccl>)> {
    let folder = tempfile::tempdir().unwrap();
    let path = library(folder.path(), include_str!("stand_in.cpp"))?;
    let nccl = Nccl::open(&path).unwrap();
    Some((folder, nccl))
}

#[test]
fn a_missing_library_says_how_to_name_one() {
    let reason = Nccl::open(Path::new("no/such/libnccl.so.2")).err().unwrap();
    assert!(reason.starts_with("NCCL was not found"), "{reason}");
    assert!(reason.contains("no/such/libnccl.so.2"), "{reason}");
    assert!(reason.contains(VARIABLE), "{reason}");
}

#[test]
fn what_is_installed_is_loaded_and_what_is_not_is_told() {
    match Nccl::find() {
        Ok(nccl) => assert!(nccl.version().starts_with("2."), "{}", nccl.version()),
        // Who names one has one.
        Err(reason) => assert!(std::env::var_os(VARIABLE).is_none(), "{reason}"),
    }
}

#[test]
fn a_library_without_the_functions_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let source = "extern \"C\" int unrelated() { return 0; }";
    let Some(path) = library(folder.path(), source) else {
        return;
    };
    let reason = Nccl::open(&path).err().unwrap();
    assert!(reason.contains("ncclGetVersion"), "{reason}");
}

#[test]
fn versions_read_as_they_are_written() {
    assert_eq!(version_name(2804), "2.8.4");
    assert_eq!(version_name(21_200), "2.12.0");
    let Some((_folder, nccl)) = stand_in() else {
        return;
    };
    assert_eq!(nccl.version(), "2.28.9");
}

#[test]
fn arguments_arrive_where_nccl_expects_them() {
    let Some((_folder, nccl)) = stand_in() else {
        return;
    };
    let mut ranks = nccl.communicators(&[3, 1]).unwrap();
    let (send, mut receive) = ([1.5f32, -2.0], [0.0f32; 2]);
    let (from, to) = (send.as_ptr() as u64, receive.as_mut_ptr() as u64);
    for (rank, stream) in ranks.iter_mut().zip([3, 1]) {
        // SAFETY: the stand-in copies two f32 from one array to the other before it returns.
        unsafe { rank.all_reduce(from, to, 2, DType::F32, stream as *mut c_void) }.unwrap();
        assert_eq!(std::mem::take(&mut receive), send);
    }
}

#[test]
fn results_become_errors_with_nccls_own_words() {
    let Some((_folder, nccl)) = stand_in() else {
        return;
    };
    let failed = nccl.communicators(&[0, 0]).err().unwrap();
    let expected = "ncclCommInitAll failed (5): invalid usage";
    assert_eq!(failed.to_string(), expected);
    let mut ranks = nccl.communicators(&[1]).unwrap();
    // SAFETY: the stand-in refuses bf16 before it touches memory.
    let refused = unsafe { ranks[0].all_reduce(0, 0, 1, DType::Bf16, std::ptr::null_mut()) };
    assert_eq!(
        refused.unwrap_err().to_string(),
        "ncclAllReduce failed (4): something else"
    );
}
