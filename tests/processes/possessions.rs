//! What a process can leak.

use crate::common::*;
use std::time::Duration;

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
        // The kernel lists a thread for a moment after it could be joined.
        std::thread::sleep(Duration::from_millis(100));
        let entries = |folder| std::fs::read_dir(folder).unwrap().count();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        Possessions {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
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
