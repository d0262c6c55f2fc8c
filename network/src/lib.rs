//! (crate documentation follows with its contents)
