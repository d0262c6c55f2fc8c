//! Label selectors, compiled once and matched often.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

/// A compiled selector. An absent selector matches nothing, an empty one everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Matches no object.
    Nothing,
    /// Matches objects that satisfy every requirement.
    All(Vec<Requirement>),
}

/// One condition on the labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The label has one of these values.
    In(String, Vec<String>),
    /// The label is absent or has none of these values.
    NotIn(String, Vec<String>),
    /// The label is present.
    Exists(String),
    /// The label is absent.
    DoesNotExist(String),
}

/// Why a selector cannot be compiled.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid label selector operator")]
pub struct InvalidOperator(String);

impl Selector {
    /// Compiles the selector of a workload.
    pub fn new(selector: Option<&LabelSelector>) -> Result<Self, InvalidOperator> {
        let Some(selector) = selector else { return Ok(Self::Nothing) };
        let mut requirements: Vec<_> = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(key, value)| Requirement::In(key.clone(), vec![value.clone()]))
            .collect();
        for expression in selector.match_expressions.iter().flatten() {
            let key = expression.key.clone();
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(match expression.operator.as_str() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::DoesNotExist(key),
                other => return Err(InvalidOperator(other.to_owned())),
            });
        }
        Ok(Self::All(requirements))
    }

    /// Compiles a plain map of labels, as Services and ReplicationControllers have it.
    pub fn of_map(labels: Option<&BTreeMap<String, String>>) -> Self {
        match labels {
            Some(labels) => Self::All(
                labels.iter().map(|(key, value)| Requirement::In(key.clone(), vec![value.clone()])).collect(),
            ),
            None => Self::All(Vec::new()),
        }
    }

    /// Whether every object matches.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::All(requirements) if requirements.is_empty())
    }

    /// Whether an object with these labels matches.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Nothing => false,
            Self::All(requirements) => requirements.iter().all(|requirement| requirement.matches(labels)),
        }
    }
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            }]),
            ..Default::default()
        }
    }

    #[test]
    fn absent_matches_nothing_and_empty_matches_all() {
        assert!(!Selector::new(None).expect("valid").matches(&labels(&[])));
        assert!(
            Selector::new(Some(&LabelSelector::default())).expect("valid").matches(&labels(&[("a", "b")]))
        );
    }

    #[test]
    fn every_operator() {
        for (operator, values, on, matches) in [
            ("In", &["x", "y"][..], &[("k", "x")][..], true),
            ("In", &["x"], &[("k", "z")], false),
            ("In", &["x"], &[], false),
            ("NotIn", &["x"], &[("k", "x")], false),
            ("NotIn", &["x"], &[], true),
            ("Exists", &[], &[("k", "")], true),
            ("Exists", &[], &[], false),
            ("DoesNotExist", &[], &[], true),
            ("DoesNotExist", &[], &[("k", "")], false),
        ] {
            let selector = Selector::new(Some(&expression("k", operator, values))).expect("valid");
            assert_eq!(selector.matches(&labels(on)), matches, "{operator} {values:?} on {on:?}");
        }
        assert!(Selector::new(Some(&expression("k", "Like", &[]))).is_err());
    }
}
