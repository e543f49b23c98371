//! Processes compute what threads compute.

use crate::child::{Children, Role};
use crate::common::*;
use crate::job::Job;

/// The bits of every rank's outputs, ranks being threads.
fn of_threads(platform: &Platform, world: usize) -> Vec<Vec<u32>> {
    on_ranks(platform, platform.group(world), |worker| {
        let mut job = Job::new(&worker.rank, &*worker.memory);
        worker.collective(|rank, memory| job.run(rank, memory).unwrap());
        job.bits()
    })
}

on_both! {
    fn processes_give_the_bits_that_threads_give(platform: &Platform) {
        let _watchdog = Watchdog::new("processes against threads", std::time::Duration::from_secs(300));
        for world in [2, 3] {
            let expected = of_threads(platform, world);
            let mut children = Children::start(platform, world, Role::Compute);
            for (rank, expected) in expected.iter().enumerate() {
                let told = children.told(rank, "bits");
                let bits: Vec<u32> = told.split(' ').map(|bits| bits.parse().unwrap()).collect();
                assert!(bits == *expected, "rank {rank} of {world}");
                children.ends_well(rank);
            }
        }
    }
}
