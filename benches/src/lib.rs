//! What the benchmarks share. They live in `benches/`.

pub mod counters;
pub mod daemon;
pub mod selection;
