//! Rules of a definition: that they compile, and that they cannot cost too much.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;

use super::schema::Context;
use super::show;
use crate::crd::rules::Compiled;
use crate::field::{Error, ErrorList, Path, Report};

/// What one expression may cost at most.
const EXPRESSION_LIMIT: u64 = 10_000_000;
/// What all of a schema may cost together.
const SCHEMA_LIMIT: u64 = 100_000_000;
/// How many of the most expensive ones are told of.
const TOLD: usize = 4;

/// What the expressions of a schema cost together.
#[derive(Debug)]
pub(super) struct Costs {
    /// Whether each expression may cost what it does.
    unlimited: bool,
    total: u64,
    expensive: Vec<(Path, u64)>,
}

impl Costs {
    pub(super) fn new(unlimited: bool) -> Self {
        Self { unlimited, total: 0, expensive: Vec::new() }
    }

    fn observe(&mut self, path: &Path, cost: u64) {
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.expensive.push((path.clone(), cost));
            self.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.expensive.truncate(TOLD);
        }
    }

    /// Says if it is too much.
    pub(super) fn report(self, path: &Path, errors: &mut ErrorList) {
        if self.total <= SCHEMA_LIMIT {
            return;
        }
        for (path, _) in &self.expensive {
            let detail =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            errors.forbidden(path, detail);
        }
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.forbidden(path, too_expensive(name, self.total, SCHEMA_LIMIT));
    }
}

/// Where a rule stands.
pub(super) struct Place<'a> {
    pub(super) path: &'a Path,
    pub(super) context: &'a Context,
}

/// Checks what is known of a compiled rule.
pub(super) fn check(
    rule: &ValidationRule,
    compiled: &Compiled,
    place: &Place<'_>,
    costs: &mut Costs,
    errors: &mut ErrorList,
) {
    let (own, message) = (place.path.child("rule"), place.path.child("messageExpression"));
    let often = place.context.cardinality.unwrap_or(compiled.max_cardinality);
    let cost = compiled.max_cost.saturating_mul(often);
    if cost > EXPRESSION_LIMIT && !costs.unlimited {
        errors.forbidden(&own, too_expensive("estimated rule cost", cost, EXPRESSION_LIMIT));
    }
    costs.observe(&own, cost);
    if let Some(why) = &compiled.error {
        errors.push(Error::invalid_shown(&own, show::rule(rule), why));
    }
    if let Some(why) = &compiled.message_error {
        errors.push(Error::invalid_shown(&message, show::rule(rule), why));
    } else if compiled.message.is_some() {
        if compiled.message_cost > EXPRESSION_LIMIT && !costs.unlimited {
            let detail =
                too_expensive("estimated messageExpression cost", compiled.message_cost, EXPRESSION_LIMIT);
            errors.forbidden(&message, detail);
        }
        costs.observe(&message, compiled.message_cost);
    }
    if compiled.uses_old {
        if let Some(above) = &place.context.uncorrelated {
            let detail =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {above}");
            errors.invalid(&own, rule.rule.as_str(), detail);
        }
    } else if let Some(optional) = rule.optional_old_self {
        let detail = "may not be set if oldSelf is not used in rule";
        errors.invalid(&place.path.child("optionalOldSelf"), optional, detail);
    }
}

/// By how much a limit is exceeded, in upstream's words.
fn too_expensive(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excess_is_told_as_precisely_as_it_matters() {
        for (cost, wanted) in [
            (101, "1.010000x"),
            (149, "1.490000x"),
            (150, "1.5x"),
            (10_000, "100.0x"),
            (10_001, "more than 100x"),
        ] {
            let told = too_expensive("cost", cost, 100);
            assert!(told.starts_with(&format!("cost exceeds budget by factor of {wanted} (")), "{told}");
        }
    }
}
