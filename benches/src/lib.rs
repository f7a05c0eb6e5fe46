//! What the benchmarks share. They live in `benches/`.

pub mod comparison;
pub mod counters;
pub mod daemon;
pub mod machine;
pub mod memory;
pub mod selection;
