//! The board of a group where its kernels reach it.

use super::memory::MappedHost;
use crate::board::Board;
use crate::{Error, Result};
use cudarc::driver::{sys, CudaContext};
use std::sync::Arc;

/// A board in host memory that kernels read and write.
#[derive(Debug)]
pub(super) enum Failures {
    /// Of ranks in this process.
    Threads(MappedHost<Board>),
    /// Of ranks in processes of their own.
    #[cfg(target_os = "linux")]
    Processes(super::join::RegisteredBoard),
}

impl Failures {
    /// For ranks in this process, on whichever devices; allocated in this context.
    pub(super) fn of_threads(context: &Arc<CudaContext>) -> Result<Self> {
        Ok(Failures::Threads(MappedHost::new(context)?))
    }

    /// The board as the host reads it.
    pub(super) fn board(&self) -> &Board {
        match self {
            Failures::Threads(board) => board.get(),
            #[cfg(target_os = "linux")]
            Failures::Processes(board) => board.board(),
        }
    }

    /// Where kernels find the abort word, with which the board begins.
    pub(super) fn abort_pointer(&self) -> sys::CUdeviceptr {
        match self {
            Failures::Threads(board) => board.device_pointer(),
            #[cfg(target_os = "linux")]
            Failures::Processes(board) => board.device_pointer(),
        }
    }

    /// Where the kernels of a rank find its timeout and write their report.
    pub(super) fn report_pointer(&self, rank: usize) -> sys::CUdeviceptr {
        self.abort_pointer() + Board::report_offset(rank) as u64
    }

    /// The group's first failure, as far as it has reached the host.
    pub(super) fn of_rank(&self, rank: usize, world: usize) -> Option<Error> {
        self.board().failure(rank, world)
    }
}
