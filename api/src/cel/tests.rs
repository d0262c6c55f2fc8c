//! Whole expressions, compiled and evaluated.

mod bounds;
mod cost;
mod language;
mod library;
