//! Label selectors: what they are, how they match and print.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::{Map, Value};

use crate::field::{Error, ErrorList, Path};
use crate::format;

use super::parser;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `key in (a,b)`.
    In,
    /// `key notin (a,b)`.
    NotIn,
    /// `key=a`.
    Equals,
    /// `key==a`.
    DoubleEquals,
    /// `key!=a`.
    NotEquals,
    /// `key`.
    Exists,
    /// `!key`.
    DoesNotExist,
    /// `key>1`.
    GreaterThan,
    /// `key<1`.
    LessThan,
}

impl Operator {
    /// As upstream names it in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::NotIn => "notin",
            Self::Equals => "=",
            Self::DoubleEquals => "==",
            Self::NotEquals => "!=",
            Self::Exists => "exists",
            Self::DoesNotExist => "!",
            Self::GreaterThan => "gt",
            Self::LessThan => "lt",
        }
    }
}

/// Anything that labels can be looked up in.
pub trait Labels {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<S: std::hash::BuildHasher> Labels for HashMap<String, String, S> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl<L: Labels> Labels for Option<L> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref().and_then(|labels| labels.label(key))
    }
}

impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, without duplicates.
    values: Vec<String>,
}

impl Requirement {
    /// A checked requirement.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, ErrorList> {
        let mut errors = ErrorList::new();
        let invalid_key = format::label_key(key);
        if !invalid_key.is_empty() {
            errors.push(Error::invalid(&Path::new("key"), key, invalid_key.join("; ")));
        }
        check_values(operator, &values, &mut errors);
        for (i, value) in values.iter().enumerate() {
            let invalid = format::label_value(value);
            if !invalid.is_empty() {
                let path = Path::new("values").index(i).key(key);
                errors.push(Error::invalid(&path, value.as_str(), invalid.join("; ")));
            }
        }
        if errors.is_empty() { Ok(Self { key: key.to_owned(), operator, values }) } else { Err(errors) }
    }

    /// The label looked at.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it is compared.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values it is compared with.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether labels meet it.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let actual = labels.label(&self.key);
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => actual.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !actual.is_some_and(listed),
            Operator::Exists => actual.is_some(),
            Operator::DoesNotExist => actual.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let number = |text: &str| text.strip_prefix('+').unwrap_or(text).parse::<i64>().ok();
                let bound = self.values.first().and_then(|v| number(v));
                let (Some(actual), Some(bound)) = (actual.and_then(number), bound) else { return false };
                if self.operator == Operator::GreaterThan { actual > bound } else { actual < bound }
            }
        }
    }
}

fn check_values(operator: Operator, values: &[String], errors: &mut ErrorList) {
    let path = Path::new("values");
    let mut wrong = |detail: &str| errors.push(Error::invalid(&path, values.to_vec(), detail));
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            wrong("for 'in', 'notin' operators, values set can't be empty");
        }
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
            wrong("exact-match compatibility requires one single value");
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            wrong("values set must be empty for exists and does not exist");
        }
        Operator::GreaterThan | Operator::LessThan => {
            if values.len() != 1 {
                wrong("for 'Gt', 'Lt' operators, exactly one value is required");
            }
            for (i, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(Error::invalid(&path.index(i), value.as_str(), detail));
            }
        }
        _ => {}
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = || self.values.join(",");
        match self.operator {
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::In => write!(f, "{} in ({})", self.key, values()),
            Operator::NotIn => write!(f, "{} notin ({})", self.key, values()),
            Operator::GreaterThan => write!(f, "{}>{}", self.key, values()),
            Operator::LessThan => write!(f, "{}<{}", self.key, values()),
            other => write!(f, "{}{}{}", self.key, other.as_str(), values()),
        }
    }
}

/// A conjunction of requirements, sorted by key, or the selector that matches nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Default for LabelSelector {
    fn default() -> Self {
        Self::everything()
    }
}

impl LabelSelector {
    /// Matches everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    /// Matches nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Reads `a=b,c in (d,e),!f`. The error is upstream's message.
    pub fn parse(text: &str) -> Result<Self, String> {
        parser::parse(text).map(Self::from_requirements)
    }

    /// A selector from requirements.
    #[must_use]
    pub fn from_requirements(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Exactly these labels, unchecked (the plain selectors of services and replication controllers).
    pub fn from_set<'a>(set: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        };
        Self::from_requirements(set.into_iter().map(equals).collect())
    }

    /// From the API type: absent matches nothing, empty matches everything.
    pub fn from_meta(selector: Option<&meta::LabelSelector>) -> Result<Self, String> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let joined =
            |errors: ErrorList| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, vec![value.clone()]).map_err(joined)?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let mut values = expression.values.clone().unwrap_or_default();
            values.sort();
            requirements.push(Requirement::new(&expression.key, operator, values).map_err(joined)?);
        }
        Ok(Self::from_requirements(requirements))
    }

    /// Whether it has no requirement and so matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether it can match nothing at all.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// The requirements, by key.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether labels meet all requirements.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// The one value that a label must have, if the selector says so.
    #[must_use]
    pub fn requires_exact_match(&self, key: &str) -> Option<&str> {
        let requirement = self.requirements.iter().find(|r| r.key == key)?;
        match (requirement.operator, requirement.values.as_slice()) {
            (Operator::Equals | Operator::DoubleEquals | Operator::In, [value]) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pair = |p: &str| p.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        text.split(',').filter_map(pair).collect()
    }

    #[test]
    fn selectors_match_as_upstream() {
        let cases = [
            ("", "x=y", true),
            ("x=y", "x=y", true),
            ("x=y,z=w", "x=y,z=w", true),
            ("x!=y,z!=w", "x=z,z=a", true),
            ("notin=in", "notin=in", true),
            ("x", "x=z", true),
            ("!x", "y=z", true),
            ("x>1", "x=2", true),
            ("x<1", "x=0", true),
            ("x=z", "", false),
            ("x=y", "x=z", false),
            ("x!=y,z!=w", "x=z,z=w", false),
            ("!x", "x=z", false),
            ("x>1", "x=0", false),
            ("x<1", "x=2", false),
            ("x<1", "x=a", false),
            ("x in (a,b)", "x=b", true),
            ("x notin (a,b)", "y=b", true),
            ("x notin (a,b)", "x=b", false),
            ("x=", "x=", true),
        ];
        for (selector, set, want) in cases {
            let parsed = LabelSelector::parse(selector).unwrap_or_else(|e| panic!("{selector}: {e}"));
            assert_eq!(parsed.matches(&labels(set)), want, "{selector} on {set}");
        }
    }

    #[test]
    fn api_selectors_are_converted() {
        let selector = meta::LabelSelector {
            match_labels: Some(labels("app=web")),
            match_expressions: Some(vec![meta::LabelSelectorRequirement {
                key: "tier".into(),
                operator: "NotIn".into(),
                values: Some(vec!["b".into(), "a".into()]),
            }]),
        };
        let converted = LabelSelector::from_meta(Some(&selector)).unwrap();
        assert_eq!(converted.to_string(), "app=web,tier notin (a,b)");
        assert!(LabelSelector::from_meta(None).unwrap().is_nothing());
        assert!(LabelSelector::from_meta(Some(&meta::LabelSelector::default())).unwrap().is_empty());
    }

    fn any_requirement() -> impl Strategy<Value = String> {
        let key = "[a-c]{1,2}(/[a-c]{1,2})?";
        let values = proptest::collection::btree_set("[ab0]{0,2}", 1..3);
        let list = values.prop_map(|set| set.into_iter().collect::<Vec<_>>().join(","));
        let forms = prop::sample::select(vec![
            "K",
            "!K",
            "K=V",
            "K==V",
            "K!=V",
            "K in (L)",
            "K notin (L)",
            "K>1",
            "K<7",
        ]);
        (key, "[ab0]{0,2}", list, forms).prop_map(|(key, value, list, form)| {
            form.replace('K', &key).replace('V', &value).replace('L', &list)
        })
    }

    proptest! {
        #[test]
        fn any_selector_reads_back(
            requirements in proptest::collection::vec(any_requirement(), 0..4),
            set in proptest::collection::btree_map("[a-c]{1,2}", "[ab0]{0,2}", 0..4),
        ) {
            let text = requirements.join(", ");
            let selector = LabelSelector::parse(&text).unwrap_or_else(|why| panic!("{text}: {why}"));
            let back = LabelSelector::parse(&selector.to_string()).unwrap();
            prop_assert_eq!(back.to_string(), selector.to_string(), "{}", text);
            prop_assert_eq!(back.matches(&set), selector.matches(&set), "{}", text);
            let one_by_one = requirements.iter().all(|one| LabelSelector::parse(one).unwrap().matches(&set));
            prop_assert_eq!(selector.matches(&set), one_by_one, "{}", text);
        }
    }
}
