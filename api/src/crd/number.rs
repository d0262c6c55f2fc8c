//! The keywords for numbers (upstream `kube-openapi/pkg/validation/validate` `numberValidator` and `values.go`).
//! Bounds are floats; they are compared as integers where the value is one, and must then fit such integers.

use serde_json::{Number, Value};

use super::props::Props;
use super::value::{Outcome, Problem};

/// What a number must satisfy.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    multiple_of: Option<f64>,
    maximum: Option<f64>,
    exclusive_maximum: bool,
    minimum: Option<f64>,
    exclusive_minimum: bool,
    kind: String,
    format: String,
}

impl Limits {
    pub(super) fn new(schema: &Props, types: &[String], format: &str) -> Self {
        let kind = match types {
            [one] if one == "integer" || one == "number" => one.clone(),
            _ => String::new(),
        };
        let format = match (kind.as_str(), format) {
            ("integer", "int32" | "int64") | ("number", "float" | "double") => format.to_owned(),
            _ => String::new(),
        };
        Self {
            multiple_of: schema.multiple_of,
            maximum: schema.maximum,
            exclusive_maximum: schema.exclusive_maximum.unwrap_or_default(),
            minimum: schema.minimum,
            exclusive_minimum: schema.exclusive_minimum.unwrap_or_default(),
            kind,
            format,
        }
    }

    pub(super) fn check(&self, number: &Number, path: &str) -> Outcome {
        let mut outcome = Outcome::default();
        let value = Operand::of(number);
        self.fits(value, "Checked", path).into_iter().for_each(|problem| outcome.add(problem));
        let each = [
            (self.multiple_of, "MultipleOf", Self::multiple as Check),
            (self.minimum, "Minimum boundary", Self::not_below),
            (self.maximum, "Maximum boundary", Self::not_above),
        ];
        for (bound, what, check) in each {
            let Some(bound) = bound else { continue };
            let unfit = self.fits(Operand::Float(bound), what, path);
            // A bound that is no integer makes the comparison one of floats.
            let value = if unfit.is_some() { Operand::Float(value.float()) } else { value };
            unfit.into_iter().for_each(|problem| outcome.add(problem));
            check(self, value, bound, number, path).into_iter().for_each(|problem| outcome.add(problem));
        }
        outcome.increment();
        outcome
    }

    /// Whether a number is in the range of the type and format.
    fn fits(&self, value: Operand, what: &str, path: &str) -> Option<Problem> {
        let integer = match value {
            Operand::Int(value) => Some(value),
            Operand::Float(value) => (value.fract() == 0.0 && value.abs() < 9.3e18).then_some(value as i64),
        };
        let good = match (self.kind.as_str(), self.format.as_str()) {
            ("integer", "int32") => integer.is_some_and(|value| i32::try_from(value).is_ok()),
            ("integer", _) => integer.is_some(),
            (_, "float") => (value.float() as f32).is_finite(),
            _ => true,
        };
        if good {
            return None;
        }
        let of = if self.format.is_empty() {
            format!("{} (default format)", self.kind)
        } else {
            format!("{} with format {}", self.kind, self.format)
        };
        Some(Problem::general(format!("{what} value must be of type {of} in {path}")))
    }

    fn multiple(&self, value: Operand, factor: f64, shown: &Number, path: &str) -> Option<Problem> {
        let (positive, whole, factor_text) = match value {
            Operand::Int(value) => {
                let factor = factor as i64;
                (factor > 0, factor > 0 && value % factor == 0, factor.to_string())
            }
            Operand::Float(value) => {
                let times = if factor < 1.0 { 1.0 / factor * value } else { value / factor };
                (factor > 0.0, is_integer_float(times), go_float(factor))
            }
        };
        if !positive {
            let message = format!("factor MultipleOf declared for {path} must be positive: {factor_text}");
            return Some(Problem::invalid(path, factor_value(value, factor), message));
        }
        let message = || format!("{path} in body should be a multiple of {factor_text}");
        (!whole).then(|| Problem::invalid(path, Value::Number(shown.clone()), message()))
    }

    fn not_above(&self, value: Operand, max: f64, shown: &Number, path: &str) -> Option<Problem> {
        let exclusive = self.exclusive_maximum;
        let (bad, text) = match value {
            Operand::Int(value) => {
                (value > max as i64 || exclusive && value == max as i64, (max as i64).to_string())
            }
            Operand::Float(value) => (value > max || exclusive && value == max, go_float(max)),
        };
        let message = match exclusive {
            false => format!("{path} in body should be less than or equal to {text}"),
            true => format!("{path} in body should be less than {text}"),
        };
        bad.then(|| Problem::invalid(path, Value::Number(shown.clone()), message))
    }

    fn not_below(&self, value: Operand, min: f64, shown: &Number, path: &str) -> Option<Problem> {
        let exclusive = self.exclusive_minimum;
        let (bad, text) = match value {
            Operand::Int(value) => {
                (value < min as i64 || exclusive && value == min as i64, (min as i64).to_string())
            }
            Operand::Float(value) => (value < min || exclusive && value == min, go_float(min)),
        };
        let message = match exclusive {
            false => format!("{path} in body should be greater than or equal to {text}"),
            true => format!("{path} in body should be greater than {text}"),
        };
        bad.then(|| Problem::invalid(path, Value::Number(shown.clone()), message))
    }
}

type Check = fn(&Limits, Operand, f64, &Number, &str) -> Option<Problem>;

#[derive(Clone, Copy)]
enum Operand {
    Int(i64),
    Float(f64),
}

impl Operand {
    fn of(number: &Number) -> Self {
        match number.as_i64() {
            Some(value) => Self::Int(value),
            None => Self::Float(number.as_f64().unwrap_or_default()),
        }
    }

    fn float(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

fn factor_value(value: Operand, factor: f64) -> Value {
    match value {
        Operand::Int(_) => Value::from(factor as i64),
        Operand::Float(_) => Value::from(factor),
    }
}

/// Whether a JSON number has no fraction, give or take what floats cannot tell.
pub(super) fn is_integer(value: &Value) -> bool {
    value.as_f64().is_some_and(is_integer_float)
}

/// As go-openapi's `IsFloat64AJSONInteger`.
fn is_integer_float(value: f64) -> bool {
    const MAX: f64 = 9_007_199_254_740_991.0;
    const EPSILON: f64 = 1e-9;
    if !value.is_finite() || !(-MAX - 1.0..=MAX).contains(&value) {
        return false;
    }
    let rounded = value.round();
    let difference = (value - rounded).abs();
    difference == 0.0 || rounded != 0.0 && difference < EPSILON * rounded.abs()
}

/// A float as Go's `%v` prints it.
pub(crate) fn go_float(value: f64) -> String {
    let exponent = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    if (-4..21).contains(&exponent) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_go() {
        for (value, want) in [
            (5.0, "5"),
            (1.5, "1.5"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1e-5, "1e-05"),
            (0.1, "0.1"),
        ] {
            assert_eq!(go_float(value), want);
        }
    }

    #[test]
    fn whole_floats_are_integers() {
        for (value, want) in
            [(1.0, true), (1.5, false), (1e16, false), (-3.0, true), (0.0, true), (0.1 * 3.0 / 0.1, true)]
        {
            assert_eq!(is_integer_float(value), want, "{value}");
        }
    }
}
