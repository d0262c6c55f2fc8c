//! Objects against the rules of their schema (upstream `cel.Validator`).

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use serde_json::Value as Json;

use super::super::correlate::Correlated;
use super::super::props::{Props, PropsExt, list, text};
use super::{BUDGET, CALL_LIMIT, Compiled, OLD_SELF, SELF, compile, declared};
use crate::cel::{Bindings, Fault, Limits, Program, Shape, Value, escape};
use crate::field::{Error, ErrorList, Path};

/// The longest message that an expression may give, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What came of checking an object.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What is wrong.
    pub errors: ErrorList,
    /// What was wrong before and has not been changed.
    pub warnings: Vec<String>,
}

/// The rules of a schema and of all below it.
#[derive(Debug)]
pub(crate) struct Rules {
    rules: Vec<(ValidationRule, Compiled)>,
    /// Why no rule here can be used.
    broken: Option<&'static str>,
    kind: String,
    shape: Shape,
    /// Whether fields have an old value: not if maps are of an unknown type.
    correlates: bool,
    map_keys: Option<Vec<String>>,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
    fields: BTreeMap<String, Rules>,
    all_of: Vec<Rules>,
}

impl Rules {
    /// The rules of the schema of a resource; `None` if it has none.
    pub(crate) fn of_resource(schema: &Props) -> Option<Self> {
        Self::new(schema, schema, true)
    }

    /// The rules of one schema, for its default. `root`: whether it is one of a whole object.
    pub(crate) fn of_default(schema: &Props, root: bool) -> Option<Self> {
        Self::new(schema, schema, root)
    }

    /// The rules that `checked` states of data which `schema` describes.
    fn new(checked: &Props, schema: &Props, root: bool) -> Option<Self> {
        if !any_rule(checked) {
            return None;
        }
        let ty = declared(schema, root);
        let compiled = ty.as_ref().map(|ty| compile(checked.rules(), schema, ty)).unwrap_or_default();
        let missing = ty.is_none() && !checked.rules().is_empty();
        let json = serde_json::to_value(schema).unwrap_or(Json::Null);
        let below = |checked: Option<&Props>, schema: Option<&Props>| {
            let (checked, schema) = (checked?, schema?);
            Self::new(checked, schema, schema.embedded()).map(Box::new)
        };
        let field = |(name, checked): (&String, &Props)| {
            let schema = schema.field(name)?;
            // Expressions do not see it, and so it has no rules either.
            if escape(name).is_some() && declared(schema, schema.embedded()).is_none() {
                return None;
            }
            Some((name.clone(), Self::new(checked, schema, schema.embedded())?))
        };
        Some(Self {
            rules: checked.rules().iter().cloned().zip(compiled).collect(),
            broken: missing.then_some("failed to convert to declType for CEL validation rules"),
            kind: schema.kind().to_owned(),
            shape: if root { Shape::of_resource(&json) } else { Shape::of_schema(&json) },
            correlates: matches!(schema.map_type(), "" | "granular" | "atomic"),
            map_keys: (schema.list_type() == "map").then(|| schema.map_keys().to_vec()),
            items: below(checked.item(), schema.item()),
            additional: below(checked.additional(), schema.additional()),
            fields: checked.fields().filter_map(field).collect(),
            all_of: list(&checked.all_of).iter().filter_map(|part| Self::new(part, schema, root)).collect(),
        })
    }

    /// Checks an object; `old` is what it was before.
    pub(crate) fn check(&self, object: &Json, old: Option<&Json>, schema: &Props) -> Verdict {
        let correlated = old.map(|old| Correlated::new(object, old, schema));
        let mut run = Run { budget: BUDGET, over: false, verdict: Verdict::default() };
        let place = Place { own: correlated.as_ref(), above: None };
        run.value(self, &Path::root(), object, old, place);
        run.verdict
    }

    /// Checks a default as a value that is and stays, and, if it may be that, as one that comes. What is left of the
    /// budget after the dearer of the two is left for others; `None` when it is used up.
    pub(crate) fn check_default(&self, default: &Json, path: &Path, budget: u64) -> (ErrorList, Option<u64>) {
        let check = |old| {
            let mut run = Run { budget, over: false, verdict: Verdict::default() };
            run.value(self, path, default, old, Place { own: None, above: None });
            (run.verdict.errors, (!run.over).then_some(run.budget))
        };
        let (errors, left) = check(Some(default));
        if !errors.is_empty() {
            return (errors, left);
        }
        let (errors, other) = check(None);
        (errors, left.min(other))
    }
}

fn any_rule(schema: &Props) -> bool {
    !schema.rules().is_empty()
        || schema.item().is_some_and(any_rule)
        || schema.additional().is_some_and(any_rule)
        || schema.fields().any(|(_, field)| any_rule(field))
        || list(&schema.all_of).iter().any(any_rule)
}

/// A value beside its old one, as far as there is one, and the nearest one above that has an old one.
#[derive(Clone, Copy)]
struct Place<'p, 'd> {
    own: Option<&'p Correlated<'d>>,
    above: Option<&'p Correlated<'d>>,
}

impl<'p, 'd> Place<'p, 'd> {
    /// Whether what is wrong here was so before.
    fn is_unchanged(&self) -> bool {
        self.own.or(self.above).is_some_and(Correlated::is_unchanged)
    }

    fn below<'q>(self, found: Option<&'q Correlated<'d>>) -> Place<'q, 'd>
    where
        'p: 'q,
    {
        match self.own {
            None => self,
            Some(own) => Place { own: found, above: Some(own) },
        }
    }

    /// Changes of a resource's type and version are not seen, and excuse nothing.
    fn field<'q>(self, name: &str, found: Option<&'q Correlated<'d>>) -> Place<'q, 'd>
    where
        'p: 'q,
    {
        if self.own.is_some() && self.above.is_none() && matches!(name, "apiVersion" | "kind") {
            return Place { own: None, above: None };
        }
        self.below(found)
    }
}

struct Run {
    budget: u64,
    over: bool,
    verdict: Verdict,
}

impl Run {
    fn value(&mut self, rules: &Rules, path: &Path, value: &Json, old: Option<&Json>, place: Place<'_, '_>) {
        if self.over || value.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        self.own(rules, path, value, old, place);
        for part in &rules.all_of {
            if self.over {
                return;
            }
            self.value(part, path, value, old, Place { own: None, above: place.above });
        }
        match value {
            Json::Array(items) => self.items(rules, path, items, old, place),
            Json::Object(fields) => {
                for (name, value) in fields {
                    let old = old.and_then(|old| old.get(name)).filter(|_| rules.correlates);
                    let found = place.own.and_then(|own| own.key(name));
                    let place = place.field(name, found.as_ref());
                    if let Some(below) = &rules.additional {
                        self.value(below, &path.key(name), value, old, place);
                    }
                    if let Some(below) = rules.fields.get(name) {
                        self.value(below, &path.child(name), value, old, place);
                    }
                }
            }
            _ => {}
        }
    }

    fn items(
        &mut self,
        rules: &Rules,
        path: &Path,
        items: &[Json],
        old: Option<&Json>,
        place: Place<'_, '_>,
    ) {
        let Some(below) = &rules.items else { return };
        let keys = rules.map_keys.as_deref();
        let key = |item: &Json| {
            let parts: Vec<Option<&Json>> = keys?.iter().map(|key| item.get(key)).collect();
            serde_json::to_string(&parts).ok()
        };
        let known: HashMap<String, &Json> = old
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .rev()
            .filter_map(|item| Some((key(item)?, item)))
            .collect();
        for (i, item) in items.iter().enumerate() {
            let old = key(item).and_then(|key| known.get(&key).copied());
            let found = place.own.and_then(|own| own.index(i));
            self.value(below, &path.index(i), item, old, place.below(found.as_ref()));
        }
    }

    /// The rules that are about this very value.
    fn own(&mut self, rules: &Rules, path: &Path, value: &Json, old: Option<&Json>, place: Place<'_, '_>) {
        let wrong = |detail: String| Error::invalid(path, rules.kind.clone(), detail);
        if let Some(why) = rules.broken {
            return self.verdict.errors.push(wrong(format!("rule compiler initialization error: {why}")));
        }
        if rules.rules.is_empty() {
            return;
        }
        if self.budget == 0 {
            self.over = true;
            return self.verdict.errors.push(wrong(OUT_OF_BUDGET.to_owned()));
        }
        let data = match Data::new(rules, value, old) {
            Ok(data) => data,
            Err(why) => return self.verdict.errors.push(wrong(why.to_string())),
        };
        for (rule, compiled) in &rules.rules {
            if let Some(why) = &compiled.error {
                self.verdict.errors.push(wrong(format!("rule compile error: {why}")));
                continue;
            }
            let Some(program) = &compiled.program else { continue };
            let optional = rule.optional_old_self == Some(true);
            if compiled.uses_old && old.is_none() && !optional {
                continue;
            }
            let bindings = if optional { &data.optional } else { &data.plain };
            match self.evaluate(program, bindings) {
                Ok(result) if result.as_bool() == Some(true) => {}
                Ok(_) => self.broken_rule(rules, (rule, compiled), path, value, (&data, place)),
                Err(Stop::Budget) => self.verdict.errors.push(wrong(OUT_OF_BUDGET.to_owned())),
                Err(Stop::Fault(fault)) => {
                    let (why, rule) = (fault.to_string(), named(rule));
                    let detail = if why.starts_with("no such overload") {
                        format!(
                            "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {rule}"
                        )
                    } else if matches!(fault, Fault::CostLimit) {
                        self.over = true;
                        format!(
                            "'{why}': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"
                        )
                    } else {
                        format!("{why} evaluating rule: {rule}")
                    };
                    self.verdict.errors.push(wrong(detail));
                }
            }
            if self.over {
                return;
            }
        }
    }

    /// Evaluates within the budget.
    fn evaluate<'v>(&mut self, program: &Program, bindings: &Bindings<'v>) -> Result<Value<'v>, Stop> {
        let limits = Limits { cost: Some(CALL_LIMIT), ..Limits::default() };
        let outcome = program.evaluate(bindings, limits);
        match self.budget.checked_sub(outcome.cost) {
            Some(rest) => self.budget = rest,
            None => {
                self.over = true;
                return Err(Stop::Budget);
            }
        }
        outcome.value.map_err(Stop::Fault)
    }

    /// A rule does not hold: says so in its words.
    fn broken_rule(
        &mut self,
        rules: &Rules,
        (rule, compiled): (&ValidationRule, &Compiled),
        path: &Path,
        value: &Json,
        (data, place): (&Data<'_>, Place<'_, '_>),
    ) {
        let path = match &compiled.field {
            Some(field) => path.child(field),
            None => path.clone(),
        };
        let detail = match &compiled.message {
            None => None,
            Some(program) => match self.message(program, text(&rule.message_expression), &data.plain) {
                Ok(message) => message,
                Err(why) => {
                    self.over = true;
                    let error = Error::invalid(&path, rules.kind.clone(), why);
                    return self.tell(error, compiled, place);
                }
            },
        };
        let detail = detail.unwrap_or_else(|| match text(&rule.message) {
            "" => format!("failed rule: {}", rule.rule.trim()),
            message => message.trim().to_owned(),
        });
        let whole = matches!(rules.kind.as_str(), "object" | "array");
        let error = match rule.reason.as_deref() {
            Some("FieldValueForbidden") => Error::forbidden(&path, detail),
            Some("FieldValueRequired") => Error::required(&path, detail),
            Some("FieldValueDuplicate") if whole => Error::duplicate(&path, Json::Null).without_value(),
            Some("FieldValueDuplicate") => Error::duplicate(&path, value.clone()),
            _ if whole => Error::invalid_omitted(&path, detail),
            _ => Error::invalid(&path, value.clone(), detail),
        };
        self.tell(error, compiled, place);
    }

    fn tell(&mut self, error: Error, compiled: &Compiled, place: Place<'_, '_>) {
        if !compiled.uses_old && place.is_unchanged() {
            self.verdict.warnings.push(error.to_string());
        } else {
            self.verdict.errors.push(error);
        }
    }

    /// What the message expression says; `None` if it says nothing of use. The error ends all.
    fn message(
        &mut self,
        program: &Program,
        source: &str,
        bindings: &Bindings<'_>,
    ) -> Result<Option<String>, String> {
        match self.evaluate(program, bindings) {
            Err(Stop::Budget) => Err("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".to_owned()),
            Err(Stop::Fault(Fault::CostLimit)) => Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {source:?}"
            )),
            // No concern of the client's: the rule's own message stands in for it.
            Err(Stop::Fault(_)) => Ok(None),
            Ok(value) => {
                let message = value.as_str().map(str::trim).unwrap_or_default();
                let usable = !message.is_empty() && message.len() <= MAX_MESSAGE && !message.contains('\n');
                Ok(usable.then(|| message.to_owned()))
            }
        }
    }
}

enum Stop {
    Budget,
    Fault(Fault),
}

/// What a rule is called in messages.
fn named(rule: &ValidationRule) -> &str {
    match text(&rule.message) {
        "" => rule.rule.trim(),
        message => message.trim(),
    }
}

/// The variables of rules.
struct Data<'v> {
    plain: Bindings<'v>,
    /// As those see it whose old value is optional.
    optional: Bindings<'v>,
}

impl<'v> Data<'v> {
    fn new(rules: &'v Rules, value: &'v Json, old: Option<&'v Json>) -> Result<Self, Fault> {
        let own = Bindings::new().bind(SELF, Value::from_shaped(value, &rules.shape)?);
        let old = old.map(|old| Value::from_shaped(old, &rules.shape)).transpose()?;
        let wrapped = old.clone().map_or(Value::Optional(None), Value::some);
        let optional = own.clone().bind(OLD_SELF, wrapped);
        let plain = match old {
            Some(old) => own.bind(OLD_SELF, old),
            None => own,
        };
        Ok(Self { plain, optional })
    }
}
