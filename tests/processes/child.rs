//! The processes that tests start, and what they do.

use crate::common::*;
use crate::job::Job;
use crate::possessions::Possessions;
use crate::strangers;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use trellink::{Error, ExchangePath, Group, Rank, Rendezvous};

const ROLE: &str = "TRELLINK_CHILD";

/// What a child does once it has joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Runs a job and tells its bits.
    Compute,
    /// Calls until a call fails, and tells how.
    CallForever,
    /// Fails, resets, runs a job and tells the bits of its sums; then resets again, but for the last, which waits.
    Reset,
    /// Joins and waits for ever.
    Idle,
    /// Says hello to rank 0 as rank 1 of 3, is let in, and waits for ever.
    SayHello,
    /// Joins and leaves many times over, and tells what it has leaked.
    JoinAndLeave,
    /// Does what it is ordered to: joins, replays, loses its peer, and again.
    Survive,
    /// Prepares, and when it is told to joins and replays until it is killed.
    Die,
}

const ROLES: [Role; 8] = [
    Role::Compute,
    Role::CallForever,
    Role::Reset,
    Role::Idle,
    Role::SayHello,
    Role::JoinAndLeave,
    Role::Survive,
    Role::Die,
];

/// The ranks of one group, each a process; its number is its rank unless it is given another.
pub struct Children {
    folder: tempfile::TempDir,
    on_host: bool,
    world: usize,
    path: ExchangePath,
    processes: Vec<Option<Child>>,
}

impl Children {
    /// No process yet.
    pub fn new(platform: &Platform, world: usize) -> Self {
        Children {
            folder: tempfile::tempdir().unwrap(),
            on_host: platform.is_host(),
            world,
            path: platform.path(),
            processes: (0..world).map(|_| None).collect(),
        }
    }

    /// Processes whose packets are to take this path.
    pub fn by(mut self, path: ExchangePath) -> Self {
        self.path = path;
        self
    }

    /// All processes.
    pub fn start_all(mut self, role: Role) -> Self {
        (0..self.world).for_each(|rank| self.spawn(rank, role));
        self
    }

    /// The same of a new group.
    pub fn start(platform: &Platform, world: usize, role: Role) -> Self {
        Children::new(platform, world).start_all(role)
    }

    /// Where they meet.
    pub fn meeting(&self) -> PathBuf {
        self.folder.path().join("meeting")
    }

    pub fn spawn(&mut self, rank: usize, role: Role) {
        self.spawn_as(rank, rank, role);
    }

    /// A process of this number, for where one rank is several processes, one after another.
    pub fn spawn_as(&mut self, number: usize, rank: usize, role: Role) {
        let platform = if self.on_host { "host" } else { "cuda" };
        let (world, path) = (self.world, self.path);
        let told = format!("{role:?} {platform} {rank} {world} {path} {number}");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["child::runs_if_it_is_told_to", "--exact", "--nocapture"])
            .env(ROLE, told)
            .env("TRELLINK_CHILD_FOLDER", self.folder.path())
            .stdout(std::process::Stdio::null())
            .spawn();
        if self.processes.len() <= number {
            self.processes.resize_with(number + 1, || None);
        }
        self.processes[number] = Some(child.unwrap());
    }

    /// Writes something for a child.
    pub fn tell(&self, number: usize, what: &str, text: &str) {
        tell(self.folder.path(), number, what, text);
    }

    /// Waits for what a child writes.
    pub fn told(&mut self, number: usize, what: &str) -> String {
        let mut child = self.processes[number].as_mut();
        let mut ended = || child.as_mut().and_then(|child| child.try_wait().unwrap());
        hear(self.folder.path(), number, what, &mut ended)
    }

    /// Kills a child, as a shortage of memory would; when that was.
    pub fn kill(&mut self, number: usize) -> Duration {
        let mut child = self.processes[number].take().unwrap();
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "process {number} has ended"
        );
        let now = uptime();
        child.kill().unwrap();
        child.wait().unwrap();
        now
    }

    /// Waits for the end of a child, which must be a good one.
    pub fn ends_well(&mut self, number: usize) {
        let mut child = self.processes[number].take().unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "process {number}: {status}");
                return;
            }
            if started.elapsed() > LIMIT {
                let _ = child.kill();
                panic!("process {number} does not end");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Far more than anything takes here.
const LIMIT: Duration = Duration::from_secs(120);

impl Drop for Children {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn file(folder: &Path, number: usize, what: &str) -> PathBuf {
    folder.join(format!("{what}-{number}"))
}

/// Writes what a child says or is told, in one step, so that the reader sees all of it.
fn tell(folder: &Path, number: usize, what: &str, text: &str) {
    let path = file(folder, number, what);
    let part = path.with_extension("part");
    std::fs::write(&part, text).unwrap();
    std::fs::rename(part, path).unwrap();
}

/// Waits for what the other side writes, which must not have `ended` before.
fn hear(
    folder: &Path,
    number: usize,
    what: &str,
    ended: &mut dyn FnMut() -> Option<ExitStatus>,
) -> String {
    let path = file(folder, number, what);
    let started = Instant::now();
    loop {
        let status = ended();
        // After the question, so that last words are heard.
        if let Ok(text) = std::fs::read_to_string(&path) {
            return text;
        }
        if let Some(status) = status {
            panic!("process {number} ended before its {what} came: {status}");
        }
        let waited = started.elapsed();
        assert!(waited < LIMIT, "process {number}: no {what} in {waited:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Nothing in a run of the tests; in a process that one of them has started, a rank.
#[test]
fn runs_if_it_is_told_to() {
    let Ok(told) = std::env::var(ROLE) else {
        return;
    };
    let words: Vec<&str> = told.split(' ').collect();
    let role = ROLES
        .into_iter()
        .find(|role| format!("{role:?}") == words[0]);
    let (role, rank) = (role.unwrap(), words[2].parse().unwrap());
    let platform = match words[1] {
        "host" => Platform::host(),
        #[cfg(feature = "cuda")]
        "cuda" if role == Role::Survive => Platform::cuda("a survivor").expect("as the parent has"),
        #[cfg(feature = "cuda")]
        "cuda" => Platform::cuda_of_rank(rank),
        other => panic!("a platform {other}"),
    };
    let this = This {
        folder: std::env::var_os("TRELLINK_CHILD_FOLDER").unwrap().into(),
        rank,
        world: words[3].parse().unwrap(),
        path: words[4].parse().unwrap(),
        number: words[5].parse().unwrap(),
        platform,
    };
    let lives_as_long_as_the_test = role == Role::Survive;
    let limit = LIMIT * if lives_as_long_as_the_test { 10 } else { 1 };
    let _watchdog = Watchdog::new("a child", limit);
    match role {
        Role::Compute => this.compute(),
        Role::CallForever => this.call_forever(),
        Role::Reset => this.reset(),
        Role::Idle => this.idle(),
        Role::SayHello => this.say_hello(),
        Role::JoinAndLeave => this.join_and_leave(),
        Role::Survive => this.survive(),
        Role::Die => this.die(),
    }
}

/// The process that this is.
pub struct This {
    folder: PathBuf,
    rank: usize,
    world: usize,
    path: ExchangePath,
    number: usize,
    pub platform: Platform,
}

impl This {
    fn join(&self) -> Rank {
        self.join_as(self.rank)
    }

    pub fn join_as(&self, rank: usize) -> Rank {
        let rendezvous = Rendezvous::directory(self.folder.join("meeting"));
        self.group().join(rank, &rendezvous).unwrap()
    }

    fn group(&self) -> Group {
        self.platform.group(self.world).path(self.path)
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    pub fn tell(&self, what: &str, text: &str) {
        tell(&self.folder, self.number, what, text);
    }

    /// Waits for what this process is told.
    pub fn hear(&self, what: &str) -> String {
        hear(&self.folder, self.number, what, &mut || None)
    }

    fn compute(&self) {
        let mut rank = self.join();
        let memory = self.platform.memory(&rank);
        let mut job = Job::new(&rank, &*memory);
        job.run(&mut rank, &*memory).unwrap();
        memory.synchronize();
        rank.check().unwrap();
        let bits: Vec<String> = job.bits().iter().map(u32::to_string).collect();
        self.tell("path", rank.path().name());
        self.tell("bits", &bits.join(" "));
    }

    fn call_forever(&self) {
        let mut rank = self.join();
        let memory = self.platform.memory(&rank);
        let mut job = Job::new(&rank, &*memory);
        let mut call = || {
            job.call(&mut rank, &*memory)?;
            memory.synchronize();
            rank.check()
        };
        for calls in 0.. {
            if calls == 3 {
                self.tell("started", "");
            }
            if let Err(error) = call() {
                let when = uptime();
                check_that_it_stays_so(call);
                self.tell("failure", &failure(&error, when));
                return;
            }
        }
    }

    /// A stall of the last rank, a reset of all, and the job; then the last rank waits to be killed.
    fn reset(&self) {
        let mut rank = self.join();
        let memory = self.platform.memory(&rank);
        let mut job = Job::new(&rank, &*memory);
        let stalls = self.rank + 1 == self.world;
        // By one rank alone: nobody may shorten the time that another has for the reset.
        if self.rank == 0 {
            rank.set_timeout(Duration::from_millis(300));
        }
        if !stalls {
            let called = job.call(&mut rank, &*memory);
            memory.synchronize();
            let error = called.and_then(|()| rank.check()).unwrap_err();
            assert!(matches!(error, Error::PeerTimeout { .. }), "{error}");
        } else {
            while rank.check().is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        rank.set_timeout(LIMIT);
        rank.reset().unwrap();
        job.run(&mut rank, &*memory).unwrap();
        memory.synchronize();
        rank.check().unwrap();
        let sums: Vec<String> = job.sums().iter().map(u32::to_string).collect();
        self.tell("sums", &sums.join(" "));
        if stalls {
            std::thread::sleep(LIMIT);
        }
        // Waits for the one that is killed, or comes when it has been.
        let error = rank.reset().unwrap_err();
        self.tell("failure", &failure(&error, uptime()));
    }

    fn idle(&self) {
        let _rank = self.join();
        self.tell("started", "");
        std::thread::sleep(LIMIT);
    }

    fn say_hello(&self) {
        let _place = strangers::be_let_in_as_rank_1(&self.folder.join("meeting/rank-0"));
        self.tell("started", "");
        std::thread::sleep(LIMIT);
    }

    /// Both ranks in this process: it counts what a process has.
    fn join_and_leave(&self) {
        let meeting = Rendezvous::directory(self.folder.join("meeting"));
        let join = |rank| drop(self.group().join(rank, &meeting).unwrap());
        let round = || {
            std::thread::scope(|scope| {
                let threads = [0, 1].map(|rank| scope.spawn(move || join(rank)));
                threads
                    .into_iter()
                    .for_each(|thread| thread.join().unwrap());
            });
        };
        round();
        let before = Possessions::count(&self.platform);
        (0..20).for_each(|_| round());
        let leaks = Possessions::count(&self.platform).leaked_since(&before, 20);
        self.tell("leaks", leaks.as_deref().unwrap_or("none"));
    }
}

/// The answer is the same at once: if each call waited for its deadline, the watchdog would bark.
fn check_that_it_stays_so(mut call: impl FnMut() -> trellink::Result<()>) {
    for _ in 0..100 {
        let error = call().unwrap_err();
        assert!(matches!(error, Error::PeerLost { .. }), "{error}");
    }
}

/// What the loss of a peer is told as: whose, and when it was noticed.
pub fn failure(error: &Error, when: Duration) -> String {
    let Error::PeerLost { peer, .. } = error else {
        panic!("{error}");
    };
    format!("{peer} {}", when.as_micros())
}

/// Since the machine was started: all processes read the same clock, and nobody sets it.
pub fn uptime() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is this function's own and is written before the call returns.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    assert_eq!(status, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
