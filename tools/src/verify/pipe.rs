//! What the program asks of the processes of its ranks, and the outputs that they answer with.

use super::calls::RankOutputs;
use crate::processes::frame::{read, write};
use anyhow::Result;
use half::f16;
use std::io::{Read, Write};

/// What the program asks of the process of a rank, in this order for each linear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Get ready for the next linear; the answer is an empty frame.
    Prepare,
    /// Run it; the answer is its outputs.
    Run,
}

impl Request {
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Request::Prepare => b"prepare",
            Request::Run => b"run",
        }
    }
}

/// Writes a rank's outputs.
pub fn write_outputs(mut pipe: impl Write, outputs: &RankOutputs) -> Result<()> {
    let f32s =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let added: Vec<u8> = outputs.added.iter().flat_map(|v| v.to_le_bytes()).collect();
    write(&mut pipe, &f32s(&outputs.stored))?;
    write(&mut pipe, &added)?;
    write(&mut pipe, &f32s(&outputs.columns))
}

/// Reads a rank's outputs.
pub fn read_outputs(mut pipe: impl Read) -> Result<RankOutputs> {
    let f32s = |bytes: &[u8]| -> Vec<f32> {
        let words = bytes.chunks_exact(4);
        words
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    };
    let stored = f32s(&read(&mut pipe)?);
    let added = read(&mut pipe)?;
    let added = added.chunks_exact(2);
    Ok(RankOutputs {
        stored,
        added: added.map(|b| f16::from_le_bytes([b[0], b[1]])).collect(),
        columns: f32s(&read(&mut pipe)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_survive_the_journey_bit_for_bit() {
        let outputs = RankOutputs {
            stored: vec![1.5, -0.0, f32::INFINITY],
            added: vec![f16::NEG_ZERO, f16::MAX],
            columns: Vec::new(),
        };
        let mut pipe = Vec::new();
        write_outputs(&mut pipe, &outputs).unwrap();
        let read = read_outputs(&pipe[..]).unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read.stored), bits(&outputs.stored));
        assert_eq!(read.added[0].to_bits(), f16::NEG_ZERO.to_bits());
        assert_eq!((read.added[1], read.columns.len()), (f16::MAX, 0));
        assert!(read_outputs(&pipe[..pipe.len() - 9]).is_err());
    }
}
