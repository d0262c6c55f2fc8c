//! Which devices an expression selects.
//!
//! A device is shown to expressions as a value of their own language, with quantities and versions: it is written
//! as an expression first.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use api::cel::{Bindings, Environment, Limits, Program, Value, device};
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};
use parking_lot::Mutex;

use super::inventory::Item;

/// So many answers are remembered.
const REMEMBERED: usize = 65_536;

/// Expression, and the slice with its version and the device.
type Question = (String, String, String);

/// Compiled expressions, and what they said of devices.
#[derive(Default)]
pub(super) struct Selectors {
    programs: Mutex<HashMap<String, Result<Program, String>>>,
    answers: Mutex<HashMap<Question, bool>>,
}

impl Selectors {
    /// Whether the expression selects the device.
    pub(super) fn matches(&self, expression: &str, item: Item<'_>) -> Result<bool, String> {
        let meta = &item.slice.metadata;
        let version = meta.resource_version.as_deref().unwrap_or_default();
        let slice = format!("{}/{version}", meta.uid.as_deref().unwrap_or_default());
        let question = (expression.to_owned(), slice, item.device.name.clone());
        if let Some(answer) = self.answers.lock().get(&question) {
            return Ok(*answer);
        }
        let answer = self.evaluate(expression, item)?;
        let mut answers = self.answers.lock();
        if answers.len() >= REMEMBERED {
            answers.clear();
        }
        answers.insert(question, answer);
        Ok(answer)
    }

    fn evaluate(&self, expression: &str, item: Item<'_>) -> Result<bool, String> {
        let program = self.program(expression)?;
        let device = shown(&item.pool.driver, item.device)?;
        let bindings = Bindings::new().bind("device", device);
        let limits = Limits { cost: Some(device::MAX_COST), interrupted: None };
        match program.evaluate(&bindings, limits).value {
            Ok(value) => value.as_bool().ok_or_else(|| "CEL expression must return bool".to_owned()),
            Err(fault) => Err(format!("CEL runtime error: {fault}")),
        }
    }

    fn program(&self, expression: &str) -> Result<Program, String> {
        let mut programs = self.programs.lock();
        let compile = || {
            let compiled = device::compile(expression);
            compiled.map(|selector| selector.program).map_err(|error| format!("CEL compile error: {error}"))
        };
        programs.entry(expression.to_owned()).or_insert_with(compile).clone()
    }
}

/// The device as a value.
fn shown(driver: &str, device: &Device) -> Result<Value<'static>, String> {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    let environment = ENVIRONMENT.get_or_init(Environment::kubernetes);
    let text = as_expression(driver, device);
    let checked =
        environment.compile(&text).map_err(|issues| format!("device {:?}: {issues}", device.name))?;
    let program = environment.program(&checked).map_err(|fault| fault.to_string())?;
    program.evaluate(&Bindings::new(), Limits::default()).value.map_err(|fault| fault.to_string())
}

fn as_expression(driver: &str, device: &Device) -> String {
    let attributes = device.attributes.iter().flatten();
    let attributes = attributes.filter_map(|(name, value)| Some((name, attribute(value)?)));
    let capacity = device.capacity.iter().flatten();
    let capacity = capacity.map(|(name, c)| (name, format!("quantity({})", quoted(&c.value.0))));
    format!(
        "{{\"driver\": dyn({}), \"allowMultipleAllocations\": dyn({}), \"attributes\": dyn({}), \"capacity\": dyn({})}}",
        quoted(driver),
        device.allow_multiple_allocations.unwrap_or(false),
        by_domain(driver, attributes),
        by_domain(driver, capacity),
    )
}

/// Names without a domain are of the driver's.
fn by_domain<'a>(driver: &str, values: impl Iterator<Item = (&'a String, String)>) -> String {
    let mut domains: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in values {
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        domains.entry(domain).or_default().push(format!("{}: dyn({value})", quoted(id)));
    }
    let domains =
        domains.into_iter().map(|(domain, all)| format!("{}: {{{}}}", quoted(domain), all.join(", ")));
    format!("{{{}}}", domains.collect::<Vec<_>>().join(", "))
}

fn attribute(value: &DeviceAttribute) -> Option<String> {
    if let Some(text) = &value.string {
        return Some(quoted(text));
    }
    if let Some(version) = &value.version {
        return Some(format!("semver({})", quoted(version)));
    }
    value.int.map(|number| number.to_string()).or_else(|| value.bool.map(|truth| truth.to_string()))
}

/// JSON's quotes and escapes are CEL's too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
