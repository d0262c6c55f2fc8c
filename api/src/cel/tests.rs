//! Whole expressions, compiled and evaluated.

mod cost;
mod language;
