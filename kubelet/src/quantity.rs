//! Kubernetes quantities as whole numbers, which is what the kernel counts in.

use api::quantity::{Format, Quantity as Amount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The quantity rounded up to a whole number; zero when it is no quantity.
#[must_use]
pub fn value(quantity: &Quantity) -> i64 {
    parse(&quantity.0).map_or(0, |amount| amount.value())
}

/// The quantity in thousandths, rounded up; zero when it is no quantity.
#[must_use]
pub fn milli_value(quantity: &Quantity) -> i64 {
    parse(&quantity.0).map_or(0, |amount| amount.milli_value())
}

/// Reads a quantity; `None` when the text is none.
#[must_use]
pub fn parse(text: &str) -> Option<Amount> {
    Amount::parse(text).ok()
}

/// A quantity of thousandths in its shortest decimal form: `1500` is `1500m`, `2000` is `2`.
#[must_use]
pub fn from_milli(milli: i64) -> Quantity {
    Quantity(Amount::from_milli(milli, Format::DecimalSi).to_string())
}

/// A number of bytes in its shortest binary form: `1024` is `1Ki`.
#[must_use]
pub fn from_bytes(bytes: i64) -> Quantity {
    Quantity(Amount::new(bytes, Format::BinarySi).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_counted_whole() {
        let cases = [
            ("1", 1, 1000),
            ("100m", 1, 100),
            ("1500m", 2, 1500),
            ("0.5", 1, 500),
            ("1Ki", 1024, 1_024_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("2e3", 2000, 2_000_000),
            ("0", 0, 0),
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
        assert_eq!(from_bytes(1000).0, "1k");
    }
}
