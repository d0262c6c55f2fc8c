//! Reading of Kubernetes quantities (`100m`, `1Gi`, `2e3`) as whole numbers.
//!
//! Exact up to the range of `i128` nano units; what does not fit saturates, as upstream's `Value` and `MilliValue` do.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;

/// The quantity rounded up to a whole number; zero when it is no quantity.
#[must_use]
pub fn value(quantity: &Quantity) -> i64 {
    scaled(quantity, NANO)
}

/// The quantity in thousandths, rounded up; zero when it is no quantity.
#[must_use]
pub fn milli_value(quantity: &Quantity) -> i64 {
    scaled(quantity, NANO / 1000)
}

/// A quantity of thousandths in its shortest decimal form: `1500` is `1500m`, `2000` is `2`.
#[must_use]
pub fn from_milli(milli: i64) -> Quantity {
    Quantity(if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") })
}

/// A number of bytes in its shortest binary form: `1024` is `1Ki`.
#[must_use]
pub fn from_bytes(bytes: i64) -> Quantity {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let (mut number, mut step) = (bytes, 0);
    while number != 0 && number % 1024 == 0 && step + 1 < SUFFIXES.len() {
        number /= 1024;
        step += 1;
    }
    Quantity(format!("{number}{}", SUFFIXES[step]))
}

/// The quantity in units of 10^-9, rounded up; `None` when the text is no quantity.
#[must_use]
pub fn parse_nano(text: &str) -> Option<i128> {
    let (number, scale) = split_suffix(text)?;
    let (sign, digits) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty()
        || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit())
    {
        return None;
    }
    // The mantissa as an integer and the power of ten below it.
    let mantissa: i128 = if whole.len() + fraction.len() > 30 {
        return None;
    } else {
        format!("{whole}{fraction}").parse().ok()?
    };
    let below = u32::try_from(fraction.len()).ok()?;
    let (numerator, denominator) = match scale {
        Scale::Binary(bits) => (1i128.checked_shl(bits)?, 1),
        Scale::Decimal(power) if power >= 0 => (10i128.checked_pow(power.unsigned_abs())?, 1),
        Scale::Decimal(power) => (1, 10i128.checked_pow(power.unsigned_abs())?),
    };
    let top = mantissa.checked_mul(numerator)?.checked_mul(NANO)?;
    let bottom = 10i128.checked_pow(below)?.checked_mul(denominator)?;
    Some(sign * div_up(top, bottom))
}

enum Scale {
    Binary(u32),
    Decimal(i32),
}

fn split_suffix(text: &str) -> Option<(&str, Scale)> {
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let scale = match suffix {
        "" => Scale::Decimal(0),
        "n" => Scale::Decimal(-9),
        "u" => Scale::Decimal(-6),
        "m" => Scale::Decimal(-3),
        "k" => Scale::Decimal(3),
        "M" => Scale::Decimal(6),
        "G" => Scale::Decimal(9),
        "T" => Scale::Decimal(12),
        "P" => Scale::Decimal(15),
        "E" => Scale::Decimal(18),
        "Ki" => Scale::Binary(10),
        "Mi" => Scale::Binary(20),
        "Gi" => Scale::Binary(30),
        "Ti" => Scale::Binary(40),
        "Pi" => Scale::Binary(50),
        "Ei" => Scale::Binary(60),
        exponent => Scale::Decimal(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some((number, scale))
}

fn scaled(quantity: &Quantity, unit: i128) -> i64 {
    let nano = parse_nano(&quantity.0).unwrap_or_default();
    let rounded = div_up(nano, unit);
    i64::try_from(rounded).unwrap_or(if rounded > 0 { i64::MAX } else { i64::MIN })
}

/// Division that rounds away from zero, as quantities do.
fn div_up(top: i128, bottom: i128) -> i128 {
    let quotient = top / bottom;
    if top % bottom == 0 { quotient } else { quotient + top.signum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_exactly() {
        let cases = [
            ("1", 1, 1000),
            ("100m", 1, 100),
            ("1500m", 2, 1500),
            ("0.5", 1, 500),
            (".5", 1, 500),
            ("1Ki", 1024, 1_024_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("2e3", 2000, 2_000_000),
            ("2E", 2_000_000_000_000_000_000, i64::MAX),
            ("1n", 1, 1),
            ("0", 0, 0),
            ("-1", -1, -1000),
            ("nonsense", 0, 0),
        ];
        for (text, whole, milli) in cases {
            let quantity = Quantity(text.to_owned());
            assert_eq!((value(&quantity), milli_value(&quantity)), (whole, milli), "{text}");
        }
    }

    #[test]
    fn quantities_are_printed_short() {
        assert_eq!(from_milli(1500).0, "1500m");
        assert_eq!(from_milli(2000).0, "2");
        assert_eq!(from_bytes(1024).0, "1Ki");
        assert_eq!(from_bytes(1_610_612_736).0, "1536Mi");
        assert_eq!(from_bytes(0).0, "0");
        assert_eq!(from_bytes(1000).0, "1000");
    }
}
