//! Amounts: their text, their rounding, their order and their sums, by upstream's cases.

use super::*;

fn parse(text: &str) -> Quantity {
    Quantity::parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

#[test]
fn text_comes_back_canonical() {
    let cases = [
        ("0", "0"),
        ("0n", "0"),
        ("0Ki", "0"),
        ("00000001", "00000001"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("0.5", "500m"),
        ("1.234", "1.234"),
        ("100m", "100m"),
        ("1024Mi", "1Gi"),
        ("1024", "1024"),
        ("1Ki", "1Ki"),
        ("8Ki", "8Ki"),
        ("1025Ki", "1025Ki"),
        ("0.5Gi", "512Mi"),
        ("1.5Gi", "1536Mi"),
        ("1.1Mi", "1153433600m"),
        ("100Ki", "100Ki"),
        ("1000k", "1M"),
        ("12300", "12300"),
        ("10e3", "10e3"),
        ("1e3", "1e3"),
        ("1E3", "1E3"),
        ("1000e3", "1e6"),
        ("1E6", "1E6"),
        ("5E", "5E"),
        (".5", "500m"),
        ("1.", "1."),
        ("-1.5", "-1500m"),
        ("+5", "+5"),
        ("1.0", "1"),
        ("1.1n", "2n"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("0.3m", "300u"),
        ("123456u", "123456u"),
        ("1000000n", "1m"),
        ("0.0000000001", "1n"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775807Ki", "9223372036854775807"),
        ("8Ei", "9223372036854775807"),
        ("9Ei", "9223372036854775807"),
        ("7Ei", "7Ei"),
        ("0.0001Ki", "102400u"),
        ("512Ki", "512Ki"),
        ("0.5Ki", "512"),
        ("3.001Ki", "3073024m"),
    ];
    for (text, want) in cases {
        assert_eq!(parse(text).to_string(), want, "{text}");
    }
}

#[test]
fn malformed_text_is_refused() {
    let cases = [
        ("", Error::Format),
        ("1.2.3", Error::Format),
        ("1 2", Error::Format),
        ("aBc", Error::Format),
        ("1a", Error::Format),
        ("--1", Error::Suffix),
        ("1mi", Error::Suffix),
        ("1ki", Error::Suffix),
        ("1K", Error::Suffix),
        ("1MM", Error::Suffix),
        ("1e", Error::Suffix),
        ("1.5+3", Error::Suffix),
    ];
    for (text, want) in cases {
        assert_eq!(Quantity::parse(text).expect_err(text), want, "{text}");
    }
}

#[test]
fn values_round_away_from_zero() {
    let cases = [
        ("1", 1, 1000),
        ("1m", 1, 1),
        ("1500m", 2, 1500),
        ("-1500m", -2, -1500),
        ("1Ki", 1024, 1_024_000),
        ("1n", 1, 1),
    ];
    for (text, value, milli) in cases {
        assert_eq!(parse(text).value(), value, "{text}");
        assert_eq!(parse(text).milli_value(), milli, "{text}");
    }
    assert_eq!(parse("100E").value(), i64::MAX);
}

#[test]
fn comparison_ignores_the_notation() {
    for (a, b) in [("1", "1000m"), ("1Ki", "1024"), ("0", "0n"), ("1e3", "1k"), ("-1", "-1000m")] {
        assert_eq!(parse(a), parse(b), "{a} {b}");
    }
    for (small, large) in
        [("999m", "1"), ("-1", "1m"), ("1Mi", "2M"), ("1k", "1Ki"), ("-2", "-1"), ("0", "1n"), ("-1n", "0")]
    {
        assert!(parse(small) < parse(large), "{small} {large}");
    }
}

#[test]
fn sums_keep_the_format_of_the_first_nonzero() {
    let cases = [
        ("1Gi", "512Mi", "1536Mi"),
        ("0", "1Gi", "1Gi"),
        ("100m", "1", "1100m"),
        ("1", "1Ki", "1025"),
        ("900m", "100m", "1"),
    ];
    for (a, b, want) in cases {
        let mut sum = parse(a);
        sum.add(&parse(b));
        assert_eq!(sum.to_string(), want, "{a} + {b}");
        sum.sub(&parse(b));
        assert_eq!(sum, parse(a), "{a} + {b} - {b}");
    }
    let mut product = parse("250m");
    product.mul(4);
    assert_eq!(product.to_string(), "1");
}

#[test]
fn resource_lists_lose_what_is_below_a_milli() {
    let mut quantity = parse("1.00001");
    assert!(!quantity.round_up_to_milli());
    assert_eq!(quantity.to_string(), "1001m");
    let mut kept = parse("1.234");
    assert!(kept.round_up_to_milli());
    assert_eq!(kept.to_string(), "1.234");
}

proptest::proptest! {
    #[test]
    fn any_amount_reads_back_and_sums_come_apart(
        whole in -1_000_000i64..1_000_000,
        fraction in 0u32..1000,
        at in 0usize..16,
        other in -1_000i64..1_000,
    ) {
        const SUFFIXES: [&str; 16] =
            ["", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "e3", "E2", "e-3", "e0"];
        let amount = parse(&format!("{whole}.{fraction:03}{}", SUFFIXES[at]));
        let canonical = amount.canonical();
        let back = parse(&canonical);
        proptest::prop_assert_eq!(&back, &amount, "{}", canonical);
        proptest::prop_assert_eq!(back.canonical(), canonical);
        let other = Quantity::new(other, Format::DecimalSi);
        let mut sum = amount.clone();
        sum.add(&other);
        proptest::prop_assert_eq!(sum.cmp(&amount), other.sign().cmp(&0));
        sum.sub(&other);
        proptest::prop_assert_eq!(sum, amount);
    }
}
