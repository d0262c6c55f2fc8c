//! Expressions that must compile (upstream `convertCELErrorToValidationError`).

use crate::cel::admission::{Compiled, Failure};
use crate::field::{Error, ErrorList, Path, Report};

/// Says what is wrong with an expression; `shown` is what was given for it.
pub(super) fn check(compiled: &Compiled, shown: &str, path: &Path, errors: &mut ErrorList) {
    match &compiled.program {
        Ok(_) => {}
        Err(why @ Failure::Program(_)) => errors.push(Error::internal(path, why.to_string())),
        Err(why) => errors.invalid(path, shown, why.to_string()),
    }
}
