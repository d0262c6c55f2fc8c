//! Splits an expression into tokens.
//!
//! The longest token wins, as in the grammar's generated lexer. Where no token fits, the text up to the character
//! that ruled out the last possibility is reported and skipped, as that lexer does; its other habits (a single `"`
//! after an empty string, `0x` without digits) follow from the same rule.

use super::source::{Issues, Source};

/// Kinds of tokens; the order is that of the grammar and decides the order in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Eof = 0,
    Equals,
    NotEquals,
    In,
    Less,
    LessEquals,
    GreaterEquals,
    Greater,
    And,
    Or,
    LeftBracket,
    RightBracket,
    LeftBrace,
    RightBrace,
    LeftParen,
    RightParen,
    Dot,
    Comma,
    Minus,
    Exclam,
    Question,
    Colon,
    Plus,
    Star,
    Slash,
    Percent,
    True,
    False,
    Null,
    Float,
    Int,
    Uint,
    String,
    Bytes,
    Ident,
    EscIdent,
}

/// A token: its kind and the characters it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub kind: Kind,
    pub start: u32,
    pub end: u32,
}

impl Token {
    pub(crate) fn text(self, source: &Source) -> String {
        if self.kind == Kind::Eof {
            return "<EOF>".to_owned();
        }
        source.chars()[self.start as usize..self.end as usize].iter().collect()
    }
}

/// All tokens of a source, ending with [`Kind::Eof`].
pub(crate) fn tokens(source: &Source, issues: &mut Issues) -> Vec<Token> {
    let lexer = Lexer { chars: source.chars() };
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < lexer.chars.len() {
        match lexer.next(at) {
            Lexeme::Hidden(end) => at = end,
            Lexeme::Token(kind, end) => {
                tokens.push(Token { kind, start: at as u32, end: end as u32 });
                at = end;
            }
            Lexeme::Bad(last) => {
                let stop = (last + 1).min(lexer.chars.len());
                let text: String = lexer.chars[at..stop].iter().collect();
                let text = text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
                issues.report_at(at as u32, format!("Syntax error: token recognition error at: '{text}'"));
                at = last + 1;
            }
        }
    }
    let end = lexer.chars.len() as u32;
    tokens.push(Token { kind: Kind::Eof, start: end, end });
    tokens
}

/// What begins at a character.
enum Lexeme {
    /// White space or a comment, up to here.
    Hidden(usize),
    /// A token, up to here.
    Token(Kind, usize),
    /// Nothing: the character at this offset ruled out the last possibility.
    Bad(usize),
}

/// Whether a string literal begins somewhere, and if not, where that became clear.
type Scan = Result<usize, usize>;

struct Lexer<'s> {
    chars: &'s [char],
}

impl Lexer<'_> {
    fn peek(&self, at: usize) -> Option<char> {
        self.chars.get(at).copied()
    }

    fn run(&self, mut at: usize, holds: impl Fn(char) -> bool) -> usize {
        while self.peek(at).is_some_and(&holds) {
            at += 1;
        }
        at
    }

    fn next(&self, at: usize) -> Lexeme {
        let c = self.chars[at];
        match c {
            ' ' | '\t' | '\r' | '\n' | '\u{c}' => {
                Lexeme::Hidden(self.run(at, |c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{c}')))
            }
            '/' if self.peek(at + 1) == Some('/') => Lexeme::Hidden(self.run(at, |c| c != '\n')),
            'a'..='z' | 'A'..='Z' | '_' => self.word(at),
            '0'..='9' => self.number(at),
            '.' if self.peek(at + 1).is_some_and(|c| c.is_ascii_digit()) => self.number(at),
            '"' | '\'' => match self.string(at, false) {
                Ok(end) => Lexeme::Token(Kind::String, end),
                Err(last) => Lexeme::Bad(last),
            },
            '`' => self.escaped_ident(at),
            _ => self.symbol(at, c),
        }
    }

    fn symbol(&self, at: usize, c: char) -> Lexeme {
        let second = self.peek(at + 1);
        let pair = |wanted: char, both: Kind| match second == Some(wanted) {
            true => Lexeme::Token(both, at + 2),
            false => Lexeme::Bad(at + 1),
        };
        let either = |one: Kind, both: Kind| match second == Some('=') {
            true => Lexeme::Token(both, at + 2),
            false => Lexeme::Token(one, at + 1),
        };
        let single = |kind: Kind| Lexeme::Token(kind, at + 1);
        match c {
            '=' => pair('=', Kind::Equals),
            '&' => pair('&', Kind::And),
            '|' => pair('|', Kind::Or),
            '!' => either(Kind::Exclam, Kind::NotEquals),
            '<' => either(Kind::Less, Kind::LessEquals),
            '>' => either(Kind::Greater, Kind::GreaterEquals),
            '[' => single(Kind::LeftBracket),
            ']' => single(Kind::RightBracket),
            '{' => single(Kind::LeftBrace),
            '}' => single(Kind::RightBrace),
            '(' => single(Kind::LeftParen),
            ')' => single(Kind::RightParen),
            '.' => single(Kind::Dot),
            ',' => single(Kind::Comma),
            '-' => single(Kind::Minus),
            '?' => single(Kind::Question),
            ':' => single(Kind::Colon),
            '+' => single(Kind::Plus),
            '*' => single(Kind::Star),
            '/' => single(Kind::Slash),
            '%' => single(Kind::Percent),
            _ => Lexeme::Bad(at),
        }
    }

    /// An identifier, a keyword, or a string with a prefix.
    fn word(&self, at: usize) -> Lexeme {
        let end = self.run(at, |c| c.is_ascii_alphanumeric() || c == '_');
        if let Some((kind, literal)) = self.prefixed(at)
            && literal > end
        {
            return Lexeme::Token(kind, literal);
        }
        let text: String = self.chars[at..end].iter().collect();
        let kind = match text.as_str() {
            "in" => Kind::In,
            "true" => Kind::True,
            "false" => Kind::False,
            "null" => Kind::Null,
            _ => Kind::Ident,
        };
        Lexeme::Token(kind, end)
    }

    /// `r"…"`, `b"…"`, `br"…"`.
    fn prefixed(&self, at: usize) -> Option<(Kind, usize)> {
        let mut body = at;
        let mut kind = Kind::String;
        if matches!(self.peek(body)?, 'b' | 'B') {
            kind = Kind::Bytes;
            body += 1;
        }
        let raw = matches!(self.peek(body)?, 'r' | 'R');
        if raw {
            body += 1;
        }
        if !matches!(self.peek(body)?, '"' | '\'') {
            return None;
        }
        self.string(body, raw).ok().map(|end| (kind, end))
    }

    /// The end of the string literal whose quotes begin at `at`.
    fn string(&self, at: usize, raw: bool) -> Scan {
        let quote = self.chars[at];
        let short = self.short_string(at + 1, quote, raw);
        if self.peek(at + 1) != Some(quote) || self.peek(at + 2) != Some(quote) {
            return short;
        }
        match self.long_string(at + 3, quote, raw) {
            Ok(end) => Ok(end),
            // The two quotes that begin it are an empty string.
            Err(_) => short,
        }
    }

    fn short_string(&self, mut at: usize, quote: char, raw: bool) -> Scan {
        loop {
            match self.peek(at) {
                None | Some('\n' | '\r') => return Err(at),
                Some(c) if c == quote => return Ok(at + 1),
                Some('\\') if !raw => at = self.escape(at)?,
                Some(_) => at += 1,
            }
        }
    }

    fn long_string(&self, mut at: usize, quote: char, raw: bool) -> Scan {
        loop {
            match self.peek(at) {
                None => return Err(at),
                Some(c)
                    if c == quote
                        && self.chars[at..].iter().take(3).filter(|c| **c == quote).count() == 3 =>
                {
                    return Ok(at + 3);
                }
                Some('\\') if !raw => at = self.escape(at)?,
                Some(_) => at += 1,
            }
        }
    }

    /// The end of the escape sequence that begins at `at`.
    fn escape(&self, at: usize) -> Scan {
        let digits = |count: usize, holds: fn(char) -> bool| {
            (0..count)
                .try_fold(at + 2, |at, _| if self.peek(at).is_some_and(holds) { Ok(at + 1) } else { Err(at) })
        };
        match self.peek(at + 1) {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`') => Ok(at + 2),
            Some('x' | 'X') => digits(2, |c| c.is_ascii_hexdigit()),
            Some('u') => digits(4, |c| c.is_ascii_hexdigit()),
            Some('U') => digits(8, |c| c.is_ascii_hexdigit()),
            Some('0'..='3') => digits(2, |c| matches!(c, '0'..='7')),
            _ => Err(at + 1),
        }
    }

    fn number(&self, at: usize) -> Lexeme {
        if self.chars[at] == '0' && self.peek(at + 1) == Some('x') {
            let end = self.run(at + 2, |c| c.is_ascii_hexdigit());
            if end > at + 2 {
                return self.integer(end);
            }
        }
        let digits = |c: char| c.is_ascii_digit();
        let whole = self.run(at, digits);
        let mut end = whole;
        if self.peek(end) == Some('.') && self.peek(end + 1).is_some_and(digits) {
            end = self.run(end + 1, digits);
        }
        if matches!(self.peek(end), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.peek(end + 1), Some('+' | '-')));
            let exponent = self.run(end + 1 + sign, digits);
            if exponent > end + 1 + sign {
                end = exponent;
            }
        }
        if end > whole { Lexeme::Token(Kind::Float, end) } else { self.integer(whole) }
    }

    fn integer(&self, end: usize) -> Lexeme {
        match self.peek(end) {
            Some('u' | 'U') => Lexeme::Token(Kind::Uint, end + 1),
            _ => Lexeme::Token(Kind::Int, end),
        }
    }

    fn escaped_ident(&self, at: usize) -> Lexeme {
        let end = self.run(at + 1, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' '));
        match self.peek(end) {
            Some('`') if end > at + 1 => Lexeme::Token(Kind::EscIdent, end + 1),
            _ => Lexeme::Bad(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lex(text: &str) -> (String, Vec<String>) {
        let source = Source::new(text);
        let mut issues = Issues::new(source.clone());
        let kinds: Vec<String> = tokens(&source, &mut issues)
            .iter()
            .map(|t| format!("{:?}:{}", t.kind, t.text(&source)))
            .collect();
        let issues = issues.list().iter().map(|i| format!("{}: {}", i.location.column, i.message)).collect();
        (kinds.join(" "), issues)
    }

    #[test]
    fn the_longest_token_wins() {
        let cases = [
            ("a.b", "Ident:a Dot:. Ident:b Eof:<EOF>"),
            ("1.5 1e3 .5 1. 1e", "Float:1.5 Float:1e3 Float:.5 Int:1 Dot:. Int:1 Ident:e Eof:<EOF>"),
            ("0x1fu 0x 12u", "Uint:0x1fu Int:0 Ident:x Uint:12u Eof:<EOF>"),
            ("in inn true", "In:in Ident:inn True:true Eof:<EOF>"),
            ("r'a\\' b'c' bR\"x\" br", r#"String:r'a\' Bytes:b'c' Bytes:bR"x" Ident:br Eof:<EOF>"#),
            ("'''a'b''' \"\"", "String:'''a'b''' String:\"\" Eof:<EOF>"),
            ("a // c\n<= b", "Ident:a LessEquals:<= Ident:b Eof:<EOF>"),
            ("`a-b`", "EscIdent:`a-b` Eof:<EOF>"),
        ];
        for (text, want) in cases {
            assert_eq!(lex(text), (want.to_owned(), vec![]), "{text}");
        }
    }

    #[test]
    fn what_no_token_fits_is_reported_and_skipped() {
        let cases = [
            ("a | b", "Ident:a Ident:b Eof:<EOF>", vec!["2: Syntax error: token recognition error at: '| '"]),
            ("1 + $", "Int:1 Plus:+ Eof:<EOF>", vec!["4: Syntax error: token recognition error at: '$'"]),
            ("'ab", "Eof:<EOF>", vec!["0: Syntax error: token recognition error at: ''ab'"]),
            (
                "'\\z'",
                "Eof:<EOF>",
                vec![
                    "0: Syntax error: token recognition error at: ''\\z'",
                    "3: Syntax error: token recognition error at: '''",
                ],
            ),
        ];
        for (text, tokens, issues) in cases {
            assert_eq!(
                lex(text),
                (tokens.to_owned(), issues.iter().map(|i| (*i).to_owned()).collect()),
                "{text}"
            );
        }
    }
}
