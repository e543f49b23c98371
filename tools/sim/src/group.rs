//! Ranks whose "devices" are the CPU: arenas, control words and reports, as the CUDA back end makes them.

use crate::bindings::{
    TrellinkControl, TrellinkExchange, TrellinkOperation, TrellinkReport, TRELLINK_MAX_CTAS,
};
use crate::{Buffer, Fault};
use std::sync::Arc;
use std::time::Duration;
use trellink::protocol::{ArenaLayout, Epoch, Operation};
use trellink::Choices;

/// What a group is made of.
#[derive(Clone, Debug)]
pub struct SimGroup {
    /// Ranks.
    pub world: usize,
    /// As `trellink::Group::slot_values`.
    pub slot_values: usize,
    /// As `trellink::Group::first_epoch`.
    pub first_epoch: u32,
    /// As `trellink::Group::scrub_period`.
    pub scrub_period: u32,
    /// As `trellink::Group::timeout`.
    pub timeout: Duration,
    /// SMs of each rank.
    pub sms: usize,
    /// Shared memory of a CTA.
    pub max_shared_bytes: usize,
    /// As `trellink::plan::Machine::cluster_pairs`.
    pub cluster_pairs: usize,
    /// What is not left to the plan's model.
    pub choices: Choices,
    /// Whether launches that go straight take the kernels for one format, as they do on CUDA.
    pub straight: bool,
}

/// Which ranks a launch exchanges with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// All of the group.
    Group,
    /// Only the CTAs of the rank itself.
    Local,
}

/// What outlives the launches of a channel.
#[derive(Debug)]
struct Control {
    /// A `TrellinkControl`.
    words: Buffer,
    /// The epoch of the next call, for each CTA.
    epochs: Buffer,
}

/// One rank.
#[derive(Debug)]
pub struct SimRank {
    pub(crate) config: SimGroup,
    group: TrellinkExchange,
    local: TrellinkExchange,
    report: Arc<Vec<Buffer>>,
    rank: usize,
    pub(crate) faults: Vec<Fault>,
    pub(crate) straight_launches: usize,
    /// Pointed to by the exchanges.
    _memory: Vec<Arc<Vec<Buffer>>>,
    controls: [Control; 2],
}

impl SimGroup {
    /// Builds the ranks.
    ///
    /// # Panics
    /// If the configuration is not one that `trellink::Group` accepts.
    pub fn build(&self) -> Vec<SimRank> {
        let arena = |world| {
            let layout = ArenaLayout::new(world, self.slot_values).expect("a valid layout");
            let tag = Epoch::new(self.first_epoch).initial_tag().bits();
            Buffer::new(&vec![
                u64::from(tag) << 32 | u64::from(tag);
                layout.bytes() / 8
            ])
        };
        let arenas: Arc<Vec<Buffer>> =
            Arc::new((0..self.world).map(|_| arena(self.world)).collect());
        let locals: Arc<Vec<Buffer>> = Arc::new((0..self.world).map(|_| arena(1)).collect());
        let report = |_| {
            Buffer::new(&[TrellinkReport {
                timeout_ns: self.timeout.as_nanos() as u64,
                ..Default::default()
            }])
        };
        let reports: Arc<Vec<Buffer>> = Arc::new((0..self.world).map(report).collect());
        let abort = Arc::new(vec![Buffer::new(&[0u32])]);
        let build = |rank: usize| {
            let controls = [self.control(), self.control()];
            let exchange = |arenas: &[Buffer], rank_in: usize, control: &Control| {
                let mut exchange = TrellinkExchange {
                    control: control.words.pointer(),
                    epochs: control.epochs.pointer(),
                    report: reports[rank].pointer(),
                    abort: abort[0].pointer(),
                    slot_packets: self.slot_values as u64,
                    rank: rank_in as u32,
                    world: arenas.len() as u32,
                    ..Default::default()
                };
                for (pointer, arena) in exchange.arena.iter_mut().zip(arenas) {
                    *pointer = arena.pointer();
                }
                let layout =
                    ArenaLayout::new(arenas.len(), self.slot_values).expect("a valid layout");
                exchange.stop = exchange.arena[rank_in] + layout.stop_offset() as u64;
                exchange
            };
            SimRank {
                config: self.clone(),
                group: exchange(&arenas, rank, &controls[0]),
                local: exchange(&locals[rank..=rank], 0, &controls[1]),
                report: reports.clone(),
                rank,
                faults: Vec::new(),
                straight_launches: 0,
                _memory: vec![arenas.clone(), locals.clone(), abort.clone()],
                controls,
            }
        };
        (0..self.world).map(build).collect()
    }

    fn control(&self) -> Control {
        Control {
            words: Buffer::new(&[TrellinkControl {
                scrub_mask: self.scrub_period - 1,
                ..Default::default()
            }]),
            epochs: Buffer::new(&[self.first_epoch; TRELLINK_MAX_CTAS as usize]),
        }
    }
}

impl SimRank {
    /// What a launch of a call of this operation gets.
    pub(crate) fn exchange(&self, channel: Channel, operation: Operation) -> TrellinkExchange {
        let words = operation.to_words();
        TrellinkExchange {
            operation: TrellinkOperation {
                tag: words.tag,
                form: words.form,
                rows: words.rows,
                layer: words.layer,
                columns: words.columns,
            },
            ..match channel {
                Channel::Group => self.group,
                Channel::Local => self.local,
            }
        }
    }

    /// Makes this rank's kernels have these faults.
    pub fn set_faults(&mut self, faults: &[Fault]) {
        self.faults = faults.to_vec();
    }

    /// Makes the waits of this rank end after another time, as `trellink::Rank::set_timeout` does.
    pub fn set_timeout(&mut self, timeout: Duration) {
        let report = &self.report[self.rank];
        report.write(&[TrellinkReport {
            timeout_ns: timeout.as_nanos() as u64,
            ..report.read::<TrellinkReport>()[0]
        }]);
    }

    /// Gives this rank another number of SMs than the rest of the group.
    pub fn set_sms(&mut self, sms: usize) {
        self.config.sms = sms;
    }

    /// How many launches have taken a kernel for one format.
    pub fn straight_launches(&self) -> usize {
        self.straight_launches
    }

    /// The epoch of the next call on a channel, and the sticky failure state (0: none).
    ///
    /// # Panics
    /// If the CTAs do not agree on the epoch.
    pub fn control(&self, channel: Channel) -> (u32, u32) {
        let control = &self.controls[channel as usize];
        let epochs = control.epochs.read::<u32>();
        assert!(epochs.iter().all(|&epoch| epoch == epochs[0]), "{epochs:?}");
        (epochs[0], control.words.read::<TrellinkControl>()[0].failed)
    }

    /// Moves the epoch of the next call on, as if so many calls had been made.
    pub fn skip(&mut self, channel: Channel, calls: u32) {
        let epoch = self.control(channel).0.wrapping_add(calls);
        let epochs = &self.controls[channel as usize].epochs;
        epochs.write(&[epoch; TRELLINK_MAX_CTAS as usize]);
    }

    /// This rank's report: state (0: none), the peer waited for, the epoch, the tag found.
    pub fn report(&self) -> (u32, u32, u32, u32) {
        let report = self.report[self.rank].read::<TrellinkReport>()[0];
        (report.state, report.peer, report.epoch, report.found)
    }

    /// The tile that the report names, and the rows of the call.
    pub fn reported_place(&self) -> (u32, u32) {
        let report = self.report[self.rank].read::<TrellinkReport>()[0];
        (report.tile, report.operation.rows)
    }
}
