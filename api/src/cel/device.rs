//! Expressions that select devices (upstream `dynamic-resource-allocation/cel`).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::admission::{Failure, type_text};
use super::cost::{Range, Sizes, estimate};
use super::declared::{Declared, Parts};
use super::env::{Environment, Program};
use super::ty::Type;

/// The most that one selector may cost.
pub const MAX_COST: u64 = 1_000_000;

const DEVICE: &str = "device";
/// The longest domain of an attribute or capacity, in bytes.
const MAX_DOMAIN: i64 = 63;
/// The longest name within a domain.
const MAX_ID: i64 = 32;
/// The longest text that is the value of an attribute.
const MAX_VALUE: i64 = 64;
/// The most attributes and capacities of one device.
const MAX_ATTRIBUTES: i64 = 32;

/// A selector of devices, compiled.
#[derive(Clone, Debug)]
pub struct Selector {
    /// What evaluates it, to a truth value if the device has the attributes for it.
    pub program: Program,
    /// What it costs at most.
    pub max_cost: u64,
}

/// Compiles a selector.
///
/// # Errors
/// When it is not an expression, or evaluates to something that cannot be a truth value.
pub fn compile(expression: &str) -> Result<Selector, Failure> {
    static ENVIRONMENT: OnceLock<(Environment, DeviceSizes)> = OnceLock::new();
    let (env, sizes) = ENVIRONMENT.get_or_init(|| {
        let device = Arc::new(device_type());
        let env = Environment::kubernetes().with_bindings().with_declared(DEVICE, &device);
        (env, DeviceSizes(device))
    });
    let checked = env.compile(expression).map_err(Failure::Issues)?;
    let found = checked.output_type();
    if !matches!(found, Type::Bool | Type::Any) {
        let found = type_text(&found);
        return Err(Failure::Type(format!("must evaluate to bool or the unknown type, not {found}")));
    }
    let program = env.program(&checked).map_err(|why| Failure::Program(why.to_string()))?;
    Ok(Selector { program, max_cost: estimate(&checked, sizes).max })
}

/// The type of `device`.
fn device_type() -> Declared {
    let domains = |value: Declared| Declared::map(Declared::map(value, MAX_ATTRIBUTES), MAX_ATTRIBUTES);
    let quantity = Declared::scalar("kubernetes.Quantity", Type::object("kubernetes.Quantity"), 2, 0);
    let fields = [
        ("driver", Declared::scalar("string", Type::String, 2, MAX_DOMAIN)),
        ("allowMultipleAllocations", Declared::scalar("bool", Type::Bool, 4, 1)),
        ("attributes", domains(Declared::scalar("any", Type::Any, 1, MAX_VALUE))),
        ("capacity", domains(quantity)),
    ];
    let fields = fields.into_iter().map(|(name, declared)| (name.to_owned(), Arc::new(declared)));
    Declared::object("kubernetes.DRADevice", fields.collect::<BTreeMap<_, _>>())
}

/// Knows how large the parts of a device can be.
struct DeviceSizes(Arc<Declared>);

impl Sizes for DeviceSizes {
    fn size(&self, path: &[&str]) -> Option<Range> {
        let (first, rest) = path.split_first()?;
        if *first != DEVICE {
            return None;
        }
        let mut at = &self.0;
        for (depth, step) in rest.iter().enumerate() {
            at = match (&at.parts, *step) {
                (Parts::List(part) | Parts::Map(part), "@items" | "@values") => part,
                (Parts::Map(part), "@keys") => {
                    let longest = if matches!(part.parts, Parts::Map(_)) { MAX_DOMAIN } else { MAX_ID };
                    return (depth + 1 == rest.len()).then(|| at_most(longest));
                }
                (Parts::Object(fields), name) => fields.get(name)?,
                // Attributes are all of one size, whatever they are called.
                (Parts::Map(part), _) if part.ty == Type::Any => part,
                _ => return None,
            };
        }
        Some(at_most(at.max_elements))
    }
}

fn at_most(max: i64) -> Range {
    Range { min: 0, max: u64::try_from(max).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of upstream's tests, with what they cost at most there.
    #[test]
    fn what_a_selector_costs_is_known_beforehand() {
        const TEN: &str = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
        let mut nested = "int('1'.find('[0-9]*')) < 100".to_owned();
        for variable in ["z5", "z4", "z3", "z2", "z", "y", "x"] {
            nested = format!("{TEN}.all({variable}, {nested})");
        }
        let attribute = |rest: &str| format!("device.attributes[\"dra.example.com\"]{rest}");
        let cases = [
            ("\"dra.example.com\" in device.attributes".to_owned(), 3),
            ("device.driver == \"\"".to_owned(), 2),
            ("device.driver == \"dra.example.com\"".to_owned(), 4),
            (attribute(".name"), 4),
            (attribute("[\"name\"]"), 4),
            (format!("cel.bind(dra, {}, dra.name)", attribute("")), 15),
            (attribute(".name > 0"), 5),
            (attribute(".name == \"fish\""), 5),
            (attribute(".name.isGreaterThan(semver(\"0.0.1\"))"), 6),
            (attribute(".services.split(\"example\").size() >= 2"), 19),
            (attribute(".services.matches(\"[^a]?sym\")"), 18),
            (attribute(".exists_one(x, x == \"services\")"), 133),
            ("device.attributes.exists_one(x, x == \"dra.example.com\")".to_owned(), 164),
            ("device.capacity.exists_one(x, x == \"dra.example.com\")".to_owned(), 164),
            ("device.capacity[\"dra.example.com\"].exists_one(x, x == \"memory\")".to_owned(), 133),
            ("device.capacity[\"dra.example.com\"].name.isGreaterThan(quantity(\"1Ki\"))".to_owned(), 6),
            ("device.allowMultipleAllocations == true".to_owned(), 3),
            (nested, 85_555_551),
        ];
        for (expression, wanted) in cases {
            let cost = compile(&expression).map(|selector| selector.max_cost).map_err(|why| why.to_string());
            assert_eq!(cost, Ok(wanted), "{expression}");
        }
    }

    #[test]
    fn selectors_that_cannot_be_are_refused() {
        let wrong = [
            ("1", "must evaluate to bool or the unknown type, not int"),
            ("device.driver", "must evaluate to bool or the unknown type, not string"),
            ("device.nothing", "compilation failed: ERROR: <input>:1:7: undefined field 'nothing'"),
            (
                "other",
                "compilation failed: ERROR: <input>:1:1: undeclared reference to 'other' (in container '')",
            ),
        ];
        for (expression, wanted) in wrong {
            let why = compile(expression).map(|_| ()).map_err(|why| why.to_string()).unwrap_err();
            assert!(why.starts_with(wanted), "{expression}: {why}");
        }
    }
}
