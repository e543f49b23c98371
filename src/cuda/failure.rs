//! Where the kernels of a group write that it has failed, and how the host reads it.

use super::memory::MappedHost;
use crate::board::{self, Failure};
use crate::ffi::{TrellinkReport, TRELLINK_STATE_OK};
use crate::{Error, Result};
use cudarc::driver::{sys, CudaContext};
use std::sync::Arc;
use std::time::Duration;

/// The abort word and the reports of all ranks, in host memory that kernels reach.
#[derive(Debug)]
pub(super) enum Failures {
    /// Of ranks in this process.
    Threads {
        /// Not 0 once any rank has failed.
        abort: MappedHost<u32>,
        /// By rank.
        reports: Vec<MappedHost<TrellinkReport>>,
    },
    /// Of ranks in processes of their own.
    #[cfg(target_os = "linux")]
    Processes(super::join::RegisteredBoard),
}

impl Failures {
    /// For ranks in this process, with these contexts.
    pub(super) fn of_threads(contexts: &[Arc<CudaContext>]) -> Result<Self> {
        let reports = contexts.iter().map(MappedHost::new);
        Ok(Failures::Threads {
            abort: MappedHost::new(&contexts[0])?,
            reports: reports.collect::<Result<_>>()?,
        })
    }

    /// Where kernels find the abort word.
    pub(super) fn abort_pointer(&self) -> sys::CUdeviceptr {
        match self {
            Failures::Threads { abort, .. } => abort.device_pointer(),
            #[cfg(target_os = "linux")]
            Failures::Processes(board) => board.device_pointer(),
        }
    }

    /// Where the kernels of a rank write their report.
    pub(super) fn report_pointer(&self, rank: usize) -> sys::CUdeviceptr {
        match self {
            Failures::Threads { reports, .. } => reports[rank].device_pointer(),
            #[cfg(target_os = "linux")]
            Failures::Processes(board) => {
                board.device_pointer() + board::Board::report_offset(rank) as u64
            }
        }
    }

    /// A failure of the group that has reached the host, this rank's own before others.
    pub(super) fn of_rank(&self, rank: usize) -> Option<Error> {
        let ranks = std::iter::once(rank).chain(0..crate::MAX_WORLD);
        match self {
            Failures::Threads { reports, .. } => {
                let mut found = ranks.filter_map(|rank| failure(&reports.get(rank)?.read()));
                found.next().map(Failure::into_error)
            }
            #[cfg(target_os = "linux")]
            Failures::Processes(board) => {
                let board = board.board();
                // Kernels that a loss stops write no report, so a report came before.
                let reported = ranks.filter_map(|rank| board.report(rank)).next();
                let reported = reported.map(Failure::into_error);
                board.failure(rank).or(reported)
            }
        }
    }
}

/// What a kernel's report says.
fn failure(report: &TrellinkReport) -> Option<Failure> {
    (report.state != TRELLINK_STATE_OK).then(|| Failure {
        state: report.state,
        rank: report.rank as usize,
        peer: report.peer as usize,
        epoch: report.epoch,
        found: report.found,
        waited: Duration::from_nanos(report.waited_ns),
    })
}
