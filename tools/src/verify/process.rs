//! The process of one rank: does what the program at the other end of its pipes asks for.

use super::calls::RankCalls;
use super::pipe::{self, Request};
use super::{Case, Inputs};
use crate::failure::Outcome;
use crate::processes::{frame, join};
use crate::ranks::Crew;
use anyhow::{bail, Result};
use std::io::{stdin, stdout};
use trellink::Group;

/// Joins the group as `rank` and runs all cases, one after the other, as they are asked for.
pub(super) fn run(rank: usize, group: Group, cases: &[Case<'_>], rows: usize) -> Result<Outcome> {
    let mut crew = Crew::of(vec![join(rank, group)?])?;
    for case in cases {
        expect(Request::Prepare)?;
        let linear = case.linear()?;
        let Inputs { x, residual } = case.inputs(case.rows(rows));
        let mut calls =
            crew.each(|_, worker| RankCalls::prepare(worker, &linear, &x, &residual))?;
        frame::write(stdout(), &[])?;

        expect(Request::Run)?;
        let outputs = crew.each_with(&mut calls, |_, worker, calls| {
            calls.run(worker)?;
            calls.outputs(worker)
        })?;
        for outputs in &outputs {
            pipe::write_outputs(stdout(), outputs)?;
        }
    }
    Ok(Outcome::Good)
}

fn expect(request: Request) -> Result<()> {
    let asked = frame::read(stdin())?;
    if asked != request.bytes() {
        bail!("asked for {asked:?} instead of to {request:?}");
    }
    Ok(())
}
