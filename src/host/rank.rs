//! A rank on the host: its calls, and the group that it belongs to.
//!
//! What must stay true: in every exchange a rank pushes all its values before it collects any, also
//! if its shard is empty, and every rank makes the same exchanges for the same call.

use super::arena::HostArena;
use super::failure::GroupState;
use super::finish::{gated, transform, write};
use super::kernels::Kernels;
use super::layer::{HostLinear, Sums};
use super::norm::{leave_squares, normalise, row_scales};
use crate::board::Board;
use crate::call::{check_whole_rows, Columns, Input, Output};
use crate::format::TILE;
use crate::protocol::{messages, ArenaLayout, BoundedWait, Endpoint, Message, SharedArena};
use crate::protocol::{Operation, WaitFailure};
use crate::rank::Backend;
#[cfg(target_os = "linux")]
use crate::rendezvous::{Links, SharedMemory, Watch};
use crate::{Group, Rank, Result};
#[cfg(target_os = "linux")]
use std::os::fd::AsFd;
use std::sync::Arc;

/// One rank of a group on the host.
#[derive(Debug)]
pub(crate) struct HostRank {
    pub(super) endpoint: Endpoint<HostArena>,
    pub(super) group: GroupState,
    kernels: &'static Kernels,
    /// This rank's share of the processors.
    threads: usize,
    /// The values of one exchange, kept from call to call.
    pub(super) message: Vec<f32>,
    /// On the processes of the other ranks, if they have their own.
    #[cfg(target_os = "linux")]
    _watch: Option<Watch>,
}

/// The ranks of a group whose devices are all the host.
pub(crate) fn build_group(group: &Group) -> Result<Vec<Rank>> {
    let world = group.devices.len();
    let layout = ArenaLayout::new(world, group.slot_values)?;
    let arenas: Vec<HostArena> = (0..world)
        .map(|_| HostArena::Threads(SharedArena::new(&layout, group.first_epoch)))
        .collect();
    let board = Arc::new(Board::default());
    let build = |rank| {
        let endpoint = Endpoint::new(rank, layout, arenas.clone(), group.first_epoch)?;
        let state = GroupState::new(rank, board.clone(), group);
        Ok(HostRank::new(group, endpoint, state).into_rank(group))
    };
    (0..world).map(build).collect()
}

/// The rank of this process in a group whose devices are all the host.
#[cfg(target_os = "linux")]
pub(crate) fn join_group(group: &Group, links: &Arc<Links>) -> Result<Rank> {
    let (rank, world) = (links.rank(), links.world());
    let layout = ArenaLayout::new(world, group.slot_values)?;
    let board = links.share_board()?;
    // Full of stale tags before anybody else sees it.
    let (memory, handle) = SharedMemory::new("trellink-arena", layout.bytes())?;
    let own = HostArena::fresh(memory, group.first_epoch);
    links.share_arena(layout.bytes(), handle.as_fd())?;
    let mut arenas = Vec::new();
    for peer in 0..world {
        arenas.push(if peer == rank {
            own.clone()
        } else {
            let (handle, _) = links.receive_arena(peer)?;
            HostArena::Processes(Arc::new(SharedMemory::open(handle, layout.bytes())?))
        });
    }
    let endpoint = Endpoint::new(rank, layout, arenas, group.first_epoch)?;
    let state = GroupState::new(rank, board.clone(), group);
    let mut host = HostRank::new(group, endpoint, state);
    links.ready()?;
    host._watch = Some(Watch::start(links.clone(), board)?);
    Ok(host.into_rank(group))
}

impl HostRank {
    fn new(group: &Group, endpoint: Endpoint<HostArena>, state: GroupState) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let world = endpoint.layout().world();
        HostRank {
            endpoint: endpoint.with_scrub_period(group.scrub_period),
            group: state,
            kernels: Kernels::best(),
            threads: (processors / world).max(1),
            message: Vec::new(),
            #[cfg(target_os = "linux")]
            _watch: None,
        }
    }

    fn into_rank(self, group: &Group) -> Rank {
        let rank = self.endpoint.rank();
        Rank {
            rank,
            world: group.devices.len(),
            device: group.devices[rank],
            backend: Backend::Host(self),
        }
    }

    /// The first failure of the group, if there was one.
    pub(crate) fn check(&self) -> Result<()> {
        self.group.check()
    }

    /// Values that one rank can send in one exchange.
    pub(crate) fn slot_values(&self) -> usize {
        self.endpoint.layout().slot_values()
    }

    /// Where the group's failures and deadlines are.
    pub(crate) fn board(&self) -> &Board {
        self.group.board()
    }

    /// This rank's part of a reset of the group.
    pub(crate) fn reset(&mut self) -> Result<()> {
        let group = self.group.clone();
        let (rank, world) = (self.endpoint.rank(), self.endpoint.layout().world());
        let epoch = self.endpoint.epoch();
        group.board().reset(rank, world, epoch, |first| {
            self.endpoint.restart(first);
            Ok(())
        })
    }

    /// One call of a row-parallel layer, `operation`; every rank of the group makes it. `input` is
    /// [rows, layer.k()], `output` [rows, layer.n()]: the caller has checked.
    ///
    /// # Errors
    /// The group's first failure; [`InvalidArgument`](crate::Error::InvalidArgument) for device memory.
    pub(crate) fn row_parallel(
        &mut self,
        layer: &HostLinear,
        operation: Operation,
        input: &Input<'_>,
        output: &mut Output<'_>,
    ) -> Result<()> {
        self.group.check()?;
        input.require_host()?;
        output.require_host()?;
        let slot_values = self.slot_values();
        if output.norm.is_some() {
            check_whole_rows("an RMSNorm", layer.n(), slot_values)?;
        }
        let rows = operation.rows as usize;
        let sums = layer.partial(self.kernels, self.threads, input, rows);
        for message in messages(rows, layer.n(), slot_values) {
            self.exchange(operation, &sums, &message)?;
            for row in message.rows.clone() {
                let first_column = message.columns.start;
                let start = message.value(row, first_column);
                let summed = &mut self.message[start..start + message.columns.len()];
                transform(layer, first_column, 1.0, summed);
                write(output, row * layer.n() + first_column, summed);
                leave_squares(output, row, message.columns.clone(), layer.n());
                normalise(output, row, layer.n());
            }
        }
        Ok(())
    }

    /// One call of column-parallel layers that share their input [rows, K]; no other rank takes part.
    /// Output i is [rows, layers[i].n()]; a gate has a layer and its output to itself: the caller has checked.
    ///
    /// # Errors
    /// As [`row_parallel`](Self::row_parallel).
    pub(crate) fn column_parallel(
        &mut self,
        layers: &[HostLinear],
        input: &Input<'_>,
        rows: usize,
        columns: Columns<'_, '_>,
    ) -> Result<()> {
        self.group.check()?;
        input.require_host()?;
        match columns {
            Columns::Each(outputs) => {
                outputs.iter().try_for_each(Output::require_host)?;
                for (layer, output) in layers.iter().zip(outputs) {
                    self.each_row(layer, input, rows, |row, values| {
                        write(output, row * layer.n(), values);
                    });
                }
            }
            Columns::Gated(output) => {
                output.require_host()?;
                let (gate, up) = (&layers[0], &layers[1]);
                // As on a GPU, where what is gated must be exchanged together.
                check_whole_rows("SwiGLU", 2 * gate.n(), self.slot_values())?;
                let mut ups = Vec::with_capacity(rows * up.n());
                self.each_row(up, input, rows, |_, values| ups.extend_from_slice(values));
                self.each_row(gate, input, rows, |row, values| {
                    let start = row * gate.n();
                    for (value, up) in values.iter_mut().zip(&ups[start..]) {
                        *value = gated(*value, *up);
                    }
                    write(output, start, values);
                });
            }
        }
        Ok(())
    }

    /// Passes on each row that a layer makes of its input, in order.
    fn each_row(
        &self,
        layer: &HostLinear,
        input: &Input<'_>,
        rows: usize,
        mut pass: impl FnMut(usize, &mut [f32]),
    ) {
        let scales = row_scales(input, rows, layer.k());
        let sums = layer.partial(self.kernels, self.threads, input, rows);
        let mut values = vec![0.0; layer.n()];
        for (row, scale) in scales.into_iter().enumerate() {
            for (strip, values) in values.chunks_exact_mut(TILE).enumerate() {
                values.copy_from_slice(sums.strip(row, strip));
            }
            transform(layer, 0, scale, &mut values);
            pass(row, &mut values);
        }
    }

    /// Sends this rank's values of a message and leaves the sums over all ranks in `self.message`.
    fn exchange(&mut self, operation: Operation, sums: &Sums, message: &Message) -> Result<()> {
        self.endpoint.begin(operation.digest());
        for row in message.rows.clone() {
            for column in message.columns.clone().step_by(TILE) {
                let values = sums.strip(row, column / TILE);
                self.endpoint.push(message.value(row, column), values);
            }
        }
        self.collect(operation, message.values())
    }

    /// Ends an exchange in which everything has been pushed: leaves the sums over all ranks of so many
    /// values in `self.message`.
    pub(super) fn collect(&mut self, operation: Operation, values: usize) -> Result<()> {
        self.message.clear();
        self.message.resize(values, 0.0);
        let board = self.group.board();
        let wait = BoundedWait::new(board.timeout(self.endpoint.rank()), board.abort());
        let collected = self.endpoint.collect(0, &mut self.message, &wait);
        let failed =
            |reason: WaitFailure| self.group.fail(self.endpoint.epoch(), operation, reason);
        collected.map_err(failed)?;
        self.endpoint.advance();
        Ok(())
    }
}
