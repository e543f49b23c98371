//! A group of ranks that hold one model between them.

use crate::plan::Tuning;
use crate::protocol::{Epoch, MAX_SCRUB_PERIOD, SCRUB_PERIOD};
use crate::{Error, ExchangePath, Rank, Result, MAX_WORLD};
use std::time::Duration;

/// Where a rank runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Device {
    /// The CPU: the calling thread, helped by as many others as there are cores to share.
    Host,
    /// A CUDA device, by the driver's ordinal.
    Cuda(usize),
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Host => f.write_str("host"),
            Device::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// What [`Group::build`] and [`Group::join`] need to know; every field has a default.
#[derive(Clone, Debug)]
pub struct Group {
    pub(crate) devices: Vec<Device>,
    pub(crate) slot_values: usize,
    pub(crate) timeout: Duration,
    pub(crate) first_epoch: Epoch,
    pub(crate) scrub_period: u32,
    pub(crate) path: ExchangePath,
    pub(crate) probe_links: bool,
    pub(crate) tuning: Tuning,
}

impl Group {
    /// A group with one rank on each of these devices, in rank order. A device may occur several
    /// times: its ranks then share its SMs evenly.
    ///
    /// **What waits for a device.** A call that is enqueued on a GPU waits there for the calls of the other
    /// ranks. Dropping a layer or a rank, [`Rank::reset`], allocating and freeing memory and synchronising a
    /// context wait for all that is enqueued on a device. So a thread that serves several ranks does none of
    /// that while some of them have called and others not yet: it would wait for calls that it has yet to make,
    /// until the [timeout](Self::timeout), which fails the group. Where ranks share a GPU nobody does it then,
    /// whichever the thread.
    ///
    /// **Ranks that share a GPU** wait for each other inside kernels, so their streams must be able to run at
    /// the same time. Streams share hardware queues if there are more of them than queues, and then may block
    /// each other until the timeout. Each rank has a stream of its own beside those of its calls, and there are
    /// 8 queues by default: for more than 4 ranks a device set `CUDA_DEVICE_MAX_CONNECTIONS` to 32 before the
    /// driver starts. A rank that is held up so is not taken for one that has not called, see
    /// [`Error::PeerTimeout`].
    pub fn new(devices: impl IntoIterator<Item = Device>) -> Self {
        Group {
            devices: devices.into_iter().collect(),
            slot_values: 64 * 8192,
            timeout: Duration::from_secs(5),
            first_epoch: Epoch::new(1),
            scrub_period: SCRUB_PERIOD,
            path: ExchangePath::Auto,
            probe_links: true,
            tuning: Tuning::default(),
        }
    }

    /// A group of `world` ranks on the host.
    pub fn on_host(world: usize) -> Self {
        Group::new(std::iter::repeat_n(Device::Host, world))
    }

    /// The number of ranks.
    pub fn world(&self) -> usize {
        self.devices.len()
    }

    /// Values (f32) that one rank can send in one exchange, 1 to 2^28; larger outputs take several. Rounded
    /// up to a multiple of 128. Default: 64 rows of 8192 columns.
    ///
    /// Each rank's arena takes `2 · world · slot_values · 8` bytes. On a GPU a rank has another one of
    /// `2 · slot_values · 8` for the exchange among its own CTAs, and for each of the two a workspace of 17 MB;
    /// in a world of one it has this other one alone. With the default that is 59 MB a rank for a world of two
    /// and 110 MB for one of eight, all in the device's memory but for the arenas of
    /// [`ExchangePath::HostMemory`].
    #[must_use]
    pub fn slot_values(mut self, values: usize) -> Self {
        self.slot_values = values;
        self
    }

    /// How long a rank waits for its peers' packets before it declares the group failed.
    /// Default: 5 s. [`Rank::set_timeout`] changes it later.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Which way packets take between GPUs. Default: [`ExchangePath::Auto`]. On the host it makes no
    /// difference.
    #[must_use]
    pub fn path(mut self, path: ExchangePath) -> Self {
        self.path = path;
        self
    }

    /// Whether the way between every two different GPUs is tried before the group is used: that stores and
    /// loads of kernels get there, that 128 bits arrive whole, and that data is there when a flag behind it
    /// is, in 2048 rounds. A way that fails is not used; one that loses what is sent is found out within
    /// two seconds, in which every GPU must have room for one small kernel. Default: yes. It costs some
    /// milliseconds for each pair, once; without it a link that lies shows in timeouts or, at worst, in
    /// wrong sums.
    #[must_use]
    pub fn probe_links(mut self, probe: bool) -> Self {
        self.probe_links = probe;
        self
    }

    /// Measured choices for the shapes of launches on the devices that the table names; for all others a model of
    /// the machine chooses. Default: none. Ranks may have different ones. On the host it makes no difference.
    #[must_use]
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = tuning;
        self
    }

    /// The number of the first exchange, modulo 2^32. Only of use to test wrap-around.
    #[must_use]
    pub fn first_epoch(mut self, epoch: u32) -> Self {
        self.first_epoch = Epoch::new(epoch);
        self
    }

    /// Calls between two renewals of an arena's tags, a power of two from 2 to 2^13. Only of use to
    /// test the renewal.
    #[must_use]
    pub fn scrub_period(mut self, period: u32) -> Self {
        self.scrub_period = period;
        self
    }

    /// Builds the ranks, in rank order: allocates and connects their arenas, loads the kernels.
    ///
    /// Each [`Rank`] is then moved to the thread that runs it. All devices are of one kind. Devices
    /// without peer access exchange through host memory, unless [`path`](Self::path) forbids it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a world of 0 or more than [`MAX_WORLD`] ranks, mixed kinds,
    /// a slot of 0 values or a scrub period that is no power of two;
    /// [`Error::CudaUnavailable`] if CUDA is asked for and there is no driver, device, kernel or
    /// the crate was built without it; [`Error::PeerAccess`] and [`Error::LinkProbe`] where no
    /// [path](Self::path) that is allowed works; [`Error::Cuda`].
    pub fn build(self) -> Result<Vec<Rank>> {
        crate::trace::span!(
            info_span,
            "Group::build",
            world = self.devices.len(),
            slot_values = self.slot_values
        );
        let group = self.checked()?;
        if group.on_the_host() {
            return crate::host::build_group(&group);
        }
        #[cfg(feature = "cuda")]
        {
            crate::cuda::build_group(&group)
        }
        #[cfg(not(feature = "cuda"))]
        Err(without_cuda())
    }

    /// Builds one rank of a group whose ranks are in different processes: each process calls this
    /// with a rank of its own, and it returns when all are connected. Everything afterwards is as
    /// with [`build`](Self::build): the same layers, the same calls, the same bits.
    ///
    /// All processes describe the group alike: as many devices, all on CUDA or all on the host,
    /// and the same [`slot_values`](Self::slot_values), [`path`](Self::path),
    /// [`probe_links`](Self::probe_links), first epoch and scrub period. Of the
    /// devices each process uses the one of its rank; ordinals are its own, and may differ between
    /// processes as long as each sees the devices of all.
    /// Ranks of different processes on one GPU take turns by the driver's time slices: right, but
    /// slow. Device and host memory belong to the process; ranks share nothing but the exchange.
    ///
    /// A process that ends without dropping its rank is noticed at once: waits of the others end,
    /// also those of kernels in flight, and their calls give [`Error::PeerLost`]. A thread of each
    /// rank sees to that; it sleeps otherwise. Dropping a rank is a farewell and no failure.
    ///
    /// Only on Linux.
    ///
    /// ```
    /// use trellink::{Group, Rendezvous};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("trellink");
    /// // In every process, with its own number. Here two threads stand for them.
    /// let join = |number| Group::on_host(2).join(number, &Rendezvous::directory(&path));
    /// std::thread::scope(|scope| {
    ///     let other = scope.spawn(|| join(1));
    ///     let rank = join(0)?;
    ///     assert_eq!((rank.rank(), rank.world()), (0, 2));
    ///     other.join().expect("no panic").map(drop)
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`build`](Self::build);
    /// [`Error::InvalidArgument`] for a rank beyond the devices;
    /// [`Error::RanksMissing`] when the [rendezvous's deadline](crate::Rendezvous::timeout) has
    /// passed, with the ranks that did not come;
    /// [`Error::SettingsDiffer`] if two processes describe the group differently;
    /// [`Error::PeerLost`] if a process that was there ends meanwhile;
    /// [`Error::Rendezvous`] if another process has this rank or another rank has given up;
    /// [`Error::Io`] and [`Error::InvalidFile`] for the rendezvous's directory. No rank of a group
    /// is left waiting by an error of another.
    #[cfg(target_os = "linux")]
    pub fn join(self, rank: usize, rendezvous: &crate::Rendezvous) -> Result<Rank> {
        crate::trace::span!(
            info_span,
            "Group::join",
            rank,
            world = self.devices.len(),
            slot_values = self.slot_values
        );
        let group = self.checked()?;
        let world = group.devices.len();
        if rank >= world {
            let expected = format!("a rank below {world}, one per device");
            return Err(Error::argument("rank", rank.to_string(), expected));
        }
        if world == 1 {
            return group.build().map(|mut ranks| ranks.remove(0));
        }
        let met = rendezvous.meet(group.hello(rank)?)?;
        let joined = group.connect(&met.links);
        if let Err(error) = &joined {
            met.links.give_up(error);
        }
        joined
    }

    /// What `rank` says of itself to the others.
    #[cfg(target_os = "linux")]
    fn hello(&self, rank: usize) -> Result<crate::rendezvous::message::Hello> {
        use crate::rendezvous::message::{DeviceKind, Hello};
        let (kind, device) = match self.devices[rank] {
            Device::Host => (DeviceKind::Host, [0; 16]),
            #[cfg(feature = "cuda")]
            Device::Cuda(ordinal) => (DeviceKind::Cuda, crate::cuda::prepare(ordinal)?),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(_) => return Err(without_cuda()),
        };
        Ok(Hello {
            rank: rank as u8,
            world: self.devices.len() as u8,
            kind,
            device,
            slot_values: self.slot_values as u64,
            first_epoch: self.first_epoch.get(),
            scrub_period: self.scrub_period,
            path: self.path,
            probe_links: self.probe_links,
        })
    }

    /// The rank, once all have met.
    #[cfg(target_os = "linux")]
    fn connect(&self, links: &std::sync::Arc<crate::rendezvous::Links>) -> Result<Rank> {
        #[cfg(feature = "cuda")]
        if !self.on_the_host() {
            return crate::cuda::join_group(self, links);
        }
        crate::host::join_group(self, links)
    }

    fn on_the_host(&self) -> bool {
        self.devices.iter().all(|d| *d == Device::Host)
    }

    /// The same group with its slots rounded up, if it can be.
    fn checked(mut self) -> Result<Self> {
        self.check()?;
        self.slot_values = self.slot_values.next_multiple_of(crate::format::GROUP);
        Ok(self)
    }

    fn check(&self) -> Result<()> {
        let world = self.devices.len();
        if world == 0 || world > MAX_WORLD {
            let expected = format!("1 to {MAX_WORLD} devices, one per rank");
            return Err(Error::argument("devices", format!("{world}"), expected));
        }
        let on_host = self.devices.iter().filter(|d| **d == Device::Host).count();
        if on_host != 0 && on_host != world {
            return Err(Error::argument(
                "devices",
                format!(
                    "{on_host} ranks on the host and {} on CUDA",
                    world - on_host
                ),
                "ranks of one kind",
            ));
        }
        if self.slot_values == 0 || self.slot_values > 1 << 28 {
            let found = self.slot_values.to_string();
            return Err(Error::argument("slot_values", found, "1 to 2^28"));
        }
        let periods = 2..=MAX_SCRUB_PERIOD;
        if !self.scrub_period.is_power_of_two() || !periods.contains(&self.scrub_period) {
            let found = self.scrub_period.to_string();
            return Err(Error::argument(
                "scrub_period",
                found,
                "a power of two from 2 to 2^13",
            ));
        }
        Ok(())
    }
}

#[cfg(not(feature = "cuda"))]
fn without_cuda() -> Error {
    Error::CudaUnavailable {
        reason: "the crate was built without the `cuda` feature; rebuild with \
                 `--features cuda`, or use Device::Host"
            .into(),
    }
}
