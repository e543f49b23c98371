//! What every other part of the crate is judged by: bit-exact decoding, the layer, RMSNorm and SwiGLU in f64,
//! the reduction in rank order.
//!
//! What must stay true: this module depends on `format` and `weights` alone. It shares no code
//! with the kernels, the host back end or the consumption layout, so that agreement with it means
//! something, and it puts clarity before speed.

mod decode;
mod layer;
mod norm;
mod reduce;
mod transform;

pub use decode::{decode, decode_state, decode_tile};
pub use layer::ReferenceLinear;
pub use norm::{rms_norm, swiglu};
pub use reduce::{reduce, relative_error};
pub use transform::hadamard_128;
