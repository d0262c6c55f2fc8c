//! `$(NAME)` references in values, commands and arguments.
//!
//! `$$` is a dollar sign, an unknown name stays as it was written, an unfinished reference is text.

/// Replaces references in `text` by values of `env`.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    expand_with(text, |name| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
}

/// As [`expand`], but an unknown name is an error that lists the names (for `subPathExpr`).
pub fn expand_strict(text: &str, env: &[(String, String)]) -> Result<String, String> {
    let mut missing = Vec::new();
    let expanded = expand_with(text, |name| {
        let found = env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        if found.as_deref().unwrap_or_default().is_empty() {
            missing.push(name.to_owned());
        }
        found
    });
    if missing.is_empty() { Ok(expanded) } else { Err(format!("missing value for {:?}", missing.join(", "))) }
}

/// Replaces references in `text` by what `look_up` finds.
pub fn expand_with(text: &str, mut look_up: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match look_up(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_upstream_does() {
        let env = [("VAR_A", "A"), ("VAR_B", "B"), ("VAR_REF", "$(VAR_A)"), ("VAR_EMPTY", "")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()));
        for (input, want) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("$(VAR_A)$(VAR_B)", "AB"),
            ("$(VAR_REF)", "$(VAR_A)"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("$(VAR_EMPTY)", ""),
            ("foo$(VAR_C)", "foo$(VAR_C)"),
            ("$VAR_A", "$VAR_A"),
            ("$(VAR_A", "$(VAR_A"),
            ("$()", "$()"),
            ("$(VAR_A))", "A)"),
            ("a$", "a$"),
            ("$$", "$"),
            ("\u{e9}$(VAR_A)\u{e9}$\u{e9}", "\u{e9}A\u{e9}$\u{e9}"),
            ("$(foo$(VAR_A))", "$(foo$(VAR_A))"),
        ] {
            assert_eq!(expand(input, &env), want, "{input}");
        }
        assert_eq!(expand_strict("a/$(VAR_A)", &env).unwrap(), "a/A");
        assert!(expand_strict("$(NO)", &env).unwrap_err().contains("NO"));
    }
}
