//! Says what is wrong with text that is no expression.

use super::lexer::Token;
use super::source::Issues;

/// Notes what is wrong with these tokens; the parser stopped before the one at `at`.
pub(crate) fn explain(tokens: &[Token], at: usize, issues: &mut Issues) {
    let token = tokens[at.min(tokens.len() - 1)];
    let text = token.text(issues.source());
    issues.report_at(token.start, format!("Syntax error: mismatched input '{text}'"));
}
