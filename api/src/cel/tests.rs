//! Whole expressions, compiled and evaluated.

mod language;
