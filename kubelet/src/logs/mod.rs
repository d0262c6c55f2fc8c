//! Container logs as the runtime writes them: reading, following, and rotating.

mod follow;
mod parse;
mod read;
mod rotate;
mod tail;

pub use parse::{Line, Stream, parse};
pub use read::{Options, read};
pub use rotate::LogRotator;
pub use tail::{tail, tail_start};

#[cfg(test)]
mod tests;
