//! Which way packets take: what is asked for is done or refused, and the ranks say which it was.

mod common;

use common::*;
use std::time::Duration;
use trellink::format::{Codebook, DType};
use trellink::{AllReduce, Epilogue, ExchangePath, Group, RowParallel, Split};

const K: usize = 512;
const N: usize = 384;

/// The bits that every rank gets of a layer's calls and of long and short all-reduces.
fn bits(platform: &Platform, group: Group) -> Vec<Vec<u32>> {
    let mut rng = Seed::new(0x9a7).rng(0);
    let format = (Codebook::Mul1, "4".parse().unwrap());
    let linear = RandomLinear::new(&mut rng, format, K, N);
    let x = activations(&mut rng, DType::F16, 9 * K, 1.0);
    let tensor = activations(&mut rng, DType::F16, 40_000, 1.0);
    let split = Split::even(K, group.world()).unwrap();
    on_ranks(platform, group, |worker| {
        let layer = RowParallel::load(&worker.rank, &linear.linear(), &split).unwrap();
        let memory = &worker.memory;
        let x = memory.buffer(&shard_columns(&x, &split, worker.rank.rank()));
        let tensor = memory.buffer(&tensor);
        let mut bits = Vec::new();
        for rows in [1, 3, 9] {
            let mut y = worker.memory.buffer(&Values::poison(DType::F32, rows * N));
            worker.collective(|rank, memory| {
                for epilogue in [Epilogue::Store, Epilogue::Add, Epilogue::Add] {
                    let input = x.input(0..rows * layer.k());
                    let output = y.output(epilogue);
                    layer.forward(rank, memory.stream(), input, output).unwrap();
                }
            });
            bits.extend(y.read().bits());
        }
        for len in [8, 40_000] {
            let mut y = worker.memory.buffer(&Values::poison(DType::F16, len));
            worker.collective(|rank, memory| {
                let (input, output) = (tensor.input(0..len), y.output(Epilogue::Store));
                AllReduce::new()
                    .run(rank, memory.stream(), input, output)
                    .unwrap();
            });
            bits.extend(y.read().bits());
        }
        bits
    })
}

on_both! {
    /// Tags wrap and are renewed meanwhile, which rewrites arenas.
    fn every_path_gives_the_same_bits(platform: &Platform) {
        let _watchdog = Watchdog::new("paths", Duration::from_secs(240));
        for world in [1, 2, 3, 8] {
            let group = || {
                let group = platform.group(world).first_epoch(u32::MAX - 5);
                group.scrub_period(4)
            };
            let expected = bits(platform, group());
            for path in [ExchangePath::Auto, ExchangePath::HostMemory] {
                let found = bits(platform, group().path(path));
                assert!(found == expected, "{path} in a world of {world}");
            }
        }
    }

    fn ranks_say_which_path_they_take_and_why(platform: &Platform) {
        let _watchdog = Watchdog::new("reasons", Duration::from_secs(120));
        let asked = platform.group(2).path(ExchangePath::HostMemory).build().unwrap();
        let chosen = platform.group(2).path(ExchangePath::Auto).build().unwrap();
        for rank in &asked {
            assert_eq!(rank.path(), ExchangePath::HostMemory);
            let why = if platform.is_host() { "on the host" } else { "asked for" };
            assert!(rank.path_reason().contains(why), "{}", rank.path_reason());
        }
        for rank in &chosen {
            assert_ne!(rank.path(), ExchangePath::Auto);
            assert_eq!(rank.path(), chosen[0].path());
            assert_eq!(rank.path_reason(), chosen[0].path_reason());
            assert!(!rank.path_reason().is_empty());
        }
    }

    /// Dropping a group gives back what building it took.
    fn arenas_in_host_memory_are_given_back(platform: &Platform) {
        let _watchdog = Watchdog::new("host arenas", Duration::from_secs(240));
        let group = || {
            let group = platform.group(2).path(ExchangePath::HostMemory);
            group.slot_values(1 << 20).probe_links(false)
        };
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
            let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
            4096 * pages.unwrap_or(0usize)
        };
        drop(group().build().unwrap());
        let before = resident();
        // 64 MiB each.
        (0..16).for_each(|_| drop(group().build().unwrap()));
        let grown = resident().saturating_sub(before);
        assert!(grown < 512 << 20, "{grown} bytes more");
    }
}

#[cfg(feature = "cuda")]
mod on_gpus {
    use super::*;
    use trellink::cuda::{links, probe_links, LinkVerdict};
    use trellink::{Device, Error};

    /// Ordinals of the platform's devices, each once.
    fn ordinals(platform: &Platform) -> Vec<usize> {
        let mut ordinals: Vec<usize> = platform
            .devices_for(8)
            .into_iter()
            .filter_map(|device| match device {
                Device::Cuda(ordinal) => Some(ordinal),
                Device::Host => None,
            })
            .collect();
        ordinals.sort_unstable();
        ordinals.dedup();
        ordinals
    }

    /// Whatever the machine's links are: direct where they allow it, refused or round where not.
    #[test]
    fn the_path_is_what_the_links_allow() {
        let Some(platform) = Platform::cuda("the_path_is_what_the_links_allow") else {
            return;
        };
        let ordinals = ordinals(&platform);
        let accessible = links(&ordinals).unwrap().iter().all(|link| link.access);
        let group = |path| {
            let devices = ordinals.iter().map(|&ordinal| Device::Cuda(ordinal));
            platform.group_on(devices.collect()).path(path)
        };
        let direct = group(ExchangePath::Direct).build();
        let automatic = group(ExchangePath::Auto).build().unwrap();
        match direct {
            Ok(ranks) => {
                assert!(accessible);
                assert_eq!(ranks[0].path(), ExchangePath::Direct);
                assert_eq!(automatic[0].path(), ExchangePath::Direct);
            }
            Err(Error::PeerAccess { .. }) => {
                assert!(!accessible);
                assert_eq!(automatic[0].path(), ExchangePath::HostMemory);
            }
            Err(Error::LinkProbe { reason, .. }) => {
                assert_eq!(automatic[0].path(), ExchangePath::HostMemory);
                assert!(automatic[0].path_reason().contains(&reason));
            }
            Err(other) => panic!("{other}"),
        }
        let unprobed = group(ExchangePath::HostMemory).probe_links(false);
        assert_eq!(
            unprobed.build().unwrap()[0].path(),
            ExchangePath::HostMemory
        );
    }

    /// Every pair has a verdict, of which the first is that host memory serves all of them.
    #[test]
    fn every_pair_is_probed() {
        let Some(platform) = Platform::cuda("every_pair_is_probed") else {
            return;
        };
        let ordinals = ordinals(&platform);
        if ordinals.len() < 2 {
            say!("every_pair_is_probed: skipped, a single GPU has no pair");
            return;
        }
        let pairs = ordinals.len() * (ordinals.len() - 1);
        let accessible = links(&ordinals).unwrap().iter().all(|link| link.access);
        for path in [ExchangePath::HostMemory, ExchangePath::Direct] {
            let started = std::time::Instant::now();
            let probed = probe_links(&ordinals, path).unwrap();
            say!("probed by {path} in {:?}: {probed:?}", started.elapsed());
            if path == ExchangePath::HostMemory || accessible {
                assert_eq!(probed.len(), pairs);
            }
            for link in probed {
                let good = matches!(link.verdict, LinkVerdict::Good { .. });
                assert!(good || path == ExchangePath::Direct, "{link:?}");
            }
        }
    }
}
