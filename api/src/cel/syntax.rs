//! Says what is wrong with text that is no expression.
//!
//! Walks the grammar as the generated parser of upstream's compiler does when it meets an error: it checks at the
//! start of each choice whether the next token can stand there, drops a token too many, supposes one that is missing,
//! or gives a rule up and skips to what may follow it. While it recovers it reports nothing more. Only messages come
//! out; right expressions never get here.

use super::lexer::{Kind, Token};
use super::source::Issues;

/// How often it is tried to go on.
const MAX_RECOVERIES: u32 = 30;
/// The deepest nesting that is looked at.
const MAX_DEPTH: u32 = 250;

/// A set of kinds of tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Set(u64);

impl Set {
    const NONE: Set = Set(0);

    const fn of(kinds: &[Kind]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < kinds.len() {
            bits |= 1 << kinds[at] as u64;
            at += 1;
        }
        Self(bits)
    }

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has(self, kind: Kind) -> bool {
        self.0 >> kind as u64 & 1 == 1
    }
}

/// What an operand begins with.
const OPERAND: Set = Set::of(&[
    Kind::LeftBracket,
    Kind::LeftBrace,
    Kind::LeftParen,
    Kind::Dot,
    Kind::Minus,
    Kind::Exclam,
    Kind::True,
    Kind::False,
    Kind::Null,
    Kind::Float,
    Kind::Int,
    Kind::Uint,
    Kind::String,
    Kind::Bytes,
    Kind::Ident,
]);
const UNSIGNED: Set = Set::of(&[Kind::Exclam]);
const RELATIONS: Set = Set::of(&[
    Kind::Equals,
    Kind::NotEquals,
    Kind::In,
    Kind::Less,
    Kind::LessEquals,
    Kind::GreaterEquals,
    Kind::Greater,
]);
const CALCULATIONS: Set = Set::of(&[Kind::Star, Kind::Slash, Kind::Percent, Kind::Plus, Kind::Minus]);
/// What goes on with an expression.
const OPERATORS: Set = RELATIONS.or(CALCULATIONS).or(Set::of(&[Kind::And, Kind::Or, Kind::Question]));
const SELECTORS: Set = Set::of(&[Kind::Dot, Kind::LeftBracket]);
const NAMES: Set = Set::of(&[Kind::Ident, Kind::EscIdent]);
const QUESTION: Set = Set::of(&[Kind::Question]);

const ALL: [(Kind, &str); 36] = [
    (Kind::Eof, "<EOF>"),
    (Kind::Equals, "'=='"),
    (Kind::NotEquals, "'!='"),
    (Kind::In, "'in'"),
    (Kind::Less, "'<'"),
    (Kind::LessEquals, "'<='"),
    (Kind::GreaterEquals, "'>='"),
    (Kind::Greater, "'>'"),
    (Kind::And, "'&&'"),
    (Kind::Or, "'||'"),
    (Kind::LeftBracket, "'['"),
    (Kind::RightBracket, "']'"),
    (Kind::LeftBrace, "'{'"),
    (Kind::RightBrace, "'}'"),
    (Kind::LeftParen, "'('"),
    (Kind::RightParen, "')'"),
    (Kind::Dot, "'.'"),
    (Kind::Comma, "','"),
    (Kind::Minus, "'-'"),
    (Kind::Exclam, "'!'"),
    (Kind::Question, "'?'"),
    (Kind::Colon, "':'"),
    (Kind::Plus, "'+'"),
    (Kind::Star, "'*'"),
    (Kind::Slash, "'/'"),
    (Kind::Percent, "'%'"),
    (Kind::True, "'true'"),
    (Kind::False, "'false'"),
    (Kind::Null, "'null'"),
    (Kind::Float, "NUM_FLOAT"),
    (Kind::Int, "NUM_INT"),
    (Kind::Uint, "NUM_UINT"),
    (Kind::String, "STRING"),
    (Kind::Bytes, "BYTES"),
    (Kind::Ident, "IDENTIFIER"),
    (Kind::EscIdent, "ESC_IDENTIFIER"),
];

/// Notes what is wrong with these tokens, which are no expression.
pub(crate) fn explain(tokens: &[Token], issues: &mut Issues) {
    let mut walk = Walk { tokens, at: 0, issues, recovering: false, recoveries: 0, last: None, depth: 0 };
    let end = Set::of(&[Kind::Eof]);
    // Having given up, nothing more is to be said.
    let _ = walk.expr(end, end).and_then(|()| match walk.expect(Kind::Eof, Set::NONE) {
        Err(Wrong::Here) => Ok(()),
        other => other.map_err(drop),
    });
}

/// Why a rule ended early.
enum Wrong {
    /// A token that cannot stand there; reported.
    Here,
    /// No more attempts.
    Enough,
}

/// The end of all attempts.
type Walked = Result<(), ()>;
type Tried = Result<(), Wrong>;

struct Walk<'w> {
    tokens: &'w [Token],
    at: usize,
    issues: &'w mut Issues,
    recovering: bool,
    recoveries: u32,
    /// Where recovery last began.
    last: Option<usize>,
    depth: u32,
}

impl Walk<'_> {
    fn token(&self, ahead: usize) -> Token {
        self.tokens[(self.at + ahead).min(self.tokens.len() - 1)]
    }

    fn kind(&self) -> Kind {
        self.token(0).kind
    }

    fn consume(&mut self) {
        if self.kind() != Kind::Eof {
            self.at += 1;
        }
    }

    fn advance(&mut self) {
        self.recovering = false;
        self.consume();
    }

    fn report(&mut self, token: Token, message: String) {
        if !self.recovering {
            self.recovering = true;
            self.issues.report_at(token.start, format!("Syntax error: {message}"));
        }
    }

    fn shown(&self, token: Token) -> String {
        let text = token.text(self.issues.source());
        let text = text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
        format!("'{text}'")
    }

    fn mismatched(&mut self, expected: Set) -> Wrong {
        let token = self.token(0);
        let message = format!("mismatched input {} expecting {}", self.shown(token), names(expected));
        self.report(token, message);
        Wrong::Here
    }

    fn extraneous(&mut self, expected: Set) {
        let token = self.token(0);
        let message = format!("extraneous input {} expecting {}", self.shown(token), names(expected));
        self.report(token, message);
    }

    /// No choice fits the tokens from `start` to the one `ahead`.
    fn no_alternative(&mut self, ahead: usize) -> Wrong {
        let offending = self.token(ahead);
        let text: String = (0..=ahead)
            .map(|at| self.token(at))
            .filter(|token| token.kind != Kind::Eof)
            .map(|token| token.text(self.issues.source()))
            .collect();
        let message = match (ahead, offending.kind) {
            (1, Kind::True | Kind::False | Kind::Null) => {
                format!("mismatched input {} expecting IDENTIFIER", self.shown(offending))
            }
            _ => {
                let text = text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
                format!("no viable alternative at input '{text}'")
            }
        };
        self.report(offending, message);
        Wrong::Here
    }

    /// Before a choice: the next token must begin one, unless it is one too many.
    fn sync(&mut self, expected: Set) -> Tried {
        if self.recovering || expected.has(self.kind()) {
            return Ok(());
        }
        if expected.has(self.token(1).kind) {
            self.extraneous(expected);
            self.advance();
            return Ok(());
        }
        Err(self.mismatched(expected))
    }

    /// A token that must come, before what may come `after` it.
    fn expect(&mut self, kind: Kind, after: Set) -> Tried {
        if self.kind() == kind {
            self.advance();
            return Ok(());
        }
        self.attempt()?;
        let wanted = Set::of(&[kind]);
        if self.token(1).kind == kind && self.kind() != Kind::Eof {
            self.extraneous(wanted);
            self.consume();
            self.advance();
            return Ok(());
        }
        if after.has(self.kind()) {
            let token = self.token(0);
            let message = format!("missing {} at {}", names(wanted), self.shown(token));
            self.report(token, message);
            return Ok(());
        }
        Err(self.mismatched(wanted))
    }

    fn attempt(&mut self) -> Tried {
        if self.recoveries == MAX_RECOVERIES {
            self.recovering = false;
            let message = format!("error recovery attempt limit exceeded: {MAX_RECOVERIES}");
            self.report(self.token(0), message);
            return Err(Wrong::Enough);
        }
        self.recoveries += 1;
        Ok(())
    }

    /// Ends a rule: if it went wrong, skips to what may follow any of the rules it is in.
    fn end(&mut self, tried: Tried, resume: Set) -> Walked {
        match tried {
            Ok(()) => Ok(()),
            Err(Wrong::Enough) => Err(()),
            Err(Wrong::Here) => {
                self.attempt().map_err(drop)?;
                if self.last == Some(self.at) {
                    self.consume();
                }
                self.last = Some(self.at);
                while !resume.has(self.kind()) && self.kind() != Kind::Eof {
                    self.consume();
                }
                Ok(())
            }
        }
    }

    /// An expression that `follow` may follow; recovery may stop at `resume`.
    fn expr(&mut self, follow: Set, resume: Set) -> Walked {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(());
        }
        let tried = self.ternary(follow, resume);
        self.depth -= 1;
        self.end(tried, resume)
    }

    fn ternary(&mut self, follow: Set, resume: Set) -> Tried {
        self.chain(follow.or(OPERATORS), resume.or(OPERATORS))?;
        if self.kind() == Kind::Question {
            self.advance();
            let colon = Set::of(&[Kind::Colon]);
            self.chain(colon.or(OPERATORS), resume.or(OPERATORS).or(colon))?;
            self.expect(Kind::Colon, OPERAND)?;
            inner(self.expr(follow, resume))?;
        }
        Ok(())
    }

    /// Operands with operators between.
    fn chain(&mut self, follow: Set, resume: Set) -> Tried {
        loop {
            inner(self.unary(follow, resume))?;
            let kind = self.kind();
            if kind == Kind::Question || !OPERATORS.has(kind) {
                return Ok(());
            }
            self.advance();
        }
    }

    fn unary(&mut self, follow: Set, resume: Set) -> Walked {
        let tried = self.signed(follow, resume);
        self.end(tried, resume)
    }

    fn signed(&mut self, follow: Set, resume: Set) -> Tried {
        self.sync(OPERAND)?;
        let sign = self.kind();
        match sign {
            Kind::Exclam => {
                while self.kind() == Kind::Exclam {
                    self.advance();
                    if !self.recovering && !OPERAND.has(self.kind()) {
                        self.extraneous(OPERAND);
                        let stop = OPERAND.or(resume);
                        while !stop.has(self.kind()) && self.kind() != Kind::Eof {
                            self.consume();
                        }
                    }
                }
            }
            Kind::Minus if matches!(self.token(1).kind, Kind::Int | Kind::Float) => {}
            Kind::Minus => {
                if !OPERAND.has(self.token(1).kind) || UNSIGNED.has(self.token(1).kind) {
                    return Err(self.no_alternative(1));
                }
                while self.kind() == Kind::Minus && !matches!(self.token(1).kind, Kind::Int | Kind::Float) {
                    self.advance();
                }
            }
            _ => {}
        }
        inner(self.member(follow, resume))
    }

    fn member(&mut self, follow: Set, resume: Set) -> Walked {
        let tried = self.selection(follow, resume);
        self.end(tried, resume)
    }

    fn selection(&mut self, follow: Set, resume: Set) -> Tried {
        let more = follow.or(SELECTORS);
        let tried = self.primary(more, resume.or(SELECTORS));
        inner(self.end(tried, resume.or(SELECTORS)))?;
        loop {
            match self.kind() {
                Kind::Dot => self.dot(more, resume)?,
                Kind::LeftBracket => {
                    self.advance();
                    let close = Set::of(&[Kind::RightBracket]);
                    self.optional_mark(OPERAND)?;
                    inner(self.expr(close, resume.or(close)))?;
                    self.expect(Kind::RightBracket, more)?;
                }
                _ => return Ok(()),
            }
        }
    }

    fn dot(&mut self, more: Set, resume: Set) -> Tried {
        match self.token(1).kind {
            Kind::Ident | Kind::EscIdent => {
                self.advance();
                let callable = self.kind() == Kind::Ident;
                self.advance();
                if callable && self.kind() == Kind::LeftParen {
                    self.advance();
                    self.arguments(more, resume)?;
                }
                Ok(())
            }
            Kind::Question => {
                self.advance();
                self.advance();
                self.sync(NAMES)?;
                self.advance();
                Ok(())
            }
            _ => Err(self.no_alternative(1)),
        }
    }

    /// The question mark that may come before `then`.
    fn optional_mark(&mut self, then: Set) -> Tried {
        self.sync(then.or(QUESTION))?;
        if self.kind() == Kind::Question {
            self.advance();
        }
        Ok(())
    }

    fn arguments(&mut self, after: Set, resume: Set) -> Tried {
        let close = Set::of(&[Kind::RightParen]);
        self.sync(OPERAND.or(close))?;
        if OPERAND.has(self.kind()) {
            let next = close.or(Set::of(&[Kind::Comma]));
            loop {
                inner(self.expr(next, resume.or(next)))?;
                if self.kind() != Kind::Comma {
                    break;
                }
                self.advance();
            }
        }
        self.expect(Kind::RightParen, after)
    }

    fn primary(&mut self, after: Set, resume: Set) -> Tried {
        let first = Set(OPERAND.0 & !UNSIGNED.0);
        self.sync(first)?;
        match self.kind() {
            Kind::Dot | Kind::Ident => self.name(after, resume),
            Kind::LeftParen => {
                self.advance();
                let close = Set::of(&[Kind::RightParen]);
                inner(self.expr(close, resume.or(close)))?;
                self.expect(Kind::RightParen, after)
            }
            Kind::LeftBracket => {
                self.advance();
                self.elements(Kind::RightBracket, after, resume, Part::Element)
            }
            Kind::LeftBrace => {
                self.advance();
                self.elements(Kind::RightBrace, after, resume, Part::Entry)
            }
            Kind::Minus => {
                self.advance();
                self.advance();
                Ok(())
            }
            kind if first.has(kind) => {
                self.advance();
                Ok(())
            }
            _ => Err(self.no_alternative(0)),
        }
    }

    fn name(&mut self, after: Set, resume: Set) -> Tried {
        let dot = usize::from(self.kind() == Kind::Dot);
        if self.token(dot).kind != Kind::Ident {
            return Err(self.no_alternative(dot));
        }
        let mut ahead = dot + 1;
        while self.token(ahead).kind == Kind::Dot && self.token(ahead + 1).kind == Kind::Ident {
            ahead += 2;
        }
        if self.token(ahead).kind == Kind::LeftBrace {
            (0..=ahead).for_each(|_| self.advance());
            return self.elements(Kind::RightBrace, after, resume, Part::Field);
        }
        (0..=dot).for_each(|_| self.advance());
        if self.kind() == Kind::LeftParen {
            self.advance();
            return self.arguments(after, resume);
        }
        Ok(())
    }

    /// What stands within brackets or braces.
    fn elements(&mut self, close: Kind, after: Set, resume: Set, part: Part) -> Tried {
        let begins = if part == Part::Field { NAMES } else { OPERAND }.or(QUESTION);
        let ends = Set::of(&[close, Kind::Comma]);
        self.sync(begins.or(ends))?;
        while begins.has(self.kind()) {
            if self.kind() == Kind::Question {
                self.advance();
            }
            let colon = Set::of(&[Kind::Colon]);
            match part {
                Part::Element => inner(self.expr(ends, resume.or(ends)))?,
                Part::Entry => inner(self.expr(colon, resume.or(ends).or(colon)))?,
                Part::Field => {
                    self.sync(NAMES)?;
                    self.advance();
                }
            }
            if part != Part::Element {
                let tried = self.expect(Kind::Colon, OPERAND);
                if tried.is_err() {
                    inner(self.end(tried, resume.or(ends)))?;
                    break;
                }
                inner(self.expr(ends, resume.or(ends)))?;
            }
            if self.kind() != Kind::Comma || self.token(1).kind == close {
                break;
            }
            self.advance();
        }
        if self.kind() == Kind::Comma {
            self.advance();
        }
        self.expect(close, after)
    }
}

/// What stands within brackets or braces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Element,
    Entry,
    Field,
}

/// A rule within a rule has recovered, or there are no more attempts.
fn inner(walked: Walked) -> Tried {
    walked.map_err(|()| Wrong::Enough)
}

fn names(set: Set) -> String {
    let names: Vec<&str> = ALL.iter().filter(|(kind, _)| set.has(*kind)).map(|(_, name)| *name).collect();
    match names.as_slice() {
        [one] => (*one).to_owned(),
        names => format!("{{{}}}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use crate::cel::Environment;

    const OPERANDS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

    #[test]
    fn syntax_errors_read_as_the_generated_parser_words_them() {
        let eof = format!("Syntax error: mismatched input '<EOF>' expecting {OPERANDS}");
        let cases: [(&str, Vec<(i64, String)>); 14] = [
            ("object.x ==", vec![(11, eof.clone())]),
            ("1 +", vec![(3, eof.clone())]),
            ("nope(", vec![(5, eof.replace("'(', '.'", "'(', ')', '.'"))]),
            ("1 + $", vec![(4, "Syntax error: token recognition error at: '$'".into()), (5, eof.clone())]),
            (
                "*@a | b",
                vec![
                    (0, format!("Syntax error: extraneous input '*' expecting {OPERANDS}")),
                    (1, "Syntax error: token recognition error at: '@'".into()),
                    (4, "Syntax error: token recognition error at: '| '".into()),
                    (6, "Syntax error: extraneous input 'b' expecting <EOF>".into()),
                ],
            ),
            (
                "a | b",
                vec![
                    (2, "Syntax error: token recognition error at: '| '".into()),
                    (4, "Syntax error: extraneous input 'b' expecting <EOF>".into()),
                ],
            ),
            ("?", vec![(0, eof.replace("<EOF>", "?")), (1, eof.clone())]),
            ("[1, 2", vec![(5, "Syntax error: missing ']' at '<EOF>'".into())]),
            ("(1", vec![(2, "Syntax error: missing ')' at '<EOF>'".into())]),
            ("{'a': 1}.'a'", vec![(9, "Syntax error: no viable alternative at input '.'a''".into())]),
            ("a.true", vec![(2, "Syntax error: mismatched input 'true' expecting IDENTIFIER".into())]),
            ("a.", vec![(2, "Syntax error: no viable alternative at input '.'".into())]),
            ("true ? 1", vec![(8, "Syntax error: mismatched input '<EOF>' expecting ':'".into())]),
            ("a b", vec![(2, "Syntax error: extraneous input 'b' expecting <EOF>".into())]),
        ];
        for (text, want) in cases {
            let issues = Environment::kubernetes().compile(text).map(drop).expect_err(text);
            let mut found: Vec<(i64, String)> =
                issues.list().iter().map(|issue| (issue.location.column, issue.message.clone())).collect();
            found.sort();
            assert_eq!(found, want, "{text}");
        }
    }
}
