//! Splits the text of a label selector into tokens (upstream `labels.Lexer`).

/// Kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Error,
    End,
    ClosedPar,
    Comma,
    DoesNotExist,
    DoubleEquals,
    Equals,
    GreaterThan,
    Identifier,
    In,
    LessThan,
    NotEquals,
    NotIn,
    OpenPar,
}

fn symbol(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::ClosedPar,
        "," => Token::Comma,
        "!" => Token::DoesNotExist,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::GreaterThan,
        "in" => Token::In,
        "<" => Token::LessThan,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::OpenPar,
        _ => return None,
    })
}

fn is_symbol(c: char) -> bool {
    "=!(),><".contains(c)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// All tokens with their text; the last is always `End`.
pub(super) fn scan(text: &str) -> Vec<(Token, String)> {
    // As upstream, whose reader takes a zero byte for the end.
    let mut rest = text.split('\0').next().unwrap_or_default();
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start_matches(is_space);
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, String::new()));
            return tokens;
        };
        if is_symbol(first) {
            let length = symbol_length(rest);
            tokens.push(match symbol(&rest[..length]) {
                Some(token) => (token, rest[..length].to_owned()),
                None => (Token::Error, format!("error expected: keyword found '{}'", &rest[..length])),
            });
            rest = &rest[length..];
        } else {
            let length = rest.find(|c| is_symbol(c) || is_space(c)).unwrap_or(rest.len());
            let word = &rest[..length];
            tokens.push((symbol(word).unwrap_or(Token::Identifier), word.to_owned()));
            rest = &rest[length..];
        }
    }
}

/// The longest run of symbol characters at the start that still is one token. Every single one but none longer than two is.
fn symbol_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes {
        [b'=', b'=', ..] | [b'!', b'=', ..] => 2,
        _ => 1,
    }
}
