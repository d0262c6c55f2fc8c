//! Amounts as Go's `resource.Quantity` keeps them after reading its text (upstream `ParseQuantity`).
//!
//! A dump shows private fields: whether the amount fits a scaled `int64` or became an `inf.Dec`, and whether its text
//! was canonical enough to be kept.

use std::fmt::{self, Write};

/// Digits that a decimal amount may have to be kept as a scaled integer.
const DECIMAL_DIGITS: usize = 18;
/// Exponents beyond this are cut: no amount is that large.
const MAX_EXPONENT: i32 = 200;

/// Writes the fields of the amount that `text` says; nothing is written as 0.
pub fn write(text: &str, out: &mut impl Write) -> fmt::Result {
    let canonical = api::quantity::canonicalize(text).unwrap_or_else(|_| "0".to_owned());
    let parsed = Parsed::read(&canonical);
    let (value, scale) = match parsed.amount {
        Amount::Scaled { value, scale } => (value, scale),
        Amount::Decimal { .. } => (0, 0),
    };
    write!(out, "{{i:(resource.int64Amount){{value:(int64){value} scale:(resource.Scale){scale}}}")?;
    out.write_str(" d:(resource.infDecAmount){Dec:(*inf.Dec)")?;
    match &parsed.amount {
        Amount::Scaled { .. } => out.write_str("<nil>")?,
        Amount::Decimal { negative, words, scale } => {
            write!(out, "{{unscaled:(big.Int){{neg:(bool){negative} abs:(big.nat)[")?;
            for (at, word) in words.iter().enumerate() {
                write!(out, "{}{word}", if at == 0 { "" } else { " " })?;
            }
            write!(out, "]}} scale:(inf.Scale){scale}}}")?;
        }
    }
    let kept = if parsed.kept { canonical.as_str() } else { "" };
    write!(out, "}} s:(string){kept} Format:(resource.Format){}}}", parsed.format)
}

/// An amount as it was read.
struct Parsed {
    amount: Amount,
    /// Whether the text is kept beside the amount.
    kept: bool,
    format: &'static str,
}

/// The two ways to keep a number.
enum Amount {
    /// `value * 10^scale`.
    Scaled { value: i64, scale: i32 },
    /// An integer of any size, in words of 64 bits from the lowest, over `10^scale`.
    Decimal { negative: bool, words: Vec<u64>, scale: i32 },
}

impl Parsed {
    /// Reads a canonical text. Those have fractions only where a scaled integer can keep them.
    fn read(text: &str) -> Self {
        if text == "0" {
            return Self { amount: Amount::Scaled { value: 0, scale: 0 }, kept: true, format: "DecimalSI" };
        }
        let negative = text.starts_with('-');
        let rest = text.strip_prefix(['-', '+']).unwrap_or(text).trim_start_matches('0');
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = Digits { negative, whole: if whole.is_empty() { "0" } else { whole }, fraction };
        match Suffix::read(suffix) {
            Suffix::Binary(bits) => digits.binary(bits),
            Suffix::Decimal(exponent, format) => digits.decimal(exponent, format),
        }
    }
}

/// What stands behind the number.
enum Suffix {
    /// A power of two.
    Binary(u32),
    /// A power of ten, and the family of suffixes.
    Decimal(i32, &'static str),
}

impl Suffix {
    fn read(text: &str) -> Self {
        const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        if let Some(at) = BINARY.iter().position(|suffix| *suffix == text) {
            return Self::Binary(10 * (at as u32 + 1));
        }
        if let Some(at) = DECIMAL.iter().position(|suffix| *suffix == text) {
            return Self::Decimal(3 * at as i32 - 9, "DecimalSI");
        }
        Self::Decimal(
            text.get(1..).and_then(|exponent| exponent.parse().ok()).unwrap_or(0),
            "DecimalExponent",
        )
    }
}

/// The digits of an amount.
struct Digits<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
}

impl Digits<'_> {
    fn signed(&self, value: i64) -> i64 {
        if self.negative { -value } else { value }
    }

    fn decimal(&self, exponent: i32, format: &'static str) -> Parsed {
        let shifted = format!("{}{}", self.whole, self.fraction);
        let scale = exponent.saturating_sub(self.fraction.len() as i32);
        if let Ok(value) = shifted.parse::<i64>()
            && shifted.len() <= DECIMAL_DIGITS
            && scale >= -9
        {
            let kept = scale % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0');
            return Parsed { amount: Amount::Scaled { value: self.signed(value), scale }, kept, format };
        }
        let words = times_ten_to(words(&shifted), scale.saturating_add(9).clamp(0, MAX_EXPONENT));
        Parsed { amount: Amount::Decimal { negative: self.negative, words, scale: 9 }, kept: false, format }
    }

    fn binary(&self, bits: u32) -> Parsed {
        let format = "BinarySI";
        // As upstream counts: fifteen digits, less those of the number and about three for ten bits.
        let precise = self.whole.len() as u32 + bits * 3 / 10 < 15;
        let value = self.whole.parse::<i64>().ok();
        if let Some((value, result)) = value.and_then(|value| Some((value, value.checked_mul(1 << bits)?)))
            && precise
        {
            let amount = Amount::Scaled { value: self.signed(result), scale: 0 };
            return Parsed { amount, kept: value & 7 != 0, format };
        }
        let whole = (0..bits).fold(words(self.whole), |number, _| times_plus(number, 2, 0));
        let (words, scale) = match whole[..] {
            [word] if word <= i64::MAX as u64 => (times_ten_to(whole, 9), 9),
            _ => (vec![i64::MAX as u64], 0),
        };
        Parsed { amount: Amount::Decimal { negative: self.negative, words, scale }, kept: false, format }
    }
}

/// The number that these digits write.
fn words(digits: &str) -> Vec<u64> {
    digits.bytes().fold(Vec::new(), |number, digit| times_plus(number, 10, u64::from(digit - b'0')))
}

fn times_ten_to(number: Vec<u64>, exponent: i32) -> Vec<u64> {
    (0..exponent).fold(number, |number, _| times_plus(number, 10, 0))
}

/// `number * factor + more`.
fn times_plus(mut number: Vec<u64>, factor: u64, more: u64) -> Vec<u64> {
    let mut carry = u128::from(more);
    for word in &mut number {
        carry += u128::from(*word) * u128::from(factor);
        *word = carry as u64;
        carry >>= 64;
    }
    if carry > 0 {
        number.push(carry as u64);
    }
    number
}
