//! Claims about ranks in processes of their own, on the host and on CUDA.
//!
//! A test starts this program again, once for each rank, with [`child::runs_if_it_is_told_to`] as the
//! only test; what a child is to do comes in its environment, what it found goes to a file.

#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod child;
mod equality;
mod job;
mod kills;
mod loss;
mod meeting;
mod possessions;
mod strangers;
