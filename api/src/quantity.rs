//! Amounts with units (upstream `apimachinery/pkg/api/resource.Quantity`): `100m`, `1.5Gi`, `2e3`.
//!
//! A quantity is `mantissa * 10^scale` and remembers the family of suffixes it was written with. Text that is
//! already canonical by upstream's (loose) test is kept as it stands, so `1.234` does not become `1234m`.
//! Mantissas are 128 bits wide; upstream's are unbounded, but nothing above 38 digits occurs in practice, and such
//! text is refused as not numeric.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

mod suffix;
#[cfg(test)]
mod tests;

/// The family of suffixes that a quantity is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `1e3`.
    DecimalExponent,
    /// Powers of 1024: `Ki`, `Mi` ...
    BinarySi,
    /// Powers of 1000: `m`, `k`, `M` ...
    DecimalSi,
}

/// Why text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text does not look like a quantity at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount with a unit family.
#[derive(Clone, Debug)]
pub struct Quantity {
    mantissa: i128,
    scale: i32,
    format: Format,
    text: Option<Box<str>>,
}

/// Powers of ten by name.
const NANO: i32 = -9;
const MILLI: i32 = -3;
/// Digits that upstream's fast path takes.
const MAX_FAST_DIGITS: i32 = 18;

impl Default for Quantity {
    fn default() -> Self {
        Self::new(0, Format::DecimalSi)
    }
}

impl Quantity {
    /// A whole number of units.
    #[must_use]
    pub fn new(value: i64, format: Format) -> Self {
        Self { mantissa: i128::from(value), scale: 0, format, text: None }
    }

    /// A number of thousandths.
    #[must_use]
    pub fn from_milli(value: i64, format: Format) -> Self {
        Self { mantissa: i128::from(value), scale: MILLI, format, text: None }
    }

    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Format);
        }
        if text == "0" {
            return Ok(Self { mantissa: 0, scale: 0, format: Format::DecimalSi, text: Some("0".into()) });
        }
        let parts = Parts::split(text)?;
        let suffix = suffix::interpret(parts.suffix).ok_or(Error::Suffix)?;
        match parts.fast(&suffix, text) {
            Some(quantity) => Ok(quantity),
            None => parts.slow(&suffix),
        }
    }

    /// The family of suffixes it is written with.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn sign(&self) -> i32 {
        self.mantissa.signum() as i32
    }

    /// Whole units, rounded away from zero; saturates.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.scaled_value(0)
    }

    /// Thousandths, rounded away from zero; saturates.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        self.scaled_value(MILLI)
    }

    /// Multiples of `10^scale`, rounded away from zero; saturates.
    #[must_use]
    pub fn scaled_value(&self, scale: i32) -> i64 {
        let (value, _) = rescale(self.mantissa, self.scale, scale);
        i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
    }

    /// The number, if it is written in whole units and small enough.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        let factor = 10i128.checked_pow(u32::try_from(self.scale).ok()?)?;
        i64::try_from(self.mantissa.checked_mul(factor)?).ok()
    }

    /// The nearest floating point number.
    #[must_use]
    pub fn as_f64(&self) -> f64 {
        self.mantissa as f64 * 10f64.powi(self.scale)
    }

    /// Drops digits below `10^scale`, rounding away from zero. True if nothing was lost.
    pub fn round_up(&mut self, scale: i32) -> bool {
        if self.scale >= scale {
            return true;
        }
        let (mantissa, exact) = rescale(self.mantissa, self.scale, scale);
        *self = Self { mantissa, scale, format: self.format, text: None };
        exact
    }

    /// Drops digits below thousandths, as upstream does with every resource list it reads.
    pub fn round_up_to_milli(&mut self) -> bool {
        self.round_up(MILLI)
    }

    /// Adds `other`; zero takes over the other's format.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, other.mantissa);
    }

    /// Subtracts `other`; zero takes over the other's format.
    pub fn sub(&mut self, other: &Self) {
        self.combine(other, other.mantissa.saturating_neg());
    }

    fn combine(&mut self, other: &Self, mantissa: i128) {
        self.text = None;
        if self.is_zero() {
            self.format = other.format;
        }
        let scale = self.scale.min(other.scale);
        let (a, _) = rescale(self.mantissa, self.scale, scale);
        let (b, _) = rescale(mantissa, other.scale, scale);
        (self.mantissa, self.scale) = (a.saturating_add(b), scale);
    }

    /// Multiplies by a whole number.
    pub fn mul(&mut self, factor: i64) {
        self.text = None;
        self.mantissa = self.mantissa.saturating_mul(i128::from(factor));
    }

    /// Changes the sign.
    pub fn neg(&mut self) {
        self.text = None;
        self.mantissa = self.mantissa.saturating_neg();
    }

    /// The number and exponent of the decimal canonical form: exponent a multiple of 3, number as short as it gets.
    fn decimal_parts(&self) -> (i128, i32) {
        let (mut number, mut exponent) = (self.mantissa, self.scale);
        while number != 0 && number % 10 == 0 {
            number /= 10;
            exponent += 1;
        }
        while exponent % 3 != 0 {
            number = number.saturating_mul(10);
            exponent -= 1;
        }
        (number, exponent)
    }

    /// The canonical text.
    #[must_use]
    pub fn canonical(&self) -> String {
        if self.is_zero() {
            return "0".to_owned();
        }
        let small =
            || *self > Self::new(-1024, Format::BinarySi) && *self < Self::new(1024, Format::BinarySi);
        if self.format == Format::BinarySi && !small() {
            let (mut number, exact) = rescale(self.mantissa, self.scale, 0);
            if exact {
                let mut exponent = 0;
                while number % 1024 == 0 {
                    number /= 1024;
                    exponent += 10;
                }
                return format!("{number}{}", suffix::construct(2, exponent, Format::BinarySi));
            }
        }
        let format = if self.format == Format::BinarySi { Format::DecimalSi } else { self.format };
        let (number, exponent) = self.decimal_parts();
        format!("{number}{}", suffix::construct(10, exponent, format))
    }
}

/// `mantissa * 10^from` as a multiple of `10^to`, rounded away from zero, and whether that was exact. Saturates.
fn rescale(mantissa: i128, from: i32, to: i32) -> (i128, bool) {
    let shift = from.saturating_sub(to);
    if shift >= 0 {
        let factor = u32::try_from(shift).ok().and_then(|s| 10i128.checked_pow(s));
        return match factor.and_then(|f| mantissa.checked_mul(f)) {
            Some(value) => (value, true),
            None if mantissa == 0 => (0, true),
            None => (if mantissa < 0 { i128::MIN } else { i128::MAX }, true),
        };
    }
    match 10i128.checked_pow(shift.unsigned_abs()) {
        Some(divisor) if mantissa % divisor == 0 => (mantissa / divisor, true),
        Some(divisor) => (mantissa / divisor + mantissa.signum(), false),
        None => (mantissa.signum(), mantissa == 0),
    }
}

/// The parts of the text of a quantity.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, Error> {
        let negative = text.starts_with('-');
        let rest = text.strip_prefix(['-', '+']).unwrap_or(text).trim_start_matches('0');
        let digits = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
        let (whole, mut rest) = rest.split_at(digits(rest));
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            (fraction, rest) = after.split_at(digits(after));
        }
        let letters = rest.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let tail = letters.strip_prefix(['-', '+']).unwrap_or(letters);
        if !tail.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::Format);
        }
        Ok(Self { negative, whole: if whole.is_empty() { "0" } else { whole }, fraction, suffix: rest })
    }

    fn signed(&self, value: i128) -> i128 {
        if self.negative { -value } else { value }
    }

    fn number(&self) -> Result<i128, Error> {
        // As upstream's decimal reader: "." and "" alone are no numbers, which its caller has already turned to "0".
        format!("{}{}", self.whole, self.fraction).parse().map_err(|_| Error::Numeric)
    }

    /// Numbers of up to 18 digits that need no rounding, with their text when it is canonical already.
    fn fast(&self, suffix: &suffix::Suffix, text: &str) -> Option<Quantity> {
        let digits = (self.whole.len() + self.fraction.len()) as i32;
        let (precision, factor, scale) = match suffix.format {
            Format::BinarySi if self.fraction.is_empty() => {
                let exponent = suffix.exponent;
                (15 - self.whole.len() as i32 - exponent * 3 / 10 - 1, 1i64.checked_shl(exponent as u32)?, 0)
            }
            Format::BinarySi => return None,
            _ => (MAX_FAST_DIGITS - digits, 1, suffix.exponent),
        };
        let scale = scale.checked_sub(self.fraction.len() as i32)?;
        if precision < 0 || scale < NANO {
            return None;
        }
        let shifted = format!("{}{}", self.whole, self.fraction);
        let value: i64 = shifted.parse().ok()?;
        let result = value.checked_mul(factor)?;
        let keep = match suffix.format {
            Format::BinarySi => value & 7 != 0,
            _ => scale % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0'),
        };
        let mantissa = self.signed(i128::from(result));
        Some(Quantity { mantissa, scale, format: suffix.format, text: keep.then(|| text.into()) })
    }

    /// Everything else: rounded up to billionths, and binary amounts capped at 2^63-1.
    fn slow(&self, suffix: &suffix::Suffix) -> Result<Quantity, Error> {
        let mut format = suffix.format;
        let mut mantissa = self.number()?;
        let mut scale = -(self.fraction.len() as i32);
        if format == Format::BinarySi {
            mantissa = mantissa.saturating_mul(1i128 << suffix.exponent);
        } else {
            scale = scale.saturating_add(suffix.exponent);
        }
        if scale < NANO {
            (mantissa, _) = rescale(mantissa, scale, NANO);
            scale = NANO;
        }
        if format == Format::BinarySi {
            let max = i128::from(i64::MAX);
            if rescale(mantissa, scale, 0).0 > max {
                (mantissa, scale) = (max, 0);
            }
            if mantissa > 0 && mantissa < 10i128.pow(scale.unsigned_abs()) {
                format = Format::DecimalSi;
            }
        }
        Ok(Quantity { mantissa: self.signed(mantissa), scale, format, text: None })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.pad(text),
            None => f.pad(&self.canonical()),
        }
    }
}

impl FromStr for Quantity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.scale == other.scale || self.sign() != other.sign() || self.is_zero() {
            let by_sign = self.sign().cmp(&other.sign());
            return by_sign.then(if self.scale == other.scale {
                self.mantissa.cmp(&other.mantissa)
            } else {
                Ordering::Equal
            });
        }
        let scale = self.scale.min(other.scale);
        rescale(self.mantissa, self.scale, scale).0.cmp(&rescale(other.mantissa, other.scale, scale).0)
    }
}

impl From<&Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(quantity: &Quantity) -> Self {
        Self(quantity.to_string())
    }
}

impl TryFrom<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> for Quantity {
    type Error = Error;

    fn try_from(quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Result<Self, Error> {
        Self::parse(&quantity.0)
    }
}

/// The text that upstream writes back for a quantity it has read: surrounding blanks gone, canonical.
pub fn canonicalize(text: &str) -> Result<String, Error> {
    Quantity::parse(text.trim()).map(|quantity| quantity.to_string())
}
