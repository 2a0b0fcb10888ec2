//! Berth.
fn main() {}
