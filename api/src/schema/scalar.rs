//! Scalars that have a text form of their own: times, spans of time, bytes. Errors are worded as Go words them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Seconds of the first moment that Go calls a zero time (year 1).
pub(crate) const ZERO_SECONDS: i64 = -62_135_596_800;

/// A moment: seconds since 1970 and nanoseconds within the second.
pub type Moment = (i64, u32);

/// Reads an RFC 3339 time as Go's `time.Parse(time.RFC3339, text)` does.
///
/// # Errors
/// Go's message when `text` is not such a time.
pub fn parse_time(text: &str) -> Result<Moment, String> {
    parse(text, "2006-01-02T15:04:05Z07:00", false)
}

/// Reads a time with exactly six digits of fraction.
///
/// # Errors
/// Go's message when `text` is not such a time.
pub fn parse_micro_time(text: &str) -> Result<Moment, String> {
    parse(text, "2006-01-02T15:04:05.000000Z07:00", true)
}

fn parse(text: &str, layout: &str, micro: bool) -> Result<Moment, String> {
    let fail = |value: &str, elem: &str| {
        Err(format!(
            "parsing time {} as {layout:?}: cannot parse {} as {elem:?}",
            go_quote(text),
            go_quote(value)
        ))
    };
    let range = |what: &str| Err(format!("parsing time {}: {what} out of range", go_quote(text)));
    let bytes = text.as_bytes();
    let digits = |at: usize, count: usize| -> Option<i64> {
        let part = bytes.get(at..at + count)?;
        part.iter().all(u8::is_ascii_digit).then(|| part.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let rest = |at: usize| text.get(at..).unwrap_or_default();
    let Some(year) = digits(0, 4) else { return fail(text, "2006") };
    let mut numbers = [0i64; 5];
    let parts = [
        (4, b'-', "-", "01"),
        (7, b'-', "-", "02"),
        (10, b'T', "T", "15"),
        (13, b':', ":", "04"),
        (16, b':', ":", "05"),
    ];
    for (slot, (at, mark, mark_text, elem)) in numbers.iter_mut().zip(parts) {
        if bytes.get(at) != Some(&mark) {
            return fail(rest(at), mark_text);
        }
        let Some(number) = digits(at + 1, 2) else { return fail(rest(at + 1), elem) };
        *slot = number;
    }
    let [month, day, hour, minute, second] = numbers;
    if !(1..=12).contains(&month) {
        return range("month");
    }
    if hour > 23 {
        return range("hour");
    }
    if minute > 59 {
        return range("minute");
    }
    if second > 59 {
        return range("second");
    }
    let mut at = 19;
    let mut nanos = 0u32;
    let fraction = bytes.get(at) == Some(&b'.') || (!micro && bytes.get(at) == Some(&b','));
    if fraction {
        let end = (at + 1..bytes.len()).find(|i| !bytes[*i].is_ascii_digit()).unwrap_or(bytes.len());
        let count = end - at - 1;
        if micro && count != 6 || count == 0 {
            return fail(rest(at), if micro { ".000000" } else { "Z07:00" });
        }
        for i in 0..9 {
            nanos =
                nanos * 10 + u32::from(bytes.get(at + 1 + i).filter(|_| i < count).map_or(0, |d| d - b'0'));
        }
        at = end;
    } else if micro {
        return fail(rest(at), ".000000");
    }
    let offset = match bytes.get(at) {
        Some(b'Z') => {
            at += 1;
            0
        }
        Some(sign @ (b'+' | b'-')) if bytes.get(at + 3) == Some(&b':') => {
            let (Some(hours), Some(minutes)) = (digits(at + 1, 2), digits(at + 4, 2)) else {
                return fail(rest(at), "Z07:00");
            };
            if hours > 24 || minutes > 60 {
                return range("time zone offset hour");
            }
            at += 6;
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return fail(rest(at), "Z07:00"),
    };
    if at < bytes.len() {
        return Err(format!("parsing time {}: extra text: {}", go_quote(text), go_quote(rest(at))));
    }
    if day < 1 || day > days_in(year, month) {
        return range("day");
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Ok((seconds, nanos))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * month_index + 2) / 5 + 1)
}

/// A moment in UTC, in whole seconds: `2006-01-02T15:04:05Z`.
#[must_use]
pub fn format_time(seconds: i64) -> String {
    let mut out = String::with_capacity(27);
    write_seconds(&mut out, seconds);
    out.push('Z');
    out
}

/// A moment in UTC, in microseconds: `2006-01-02T15:04:05.000000Z`.
#[must_use]
pub fn format_micro_time(seconds: i64, nanos: u32) -> String {
    let mut out = String::with_capacity(27);
    write_seconds(&mut out, seconds);
    let _ = write!(out, ".{:06}Z", nanos / 1000);
    out
}

fn write_seconds(out: &mut String, seconds: i64) {
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
}

/// Reads a span of time as Go's `time.ParseDuration` does, in nanoseconds.
///
/// # Errors
/// Go's message when `text` is not such a span.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", go_quote(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(whole_end);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", go_quote(text)));
        }
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {} in duration {}", go_quote(unit), go_quote(text))),
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        total = total.checked_add(whole.checked_mul(scale).ok_or_else(invalid)?).ok_or_else(invalid)?;
        let mut part = scale;
        for digit in fraction.bytes() {
            part /= 10;
            total += part * i128::from(digit - b'0');
        }
        rest = after;
    }
    let total = if negative { -total } else { total };
    i64::try_from(total).map_err(|_| invalid())
}

/// A span of nanoseconds as Go prints it: `1m30s`, `1.5s`, `10ms`.
#[must_use]
pub fn format_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    if total < 1_000_000_000 {
        let (scale, unit) = match total {
            ..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{unit}", with_fraction(total, scale));
    }
    let minutes = total / 60_000_000_000;
    let seconds = with_fraction(total % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, m) => format!("{sign}{m}m{seconds}s"),
        (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
    }
}

fn with_fraction(amount: u64, scale: u64) -> String {
    let width = scale.ilog10() as usize;
    let fraction = format!("{:0width$}", amount % scale);
    match fraction.trim_end_matches('0') {
        "" => (amount / scale).to_string(),
        fraction => format!("{}.{fraction}", amount / scale),
    }
}

/// Reads base64 as Go's `encoding/json` does: standard alphabet, padded, line breaks ignored.
///
/// # Errors
/// Go's message, with the offset of the first bad byte.
pub(crate) fn parse_base64(text: &str) -> Result<Vec<u8>, String> {
    let plain = |text: &str| STANDARD.decode(text).ok();
    let decoded = match plain(text) {
        None if text.contains(['\r', '\n']) => plain(&text.replace(['\r', '\n'], "")),
        decoded => decoded,
    };
    decoded.ok_or_else(|| format!("illegal base64 data at input byte {}", corrupt_base64(text.as_bytes())))
}

/// Whether `text` is exactly what the encoder would write for the bytes it stands for.
pub(crate) fn is_canonical_base64(text: &str) -> bool {
    !text.contains(['\r', '\n'])
}

pub(crate) fn format_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Where Go's decoder gives up.
fn corrupt_base64(text: &[u8]) -> usize {
    let is_data = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    let skip = |mut at: usize| {
        while matches!(text.get(at), Some(b'\r' | b'\n')) {
            at += 1;
        }
        at
    };
    let mut at = 0;
    loop {
        let mut j = 0;
        while j < 4 {
            at = skip(at);
            let Some(&byte) = text.get(at) else {
                return if j == 0 { at } else { at - j };
            };
            at += 1;
            if is_data(byte) {
                j += 1;
                continue;
            }
            if byte != b'=' || j < 2 {
                return at - 1;
            }
            if j == 2 {
                at = skip(at);
                match text.get(at) {
                    None => return text.len(),
                    Some(b'=') => at += 1,
                    Some(_) => return at - 1,
                }
            }
            return skip(at);
        }
    }
}

/// Text in Go's `%q` form, for the characters that occur in messages.
#[must_use]
pub(crate) fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The canonical form of a quantity.
///
/// # Errors
/// Upstream's message when `text` is not a quantity.
pub(crate) fn canonical_quantity(text: &str) -> Result<String, String> {
    crate::quantity::canonicalize(text.trim()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_go_reads_them() {
        assert_eq!(parse_time("1970-01-01T00:00:00Z"), Ok((0, 0)));
        assert_eq!(parse_time("2024-02-29T12:30:45.25+02:00"), Ok((1_709_202_645, 250_000_000)));
        assert_eq!(parse_time("0001-01-01T00:00:00Z"), Ok((ZERO_SECONDS, 0)));
        for (text, message) in [
            (
                "yesterday",
                r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
            ),
            ("2024-13-01T00:00:00Z", r#"parsing time "2024-13-01T00:00:00Z": month out of range"#),
            ("2023-02-29T00:00:00Z", r#"parsing time "2023-02-29T00:00:00Z": day out of range"#),
            (
                "2024-01-01",
                r#"parsing time "2024-01-01" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#,
            ),
        ] {
            assert_eq!(parse_time(text), Err(message.to_owned()));
        }
    }

    #[test]
    fn times_print_in_utc() {
        assert_eq!(format_time(1_709_202_645), "2024-02-29T10:30:45Z");
        assert_eq!(format_micro_time(1, 1_500), "1970-01-01T00:00:01.000001Z");
        for seconds in [ZERO_SECONDS, -1, 0, 951_782_399, 951_782_400, 4_102_444_800] {
            assert_eq!(parse_time(&format_time(seconds)), Ok((seconds, 0)));
        }
    }

    #[test]
    fn durations_round_trip() {
        for (text, nanos) in [
            ("0s", 0),
            ("1m30s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            ("10ms", 10_000_000),
            ("1h0m0s", 3_600_000_000_000),
            ("-2ns", -2),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
            assert_eq!(format_duration(nanos), text);
        }
        assert_eq!(parse_duration("3"), Err(r#"time: missing unit in duration "3""#.to_owned()));
        assert_eq!(parse_duration("3y"), Err(r#"time: unknown unit "y" in duration "3y""#.to_owned()));
    }

    #[test]
    fn base64_fails_where_go_fails() {
        assert_eq!(parse_base64("YWJj\nZGVm"), Ok(b"abcdef".to_vec()));
        for (text, at) in [("_-8=", 0), ("YQ", 0), ("YQ=", 3), ("YWJj!", 4), ("YQ==x", 4)] {
            assert_eq!(parse_base64(text), Err(format!("illegal base64 data at input byte {at}")), "{text}");
        }
    }
}
