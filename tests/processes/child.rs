//! The processes that tests start, and what they do.

use crate::common::*;
use crate::job::Job;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};
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
    /// Joins and leaves many times over, and tells what it has leaked.
    JoinAndLeave,
}

const ROLES: [Role; 5] = [
    Role::Compute,
    Role::CallForever,
    Role::Reset,
    Role::Idle,
    Role::JoinAndLeave,
];

/// The ranks of one group, each a process.
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
        let platform = if self.on_host { "host" } else { "cuda" };
        let told = format!("{role:?} {platform} {rank} {} {}", self.world, self.path);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["child::runs_if_it_is_told_to", "--exact", "--nocapture"])
            .env(ROLE, told)
            .env("TRELLINK_CHILD_FOLDER", self.folder.path())
            .stdout(std::process::Stdio::null())
            .spawn();
        self.processes[rank] = Some(child.unwrap());
    }

    /// Waits for what a child writes.
    pub fn told(&self, rank: usize, what: &str) -> String {
        let path = file(self.folder.path(), rank, what);
        let started = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(&path) {
                return text;
            }
            let waited = started.elapsed();
            assert!(
                waited < LIMIT,
                "rank {rank} has told no {what} in {waited:?}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills a child, as a shortage of memory would; when that was.
    pub fn kill(&mut self, rank: usize) -> SystemTime {
        let mut child = self.processes[rank].take().unwrap();
        let now = SystemTime::now();
        child.kill().unwrap();
        child.wait().unwrap();
        now
    }

    /// Waits for the end of a child, which must be a good one.
    pub fn ends_well(&mut self, rank: usize) {
        let mut child = self.processes[rank].take().unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "rank {rank}: {status}");
                return;
            }
            if started.elapsed() > LIMIT {
                let _ = child.kill();
                panic!("rank {rank} does not end");
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

fn file(folder: &Path, rank: usize, what: &str) -> PathBuf {
    folder.join(format!("{what}-{rank}"))
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
    let platform = match words[1] {
        "host" => Platform::host(),
        #[cfg(feature = "cuda")]
        "cuda" => Platform::cuda("child").expect("the parent has found a GPU"),
        other => panic!("a platform {other}"),
    };
    let this = This {
        folder: std::env::var_os("TRELLINK_CHILD_FOLDER").unwrap().into(),
        rank: words[2].parse().unwrap(),
        world: words[3].parse().unwrap(),
        path: words[4].parse().unwrap(),
        platform,
    };
    let _watchdog = Watchdog::new("a child", LIMIT);
    match role.unwrap() {
        Role::Compute => this.compute(),
        Role::CallForever => this.call_forever(),
        Role::Reset => this.reset(),
        Role::Idle => this.idle(),
        Role::JoinAndLeave => this.join_and_leave(),
    }
}

/// The process that this is.
struct This {
    folder: PathBuf,
    rank: usize,
    world: usize,
    path: ExchangePath,
    platform: Platform,
}

impl This {
    fn join(&self) -> Rank {
        let rendezvous = Rendezvous::directory(self.folder.join("meeting"));
        self.group().join(self.rank, &rendezvous).unwrap()
    }

    fn group(&self) -> Group {
        self.platform.group(self.world).path(self.path)
    }

    /// In one step, so that the reader sees all of it.
    fn tell(&self, what: &str, text: &str) {
        let path = file(&self.folder, self.rank, what);
        let part = path.with_extension("part");
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, path).unwrap();
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
                let when = SystemTime::now();
                self.check_that_it_stays_so(call);
                self.tell("failure", &failure(&error, when));
                return;
            }
        }
    }

    fn check_that_it_stays_so(&self, mut call: impl FnMut() -> trellink::Result<()>) {
        let started = Instant::now();
        for _ in 0..100 {
            let error = call().unwrap_err();
            assert!(matches!(error, Error::PeerLost { .. }), "{error}");
        }
        assert!(started.elapsed() < Duration::from_millis(500));
    }

    /// A stall of the last rank, a reset of all, and the job; then the last rank waits to be killed.
    fn reset(&self) {
        let mut rank = self.join();
        let memory = self.platform.memory(&rank);
        let mut job = Job::new(&rank, &*memory);
        let stalls = self.rank + 1 == self.world;
        rank.set_timeout(Duration::from_millis(300));
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
        self.tell("failure", &failure(&error, SystemTime::now()));
    }

    fn idle(&self) {
        let _rank = self.join();
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
        let before = Possessions::count();
        (0..20).for_each(|_| round());
        let after = Possessions::count();
        let leaks = format!("{before:?}, then {after:?}");
        self.tell("leaks", if after == before { "none" } else { &leaks });
    }
}

/// What a process can leak.
#[derive(PartialEq, Eq, Debug)]
struct Possessions {
    descriptors: usize,
    threads: usize,
    mappings: usize,
}

impl Possessions {
    fn count() -> Self {
        // The kernel lists a thread for a moment after it could be joined.
        std::thread::sleep(Duration::from_millis(100));
        let entries = |folder| std::fs::read_dir(folder).unwrap().count();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        Possessions {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            mappings: maps.matches("memfd:trellink").count(),
        }
    }
}

fn failure(error: &Error, when: SystemTime) -> String {
    let Error::PeerLost { peer, .. } = error else {
        panic!("{error}");
    };
    let when = when.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{peer} {}", when.as_micros())
}
