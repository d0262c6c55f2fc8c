//! Versions as people order them: `v2`, `v1`, `v2beta1`, `v1alpha1`, then all others (upstream
//! `CompareKubeAwareVersionStrings`).

use std::cmp::Ordering;

/// The rank of a version: kind, major and minor number.
fn parse(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let number = |text: &str| text.parse().ok();
    let (major, rest) = rest.split_at(digits(rest));
    let major = number(major)?;
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (kind, minor) = [("beta", 1), ("alpha", 0)]
        .into_iter()
        .find_map(|(name, kind)| Some((kind, rest.strip_prefix(name)?)))?;
    (digits(minor) == minor.len()).then_some(())?;
    Some((kind, major, number(minor)?))
}

/// How two versions stand to each other; the greater one is preferred.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        // Names go by the alphabet, the first one preferred.
        (None, None) => b.cmp(a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_first() {
        let mut versions =
            ["v1alpha1", "foo1", "v10", "v2beta1", "v2", "v1", "v11alpha2", "foo10", "v12beta1", "v2beta2"];
        versions.sort_by(|a, b| compare(b, a));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v12beta1", "v2beta2", "v2beta1", "v11alpha2", "v1alpha1", "foo1", "foo10"]
        );
    }
}
