//! The suffixes of quantities.

use super::Format;

/// What a suffix says: a power of a base, and the family it belongs to.
pub(super) struct Suffix {
    pub(super) exponent: i32,
    pub(super) format: Format,
}

const DECIMAL: [(&str, i32); 10] =
    [("", 0), ("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, i32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Reads a suffix.
pub(super) fn interpret(suffix: &str) -> Option<Suffix> {
    let find = |table: &[(&str, i32)]| table.iter().find(|(name, _)| *name == suffix).map(|(_, e)| *e);
    if let Some(exponent) = find(&DECIMAL) {
        return Some(Suffix { exponent, format: Format::DecimalSi });
    }
    if let Some(exponent) = find(&BINARY) {
        return Some(Suffix { exponent, format: Format::BinarySi });
    }
    let exponent: i64 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    // As upstream's conversion to 32 bits, short of wrapping around.
    let exponent = exponent.clamp(i64::from(i32::MIN) / 2, i64::from(i32::MAX) / 2) as i32;
    Some(Suffix { exponent, format: Format::DecimalExponent })
}

/// The suffix for a power; empty when the family has none for it.
pub(super) fn construct(base: i32, exponent: i32, format: Format) -> String {
    let find = |table: &[(&'static str, i32)]| {
        table.iter().find(|(_, e)| *e == exponent).map_or("", |(name, _)| *name)
    };
    match format {
        Format::DecimalSi => find(&DECIMAL).to_owned(),
        Format::BinarySi if base == 2 => find(&BINARY).to_owned(),
        Format::DecimalExponent if exponent != 0 => format!("e{exponent}"),
        _ => String::new(),
    }
}
