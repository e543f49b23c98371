//! Without CUDA: there is nothing to compare with, and no variant that wants it is ever selected.

use crate::device::Place;
use crate::nccl::Nccl;
use crate::ranks::Lane;
use crate::tensor::{Element, Tensor};
use anyhow::{bail, Result};
use std::sync::Arc;
use trellink::{Rank, RowParallel};

/// Nothing.
pub struct Kit;

impl Kit {
    /// A kit for each rank.
    pub fn all(_: &Place, world: usize, _: bool, _: Option<&Arc<Nccl>>) -> Result<Vec<Self>> {
        Ok((0..world).map(|_| Kit).collect())
    }

    /// No use for it.
    pub fn reduce_with(&mut self, _: Rank) {}

    /// No rank for it.
    pub fn own_sum<R: Element>(&self, _: &Lane, _: &mut Tensor<R>) -> Result<()> {
        bail!("summing the outputs of groups of one needs the `cuda` feature")
    }

    /// Nothing could go wrong.
    pub fn check(&self) -> Result<()> {
        Ok(())
    }

    /// No all-reduce.
    pub fn nccl_sum<R: Element>(
        &self,
        _: &Lane,
        _: Option<&mut Tensor<R>>,
        _: &mut Tensor<R>,
    ) -> Result<()> {
        bail!("NCCL needs the `cuda` feature")
    }

    /// No reader.
    pub fn read(&self, _: &Lane, _: &RowParallel) -> Result<()> {
        bail!("reading weights needs the `cuda` feature")
    }
}
