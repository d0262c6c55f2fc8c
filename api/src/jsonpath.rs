//! The dialect of JSONPath that kubectl's output and the columns of custom resources are written in: templates of text
//! and `{...}` with paths, `range`, quoted text, filters.
//!
//! Not RFC 9535: names may be escaped (`.labels.app\.kubernetes\.io/name`), several results are joined by spaces,
//! and a missing key gives nothing rather than an error (as `-o` allows).

use serde_json::Value;

/// Why a template cannot be read, or gives nothing for an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// The result of reading or using a template.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// `.name` or `['name']`, several of them as a union.
    Names(Vec<String>),
    /// `[1]`, `[0,2]`
    Indexes(Vec<i64>),
    /// `[a:b:c]`
    Slice(Option<i64>, Option<i64>, i64),
    /// `.*` or `[*]`
    All,
    /// `..`
    Descend,
    /// `[?(@.a == "b")]`
    Filter(Operand, String, Operand),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Value(Value),
    Nothing,
}

impl Template {
    /// Reads a template; one without braces is a path as it stands.
    ///
    /// # Errors
    /// When the text is no template.
    pub fn parse(text: &str) -> Result<Self> {
        let braced = if text.contains('{') { text.to_owned() } else { format!("{{{}}}", dotted(text)) };
        let mut parser = Parser { text: braced.chars().collect(), at: 0, depth: 0 };
        let parts = parser.parts(false)?;
        Ok(Self { parts })
    }

    /// What the template prints for an object.
    ///
    /// # Errors
    /// When an index is beyond the end of a list.
    pub fn render(&self, object: &Value) -> Result<String> {
        let mut out = String::new();
        render(&self.parts, object, object, &mut out)?;
        Ok(out)
    }

    /// All values the template's paths find.
    ///
    /// # Errors
    /// When an index is beyond the end of a list.
    pub fn find(&self, object: &Value) -> Result<Vec<Value>> {
        let mut found = vec![];
        for part in &self.parts {
            if let Part::Path(steps) = part {
                found.extend(walk(steps, object, object)?.into_iter().cloned());
            }
        }
        Ok(found)
    }
}

fn dotted(text: &str) -> String {
    if text.starts_with(['.', '[', '$', '@']) { text.to_owned() } else { format!(".{text}") }
}

/// A value as text: strings bare, everything else as JSON.
#[must_use]
pub fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn render(parts: &[Part], object: &Value, root: &Value, out: &mut String) -> Result {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(steps) => {
                let texts: Vec<_> = walk(steps, object, root)?.into_iter().map(show).collect();
                out.push_str(&texts.join(" "));
            }
            Part::Range(steps, inner) => {
                for item in walk(steps, object, root)? {
                    render(inner, item, root, out)?;
                }
            }
        }
    }
    Ok(())
}

fn walk<'v>(steps: &[Step], object: &'v Value, root: &'v Value) -> Result<Vec<&'v Value>> {
    let mut found = vec![object];
    for step in steps {
        let mut next = vec![];
        for value in found {
            apply(step, value, root, &mut next)?;
        }
        found = next;
    }
    Ok(found)
}

fn apply<'v>(step: &Step, value: &'v Value, root: &'v Value, next: &mut Vec<&'v Value>) -> Result {
    match step {
        Step::Names(names) => next.extend(names.iter().filter_map(|name| value.get(name.as_str()))),
        Step::Indexes(indexes) => {
            let Some(items) = value.as_array() else { return Ok(()) };
            for index in indexes {
                let at = position(*index, items.len());
                let item = at.and_then(|at| items.get(at)).ok_or_else(|| {
                    Error(format!(
                        "error executing jsonpath: array index out of bounds: index {index}, length {}",
                        items.len()
                    ))
                })?;
                next.push(item);
            }
        }
        Step::Slice(from, to, by) => {
            let Some(items) = value.as_array() else { return Ok(()) };
            let edge = |at: i64| if at < 0 { (at + items.len() as i64).max(0) as usize } else { at as usize };
            let (from, to) = (from.map_or(0, edge), to.map_or(items.len(), edge).min(items.len()));
            next.extend(
                (from..to).step_by(usize::try_from(*by).unwrap_or(1).max(1)).filter_map(|i| items.get(i)),
            );
        }
        Step::All => match value {
            Value::Array(items) => next.extend(items),
            Value::Object(map) => next.extend(map.values()),
            _ => {}
        },
        Step::Descend => descend(value, next),
        Step::Filter(left, operator, right) => {
            for item in value.as_array().into_iter().flatten() {
                if holds(left, operator, right, item, root)? {
                    next.push(item);
                }
            }
        }
    }
    Ok(())
}

fn position(index: i64, length: usize) -> Option<usize> {
    if index < 0 {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    } else {
        usize::try_from(index).ok()
    }
}

fn descend<'v>(value: &'v Value, next: &mut Vec<&'v Value>) {
    next.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|v| descend(v, next)),
        Value::Object(map) => map.values().for_each(|v| descend(v, next)),
        _ => {}
    }
}

fn holds(left: &Operand, operator: &str, right: &Operand, item: &Value, root: &Value) -> Result<bool> {
    let value = |operand: &Operand| -> Result<Option<Value>> {
        Ok(match operand {
            Operand::Value(value) => Some(value.clone()),
            Operand::Path(steps) => walk(steps, item, root)?.first().map(|v| (*v).clone()),
            Operand::Nothing => None,
        })
    };
    let (left, right) = (value(left)?, value(right)?);
    if operator.is_empty() {
        return Ok(left.is_some());
    }
    let (Some(left), Some(right)) = (left, right) else { return Ok(false) };
    let order = match (left.as_f64(), right.as_f64()) {
        (Some(a), Some(b)) => a.partial_cmp(&b),
        _ => Some(show(&left).cmp(&show(&right))),
    };
    Ok(order.is_some_and(|order| match operator {
        "==" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    }))
}

/// Filters and ranges may be nested so deeply.
const MAX_DEPTH: usize = 64;

struct Parser {
    text: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Reads something within something of its kind.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            return self.fail("nested too deeply");
        }
        self.depth += 1;
        let outcome = read(self);
        self.depth -= 1;
        outcome
    }

    fn take(&mut self, wanted: &str) -> bool {
        let there = self.text[self.at..].iter().take(wanted.chars().count()).copied().eq(wanted.chars());
        if there {
            self.at += wanted.chars().count();
        }
        there
    }

    fn fail<T>(&self, what: &str) -> Result<T> {
        Err(Error(format!("error parsing jsonpath {}, {what}", self.text.iter().collect::<String>())))
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Parts up to the end, or to `{end}` inside a range.
    fn parts(&mut self, in_range: bool) -> Result<Vec<Part>> {
        let mut parts = vec![];
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            if c != '{' {
                text.push(c);
                continue;
            }
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            self.spaces();
            if self.take("end") {
                self.close()?;
                return if in_range { Ok(parts) } else { self.fail("not in range, nothing to end") };
            }
            if self.take("range") {
                self.spaces();
                let steps = self.steps()?;
                self.close()?;
                parts.push(Part::Range(steps, self.nested(|parser| parser.parts(true))?));
                continue;
            }
            loop {
                self.spaces();
                match self.peek() {
                    Some('"' | '\'') => parts.push(Part::Text(self.quoted()?)),
                    Some('}') => break,
                    None => return self.fail("unclosed action"),
                    Some(_) => {
                        let before = self.at;
                        parts.push(Part::Path(self.steps()?));
                        if self.at == before {
                            return self.fail("unrecognized character in action");
                        }
                    }
                }
            }
            self.close()?;
        }
        if in_range {
            return self.fail("unclosed range");
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(parts)
    }

    fn close(&mut self) -> Result {
        self.spaces();
        if self.take("}") { Ok(()) } else { self.fail("unclosed action") }
    }

    /// Text in quotes; `\n` and `\t` mean what they mean elsewhere.
    fn quoted(&mut self) -> Result<String> {
        let quote = self.next();
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == quote => return Ok(text),
                '\\' => {
                    text.push(match self.next() {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some('r') => '\r',
                        Some(other) => other,
                        None => return self.fail("unterminated quoted string"),
                    });
                }
                c => text.push(c),
            }
        }
        self.fail("unterminated quoted string")
    }

    fn steps(&mut self) -> Result<Vec<Step>> {
        let mut steps = vec![];
        if !self.take("$") {
            self.take("@");
        }
        loop {
            if self.take("..") {
                steps.push(Step::Descend);
                if self.peek().is_some_and(|c| is_name(c) || c == '\\') {
                    steps.push(Step::Names(vec![self.name()]));
                } else if self.take("*") {
                    steps.push(Step::All);
                }
            } else if self.take(".") {
                if self.take("*") {
                    steps.push(Step::All);
                } else if self.peek().is_some_and(|c| is_name(c) || c == '\\') {
                    steps.push(Step::Names(vec![self.name()]));
                }
            } else if self.take("[") {
                steps.push(self.bracket()?);
            } else if steps.is_empty() && self.peek().is_some_and(is_name) {
                steps.push(Step::Names(vec![self.name()]));
            } else {
                return Ok(steps);
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if c == '\\' {
                self.at += 1;
                name.extend(self.next());
            } else if is_name(c) {
                name.push(c);
                self.at += 1;
            } else {
                break;
            }
        }
        name
    }

    fn bracket(&mut self) -> Result<Step> {
        self.spaces();
        if self.take("*") {
            return self.bracket_end(Step::All);
        }
        if self.take("?(") {
            let left = self.operand()?;
            self.spaces();
            let operator =
                ["==", "!=", "<=", ">=", "<", ">"].into_iter().find(|o| self.take(o)).unwrap_or_default();
            let right = if operator.is_empty() { Operand::Nothing } else { self.operand()? };
            self.spaces();
            if !self.take(")") {
                return self.fail("unterminated filter");
            }
            return self.bracket_end(Step::Filter(left, operator.to_owned(), right));
        }
        if matches!(self.peek(), Some('"' | '\'')) {
            let mut names = vec![self.quoted()?];
            self.spaces();
            while self.take(",") {
                self.spaces();
                names.push(self.quoted()?);
                self.spaces();
            }
            return self.bracket_end(Step::Names(names));
        }
        let mut numbers = vec![self.number()];
        let slice = self.peek() == Some(':');
        while self.take(if slice { ":" } else { "," }) {
            self.spaces();
            numbers.push(self.number());
        }
        let step = if slice {
            Step::Slice(
                numbers[0],
                numbers.get(1).copied().flatten(),
                numbers.get(2).copied().flatten().unwrap_or(1),
            )
        } else {
            let Some(indexes) = numbers.into_iter().collect::<Option<Vec<_>>>() else {
                return self.fail("invalid array index");
            };
            Step::Indexes(indexes)
        };
        self.bracket_end(step)
    }

    fn bracket_end(&mut self, step: Step) -> Result<Step> {
        self.spaces();
        if self.take("]") { Ok(step) } else { self.fail("unterminated array") }
    }

    fn number(&mut self) -> Option<i64> {
        let begin = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit() || c == '-') {
            self.at += 1;
        }
        self.text[begin..self.at].iter().collect::<String>().parse().ok()
    }

    fn operand(&mut self) -> Result<Operand> {
        self.spaces();
        match self.peek() {
            Some('"' | '\'') => Ok(Operand::Value(Value::String(self.quoted()?))),
            Some('@' | '$' | '.') => Ok(Operand::Path(self.nested(Self::steps)?)),
            _ => {
                let mut word = String::new();
                while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || "-+._".contains(*c)) {
                    word.push(c);
                    self.at += 1;
                }
                let value = serde_json::from_str(&word).unwrap_or(Value::String(word));
                Ok(Operand::Value(value))
            }
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || "-_/:".contains(c)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kubectls_dialect() {
        let object = json!({"kind": "List", "metadata": {"labels": {"app.kubernetes.io/name": "x", "a": "b"}},
            "items": [{"name": "one", "n": 1, "ok": true, "ports": [{"port": 80}, {"port": 443}]},
                      {"name": "two", "n": 2, "ports": [{"port": 8080}]}, {"name": "three", "n": 3}]});
        for (template, expected) in [
            ("{.kind}", "List"),
            (".kind", "List"),
            ("kind", "List"),
            ("{.items[*].name}", "one two three"),
            ("{.items[0].name}", "one"),
            ("{.items[-1].name}", "three"),
            ("{.items[0:2].name}", "one two"),
            ("{.items[0,2].name}", "one three"),
            ("{range .items[*]}{.name}{\"\\t\"}{.n}{\"\\n\"}{end}", "one\t1\ntwo\t2\nthree\t3\n"),
            ("{.metadata.labels.app\\.kubernetes\\.io/name}", "x"),
            ("{.metadata.labels['app.kubernetes.io/name','a']}", "x b"),
            ("{.items[?(@.n>1)].name}", "two three"),
            ("{.items[?(@.name==\"two\")].n}", "2"),
            ("{.items[?(@.ok)].name}", "one"),
            ("{.items[?(@.ok==true)].name}", "one"),
            ("{..port}", "80 443 8080"),
            ("is {.kind}, yes", "is List, yes"),
            ("{.missing}", ""),
            ("{.items[0].ports}", r#"[{"port":80},{"port":443}]"#),
            ("{.kind}{'-'}{.items[0].n}", "List-1"),
            ("{$.kind}", "List"),
        ] {
            let rendered = Template::parse(template).and_then(|t| t.render(&object));
            assert_eq!(rendered.expect(template), expected, "{template}");
        }
    }

    #[test]
    fn broken_templates_are_refused() {
        let (filters, ranges) = ("{.a".to_owned() + &"[?(@.b".repeat(100_000), "{range .a}".repeat(100_000));
        for template in [
            "{.a",
            "{range .a}{.b}",
            "{end}",
            "{.a[}",
            "{\"x}",
            "{.a[?(@.b==1]}",
            "{.\\",
            "{.a['b',",
            "{\"\\",
            &filters,
            &ranges,
        ] {
            assert!(Template::parse(template).is_err(), "{}", &template[..template.len().min(40)]);
        }
    }
}
