//! Load generator and origin.
fn main() {}
