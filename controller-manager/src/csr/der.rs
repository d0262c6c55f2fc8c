//! Writes the little DER that a certificate needs.

/// One value with its tag.
pub fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        len @ 0..=0x7f => out.push(u8::try_from(len).unwrap_or(0x7f)),
        len => {
            let bytes = len.to_be_bytes();
            let significant = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1)..];
            out.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
            out.extend_from_slice(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A sequence.
pub fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    value(0x30, &parts.concat())
}

/// An octet string.
pub fn octets(content: &[u8]) -> Vec<u8> {
    value(0x04, content)
}

/// A bit string of whole bytes.
pub fn bits(content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(content);
    value(0x03, &bytes)
}

/// A positive number.
pub fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len().saturating_sub(1));
    let mut content = bytes[first..].to_vec();
    if content.first().is_none_or(|byte| byte & 0x80 != 0) {
        content.insert(0, 0);
    }
    value(0x02, &content)
}

/// An object identifier.
pub fn oid(arcs: &[u32]) -> Vec<u8> {
    let mut content = vec![];
    let mut push = |arc: u32| {
        let mut groups = vec![u8::try_from(arc & 0x7f).unwrap_or(0)];
        let mut rest = arc >> 7;
        while rest > 0 {
            groups.push(0x80 | u8::try_from(rest & 0x7f).unwrap_or(0));
            rest >>= 7;
        }
        content.extend(groups.iter().rev());
    };
    if let [first, second, rest @ ..] = arcs {
        push(first * 40 + second);
        rest.iter().for_each(|arc| push(*arc));
    }
    value(0x06, &content)
}

/// A moment: two digits for the year up to 2049, four after that.
pub fn time(at: jiff::Timestamp) -> Vec<u8> {
    let zoned = at.to_zoned(jiff::tz::TimeZone::UTC);
    if zoned.year() < 2050 {
        value(0x17, zoned.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        value(0x18, zoned.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}

/// A bit string of named bits, bit 0 first, without trailing zeros.
pub fn named_bits(set: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0_u8; 2];
    for bit in set {
        bytes[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    let unused = bytes.last().map_or(0, |byte| u8::try_from(byte.trailing_zeros()).unwrap_or(0));
    bytes.insert(0, unused);
    value(0x03, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        assert_eq!(oid(&[1, 2, 840, 113_549]), [6, 6, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d]);
        assert_eq!(unsigned(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(named_bits(&[0, 2]), [3, 2, 5, 0xa0]);
        assert_eq!(value(4, &[7; 200])[..3], [4, 0x81, 200]);
        assert_eq!(value(4, &[7; 300])[..4], [4, 0x82, 1, 44]);
        assert_eq!(time(jiff::Timestamp::UNIX_EPOCH), *b"\x17\x0d700101000000Z");
    }
}
