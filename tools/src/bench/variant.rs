//! What is measured of a layer, and what each variant needs.

use std::fmt;
use std::str::FromStr;
use trellink::ExchangePath;

/// A way to compute a layer, or a part of it, or less.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// The layer over all ranks in one kernel, exchange and epilogue included.
    Fused,
    /// The same, and the RMSNorm of the residual for the next layer.
    FusedNorm,
    /// As `Fused`, and the sums of squares by which the next layer can normalise the residual.
    FusedSquares,
    /// As `Fused`, with the exchange through host memory, as between GPUs without peer access.
    FusedHostMemory,
    /// Each rank's shard as a world of its own, all devices at the same time: no exchange.
    Gemm,
    /// The same with a stored output, which the crate's own all-reduce then adds up in place.
    GemmAllReduce,
    /// The crate's all-reduce of such an output, and nothing else.
    AllReduce,
    /// As `GemmAllReduce`, but NCCL adds up.
    GemmNccl,
    /// NCCL's all-reduce of such an output, and nothing else.
    Nccl,
    /// The packed weights read once, and nothing else.
    Floor,
}

impl Variant {
    /// In the order of the output.
    pub const ALL: [Variant; 10] = [
        Variant::Fused,
        Variant::FusedNorm,
        Variant::FusedSquares,
        Variant::FusedHostMemory,
        Variant::Gemm,
        Variant::GemmAllReduce,
        Variant::AllReduce,
        Variant::GemmNccl,
        Variant::Nccl,
        Variant::Floor,
    ];

    /// The name in arguments and results.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Fused => "fused",
            Variant::FusedNorm => "fused+norm",
            Variant::FusedSquares => "fused+squares",
            Variant::FusedHostMemory => "fused-host-memory",
            Variant::Gemm => "gemm",
            Variant::GemmAllReduce => "gemm+allreduce",
            Variant::AllReduce => "allreduce",
            Variant::GemmNccl => "gemm+nccl",
            Variant::Nccl => "nccl",
            Variant::Floor => "floor",
        }
    }

    /// For a reader of results.
    pub fn about(self) -> &'static str {
        match self {
            Variant::Fused => "all ranks, with exchange and residual add in one kernel",
            Variant::FusedNorm => "the same, with the RMSNorm of the residual in that kernel too",
            Variant::FusedSquares => {
                "as fused, with the sums of squares of the residual for the next layer's norm"
            }
            Variant::FusedHostMemory => {
                "as fused, through pinned host memory instead of the peers'"
            }
            Variant::Gemm => "each rank's shard as a world of one, with residual add, no exchange",
            Variant::GemmAllReduce => {
                "the shard's output stored, then summed in place by this crate; no residual add"
            }
            Variant::AllReduce => "this crate's all-reduce of that output alone",
            Variant::GemmNccl => {
                "the shard's output stored, then summed in place by NCCL; no residual add"
            }
            Variant::Nccl => "NCCL's all-reduce of that output alone",
            Variant::Floor => "the shard's packed weights read once, nothing else",
        }
    }

    /// The group or groups that it runs in.
    pub fn setting(self) -> Setting {
        match self {
            Variant::Fused | Variant::FusedNorm | Variant::FusedSquares | Variant::AllReduce => {
                Setting::Together(ExchangePath::Auto)
            }
            Variant::FusedHostMemory => Setting::Together(ExchangePath::HostMemory),
            _ => Setting::Alone,
        }
    }

    /// Whether ranks exchange an output of its element type, instead of sums in f32.
    pub fn exchanges_output(self) -> bool {
        self.uses_nccl() || matches!(self, Variant::GemmAllReduce | Variant::AllReduce)
    }

    /// Whether it uses NCCL.
    pub fn uses_nccl(self) -> bool {
        matches!(self, Variant::GemmNccl | Variant::Nccl)
    }

    /// Whether a call reads the layer's weights.
    pub fn reads_weights(self) -> bool {
        !matches!(self, Variant::Nccl | Variant::AllReduce)
    }

    /// Whether it has a result that can be compared with the reference.
    pub fn computes(self) -> bool {
        self.reads_weights() && self != Variant::Floor
    }

    /// Why it cannot be measured, if so.
    pub fn obstacle(self, run: &Circumstances) -> Option<String> {
        match self {
            Variant::Fused | Variant::FusedNorm | Variant::FusedSquares | Variant::AllReduce
                if run.world > 1 =>
            {
                run.no_direct.clone()
            }
            Variant::Fused | Variant::FusedNorm | Variant::FusedSquares | Variant::Gemm => None,
            Variant::AllReduce => run.is_single(),
            _ if run.on_host => Some("the ranks are on the host".into()),
            Variant::FusedHostMemory => run.is_single(),
            Variant::Floor => None,
            Variant::GemmAllReduce => run.no_shard_each().or_else(|| run.no_direct.clone()),
            Variant::GemmNccl | Variant::Nccl => run.no_nccl(),
        }
    }
}

/// What ranks are measured in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    /// One group of all ranks, whose packets take this path.
    Together(ExchangePath),
    /// Each rank as a world of one.
    Alone,
}

impl Setting {
    /// In the order of the output.
    pub const ALL: [Setting; 3] = [
        Setting::Together(ExchangePath::Auto),
        Setting::Together(ExchangePath::HostMemory),
        Setting::Alone,
    ];
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Variant::ALL.into_iter().find(|v| v.name() == name);
        let names = || Variant::ALL.map(Variant::name).join(", ");
        found.ok_or_else(|| format!("expected some of {}", names()))
    }
}

/// What decides which variants a run can measure.
pub struct Circumstances {
    /// The ranks are not on GPUs.
    pub on_host: bool,
    /// GPUs to use.
    pub devices: usize,
    /// Ranks.
    pub world: usize,
    /// Whether each rank has a process of its own.
    pub processes: bool,
    /// Input channels, of the layer that has least.
    pub smallest_k: usize,
    /// Why the devices cannot exchange directly, if so.
    pub no_direct: Option<String>,
    /// Or why there is no NCCL.
    pub nccl: Result<(), String>,
}

impl Circumstances {
    /// Why the outputs of ranks that run as worlds of one cannot be added up by NCCL.
    fn no_nccl(&self) -> Option<String> {
        if self.processes {
            return Some("NCCL is compared with by ranks in one process only".into());
        }
        self.no_shard_each().or_else(|| self.nccl.clone().err())
    }

    fn is_single(&self) -> Option<String> {
        (self.world == 1).then(|| "a single rank has nothing to exchange".into())
    }

    /// Why ranks that run as worlds of one have no outputs to be added up.
    fn no_shard_each(&self) -> Option<String> {
        let Circumstances { devices, world, .. } = *self;
        if let Some(reason) = self.is_single() {
            return Some(reason);
        }
        if devices < world {
            return Some(format!(
                "each of the {world} ranks wants a device of its own, there are {devices}"
            ));
        }
        if self.smallest_k < world * trellink::format::GROUP {
            let k = self.smallest_k;
            return Some(format!("with K {k} some of the {world} ranks hold nothing"));
        }
        None
    }
}

/// The variants of a run.
#[derive(PartialEq, Eq, Debug)]
pub struct Selection {
    /// Those to be measured, in the order of the output.
    pub measured: Vec<Variant>,
    /// Which of those asked for are not, and why, for a reader.
    pub left_out: Vec<String>,
}

impl Selection {
    /// Of the variants `wanted`, those that can be measured; none wanted means all.
    pub fn of(wanted: &[Variant], run: &Circumstances) -> Self {
        let is_wanted = |variant: &Variant| wanted.is_empty() || wanted.contains(variant);
        let mut measured = Vec::new();
        let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
        for variant in Variant::ALL.into_iter().filter(is_wanted) {
            let Some(reason) = variant.obstacle(run) else {
                measured.push(variant);
                continue;
            };
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, names)) => names.push(variant.name()),
                None => reasons.push((reason, vec![variant.name()])),
            }
        }
        let line = |(reason, names): (String, Vec<&str>)| format!("{}: {reason}", names.join(", "));
        Selection {
            measured,
            left_out: reasons.into_iter().map(line).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_gpus() -> Circumstances {
        Circumstances {
            on_host: false,
            devices: 2,
            world: 2,
            processes: false,
            smallest_k: 4096,
            no_direct: None,
            nccl: Ok(()),
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for variant in Variant::ALL {
            assert_eq!(variant.name().parse(), Ok(variant));
        }
        assert!("gemm+mpi".parse::<Variant>().unwrap_err().contains("floor"));
    }

    #[test]
    fn two_gpus_with_nccl_measure_everything() {
        let selection = Selection::of(&[], &two_gpus());
        assert_eq!(selection.measured, Variant::ALL);
        assert!(selection.left_out.is_empty());
    }

    #[test]
    fn without_nccl_the_rest_is_measured_and_the_reason_told() {
        let run = Circumstances {
            nccl: Err("NCCL was not found".into()),
            ..two_gpus()
        };
        let Selection { measured, left_out } = Selection::of(&[], &run);
        let without = |v: &Variant| !v.uses_nccl();
        assert!(measured
            .iter()
            .copied()
            .eq(Variant::ALL.into_iter().filter(without)));
        assert_eq!(left_out, ["gemm+nccl, nccl: NCCL was not found"]);
        let floor = Selection::of(&[Variant::Floor], &run);
        assert!(floor.left_out.is_empty(), "nobody asked for NCCL");
    }

    #[test]
    fn every_variant_runs_in_one_setting_that_is_measured() {
        for variant in Variant::ALL {
            assert!(Setting::ALL.contains(&variant.setting()), "{variant}");
        }
    }

    #[test]
    fn where_nothing_goes_directly_only_the_way_round_is_measured() {
        let run = Circumstances {
            no_direct: Some("no access".into()),
            ..two_gpus()
        };
        let wanted = [
            Variant::Fused,
            Variant::FusedNorm,
            Variant::FusedHostMemory,
            Variant::GemmAllReduce,
            Variant::AllReduce,
        ];
        let Selection { measured, left_out } = Selection::of(&wanted, &run);
        assert_eq!(measured, [Variant::FusedHostMemory]);
        assert_eq!(
            left_out,
            ["fused, fused+norm, gemm+allreduce, allreduce: no access"]
        );
    }

    #[test]
    fn a_path_between_gpus_takes_two_ranks_on_gpus() {
        let reason = |run| {
            Selection::of(&[Variant::FusedHostMemory], &run)
                .left_out
                .concat()
        };
        let on_host = Circumstances {
            on_host: true,
            ..two_gpus()
        };
        assert!(reason(on_host).contains("on the host"));
        let alone = Circumstances {
            world: 1,
            ..two_gpus()
        };
        assert!(reason(alone).contains("single rank"));
    }

    #[test]
    fn nccl_takes_ranks_that_each_have_a_device_and_a_shard() {
        let reason = |run: Circumstances| Selection::of(&[Variant::Nccl], &run).left_out.concat();
        let world = |world| Circumstances {
            world,
            ..two_gpus()
        };
        assert!(reason(world(1)).contains("single rank"));
        assert!(reason(world(3)).contains("there are 2"));
        let processes = Circumstances {
            processes: true,
            ..two_gpus()
        };
        assert!(reason(processes).contains("one process only"));
        let small = Circumstances {
            smallest_k: 128,
            ..two_gpus()
        };
        assert!(reason(small).contains("hold nothing"));
    }
}
