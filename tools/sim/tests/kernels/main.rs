//! The kernels, run on the CPU, against the reference.

mod all_reduce;
mod columns;
mod common;
mod constants;
mod exchange;
mod faults;
mod formats;
mod link;
mod norm;
mod shapes;
mod straight;
mod values;
mod wide;
