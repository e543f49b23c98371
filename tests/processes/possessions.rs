//! What a process can leak.

use crate::common::*;
use std::path::Path;

#[derive(Debug)]
pub struct Possessions {
    descriptors: usize,
    threads: usize,
    /// Of the crate's shared memory.
    mappings: usize,
    /// Of all GPUs, whoever uses it; 0 on the host.
    device_mib: usize,
}

impl Possessions {
    pub fn count(platform: &Platform) -> Self {
        let entries = |folder| std::fs::read_dir(folder).unwrap().count();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        Possessions {
            descriptors: entries("/proc/self/fd"),
            threads: threads(),
            mappings: maps.matches("memfd:trellink").count(),
            device_mib: platform.device_mib(),
        }
    }

    /// What is more than before after a number of groups, in words.
    pub fn leaked_since(&self, before: &Possessions, groups: usize) -> Option<String> {
        let counts = |p: &Possessions| (p.descriptors, p.threads, p.mappings);
        // The driver keeps some memory for later. An arena of these tests has 2 MiB or more.
        let kept_mib = 4 + groups;
        let leaks =
            counts(self) != counts(before) || self.device_mib > before.device_mib + kept_mib;
        leaks.then(|| format!("{before:?}, after {groups} groups {self:?}"))
    }
}

/// Threads of this process, without those that are ending: the kernel lists a thread for a moment after it
/// could be joined.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter(|task| lives(&task.as_ref().unwrap().path()))
        .count()
}

fn lives(task: &Path) -> bool {
    /// Set before a thread can be joined.
    const PF_EXITING: u32 = 4;
    // Gone since it was listed.
    let Ok(stat) = std::fs::read_to_string(task.join("stat")) else {
        return false;
    };
    // After the name, which may have spaces: state, five numbers, flags.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let flags: u32 = fields.split_whitespace().nth(6).unwrap().parse().unwrap();
    flags & PF_EXITING == 0
}
