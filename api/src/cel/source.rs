//! The text of an expression, places in it, and what was found wrong there.
//!
//! Issues render as upstream's compiler renders them: a line `ERROR: <input>:1:5: …`, the line of the source and a
//! caret below the place.

use std::fmt;
use std::sync::Arc;

/// How many issues are kept; the rest is only counted.
const MAX_ISSUES: usize = 100;

/// The longest line, in bytes, that is shown below an issue.
const MAX_SNIPPET: usize = 16384;

/// The text of an expression.
#[derive(Clone, Debug)]
pub struct Source {
    chars: Arc<[char]>,
    /// Where each line after the first begins.
    lines: Arc<[u32]>,
}

/// A place in a source: line from 1, column from 0, both in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Line, from 1; 0 or less when unknown.
    pub line: i64,
    /// Column, from 0; less when unknown.
    pub column: i64,
}

impl Location {
    /// Nowhere in particular.
    pub const NONE: Location = Location { line: -1, column: -1 };
}

impl Source {
    /// The source of `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let lines =
            chars.iter().enumerate().filter(|(_, c)| **c == '\n').map(|(at, _)| at as u32 + 1).collect();
        Self { chars: chars.into(), lines }
    }

    /// Its characters.
    #[must_use]
    pub fn chars(&self) -> &[char] {
        &self.chars
    }

    /// The line and column of the character at `offset`.
    #[must_use]
    pub fn location(&self, offset: u32) -> Location {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = if line == 0 { 0 } else { self.lines[line - 1] };
        Location { line: line as i64 + 1, column: i64::from(offset - start) }
    }

    fn snippet(&self, line: i64) -> Option<String> {
        let at = usize::try_from(line).ok()?.checked_sub(1)?;
        if self.chars.is_empty() || at > self.lines.len() {
            return None;
        }
        let start = if at == 0 { 0 } else { self.lines[at - 1] as usize };
        let end = self.lines.get(at).map_or(self.chars.len(), |next| *next as usize - 1);
        Some(self.chars[start..end].iter().collect())
    }
}

/// One thing wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Where.
    pub location: Location,
    /// What.
    pub message: String,
}

/// What is wrong with an expression.
#[derive(Clone, Debug)]
pub struct Issues {
    source: Source,
    issues: Vec<Issue>,
    total: usize,
}

impl Issues {
    /// No issues yet with `source`.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self { source, issues: Vec::new(), total: 0 }
    }

    /// Notes an issue.
    pub fn report(&mut self, location: Location, message: impl Into<String>) {
        self.total += 1;
        if self.total <= MAX_ISSUES {
            self.issues.push(Issue { location, message: message.into() });
        }
    }

    /// Notes an issue at a character.
    pub(crate) fn report_at(&mut self, offset: u32, message: impl Into<String>) {
        self.report(self.source.location(offset), message);
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The issues, in the order they were found.
    #[must_use]
    pub fn list(&self) -> &[Issue] {
        &self.issues
    }

    /// The expression they are about.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    fn write_issue(&self, f: &mut fmt::Formatter<'_>, issue: &Issue) -> fmt::Result {
        let Location { line, column } = issue.location;
        write!(f, "ERROR: <input>:{line}:{}: {}", column + 1, issue.message)?;
        let Some(snippet) = self.source.snippet(line).filter(|line| line.len() <= MAX_SNIPPET) else {
            return Ok(());
        };
        let snippet = snippet.replace('\t', " ");
        write!(f, "\n | {snippet}\n | ")?;
        let mut chars = snippet.chars();
        for _ in 0..column {
            match chars.next() {
                Some(c) => f.write_str(if c.len_utf8() > 1 { "\u{ff0e}" } else { "." })?,
                None => break,
            }
        }
        f.write_str(if chars.next().is_some_and(|c| c.len_utf8() > 1) { "\u{ff3e}" } else { "^" })
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Issue> = self.issues.iter().collect();
        sorted.sort_by_key(|issue| issue.location);
        for (at, issue) in sorted.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            self.write_issue(f, issue)?;
        }
        if self.total > MAX_ISSUES {
            write!(f, "\n{} more errors were truncated", self.total - MAX_ISSUES)?;
        }
        Ok(())
    }
}

impl std::error::Error for Issues {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issues_point_at_their_place() {
        let mut issues = Issues::new(Source::new("a +\n\tüb"));
        issues.report_at(5, "second");
        issues.report_at(2, "first");
        issues.report(Location::NONE, "nowhere");
        let want = "ERROR: <input>:-1:0: nowhere\nERROR: <input>:1:3: first\n | a +\n | ..^\n\
                    ERROR: <input>:2:2: second\n |  üb\n | .\u{ff3e}";
        assert_eq!(issues.to_string(), want);
    }
}
