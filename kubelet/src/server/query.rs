//! Parameters of a request.

use std::collections::HashMap;

/// The query of a URL, decoded; a name may appear more than once.
#[derive(Clone, Debug, Default)]
pub struct Query(HashMap<String, Vec<String>>);

impl Query {
    /// Reads a query.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut values: HashMap<String, Vec<String>> = HashMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.entry(decode(name, true)).or_default().push(decode(value, true));
        }
        Self(values)
    }

    /// The first value of a parameter.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first().map(String::as_str)
    }

    /// All values of a parameter.
    #[must_use]
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// As the API reads a boolean: everything but `false` and `0`.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.first(name).is_some_and(|value| !matches!(value, "false" | "0"))
    }
}

/// Undoes percent encoding; `plus` stands for a blank in queries.
#[must_use]
pub fn decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                out.push(code);
                at += 2;
            }
            (b'+', _) if plus => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("command=sh&command=-c&command=echo%20a%2Bb+c&follow=true&tty=0&previous");
        assert_eq!(query.all("command"), ["sh", "-c", "echo a+b c"]);
        assert!(query.is_set("follow") && query.is_set("previous"));
        assert!(!query.is_set("tty") && !query.is_set("none"));
        assert_eq!(decode("a%zz%", false), "a%zz%");
    }
}
