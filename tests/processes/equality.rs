//! Processes compute what threads compute.

use crate::child::{Children, Role};
use crate::common::*;
use crate::job::Job;
use std::time::Duration;
use trellink::ExchangePath;

/// The bits of every rank's outputs, ranks being threads.
fn of_threads(platform: &Platform, world: usize) -> Vec<Vec<u32>> {
    on_ranks(platform, platform.group(world), |worker| {
        let mut job = Job::new(&worker.rank, &*worker.memory);
        worker.collective(|rank, memory| job.run(rank, memory).unwrap());
        job.bits()
    })
}

/// Asserts that processes whose packets take this path compute the same; the path that they took.
fn same_bits(platform: &Platform, world: usize, path: ExchangePath) -> Vec<String> {
    let expected = of_threads(platform, world);
    let mut children = Children::new(platform, world)
        .by(path)
        .start_all(Role::Compute);
    let compare = |(rank, expected): (usize, &Vec<u32>)| {
        let told = children.told(rank, "bits");
        let bits: Vec<u32> = told.split(' ').map(|bits| bits.parse().unwrap()).collect();
        assert!(bits == *expected, "rank {rank} of {world}");
        children.ends_well(rank);
        children.told(rank, "path")
    };
    expected.iter().enumerate().map(compare).collect()
}

on_both! {
    fn processes_give_the_bits_that_threads_give(platform: &Platform) {
        let _watchdog = Watchdog::new("processes against threads", Duration::from_secs(300));
        for world in [2, 3] {
            same_bits(platform, world, platform.path());
        }
    }

    fn processes_give_the_same_bits_through_host_memory(platform: &Platform) {
        let _watchdog = Watchdog::new("processes by host memory", Duration::from_secs(300));
        for world in [2, 3] {
            let paths = same_bits(platform, world, ExchangePath::HostMemory);
            assert!(paths.iter().all(|path| path == "host-memory"), "{paths:?}");
        }
    }
}
