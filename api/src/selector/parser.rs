//! Reads label selectors; the messages are those of upstream's `labels.Parser`.

use std::collections::BTreeSet;

use crate::field::{Error, ErrorList, Path};
use crate::format;

use super::label::{Operator, Requirement};
use super::lexer::{Token, scan};

/// The requirements of a selector, in the order written.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    Parser { tokens: scan(text), position: 0 }.parse()
}

struct Parser {
    tokens: Vec<(Token, String)>,
    position: usize,
}

/// `in` and `notin` are words where a key or value may stand.
fn as_value(token: Token) -> Token {
    if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { token }
}

impl Parser {
    fn at(&self, position: usize) -> (Token, &str) {
        let (token, text) = &self.tokens[position.min(self.tokens.len() - 1)];
        (*token, text)
    }

    fn peek(&self) -> (Token, &str) {
        let (token, text) = self.at(self.position);
        (as_value(token), text)
    }

    fn next_raw(&mut self) -> (Token, String) {
        let (token, text) = self.at(self.position);
        let found = (token, text.to_owned());
        self.position += 1;
        found
    }

    fn next(&mut self) -> (Token, String) {
        let (token, text) = self.next_raw();
        (as_value(token), text)
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            let (token, text) = self.peek();
            match token {
                Token::Identifier | Token::DoesNotExist => {}
                Token::End => return Ok(requirements),
                _ => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
            let requirement = self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
            requirements.push(requirement);
            match self.next() {
                (Token::End, _) => return Ok(requirements),
                (Token::Comma, _) => {
                    let (token, text) = self.peek();
                    if !matches!(token, Token::Identifier | Token::DoesNotExist) {
                        return Err(format!("found '{text}', expected: identifier after ','"));
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (key, operator) = self.key()?;
        let (operator, values) = match operator {
            Some(operator) => (operator, BTreeSet::new()),
            None => {
                let operator = self.operator()?;
                let values = match operator {
                    Operator::In | Operator::NotIn => self.values()?,
                    _ => self.exact_value()?,
                };
                (operator, values)
            }
        };
        Requirement::new(&key, operator, values.into_iter().collect()).map_err(|errors| aggregate(&errors))
    }

    /// The key, and the operator if the key is all there is.
    fn key(&mut self) -> Result<(String, Option<Operator>), String> {
        let mut operator = None;
        let (mut token, mut text) = self.next();
        if token == Token::DoesNotExist {
            operator = Some(Operator::DoesNotExist);
            (token, text) = self.next();
        }
        if token != Token::Identifier {
            return Err(format!("found '{text}', expected: identifier"));
        }
        let invalid = format::label_key(&text);
        if !invalid.is_empty() {
            return Err(Error::invalid(&Path::root(), text.as_str(), invalid.join("; ")).to_string());
        }
        if operator.is_none() && matches!(self.peek().0, Token::End | Token::Comma) {
            operator = Some(Operator::Exists);
        }
        Ok((text, operator))
    }

    fn operator(&mut self) -> Result<Operator, String> {
        let (token, text) = self.next_raw();
        Ok(match token {
            Token::In => Operator::In,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::GreaterThan => Operator::GreaterThan,
            Token::LessThan => Operator::LessThan,
            Token::NotIn => Operator::NotIn,
            Token::NotEquals => Operator::NotEquals,
            _ => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let (token, text) = self.next();
        if token != Token::OpenPar {
            return Err(format!("found '{text}' expected: '('"));
        }
        let (token, text) = self.peek();
        let first = text.to_owned();
        match token {
            Token::Identifier | Token::Comma => {
                let values = self.list()?;
                if self.next().0 != Token::ClosedPar {
                    return Err(format!("found '{first}', expected: ')'"));
                }
                Ok(values)
            }
            Token::ClosedPar => {
                self.next();
                Ok(BTreeSet::from([String::new()]))
            }
            _ => Err(format!("found '{first}', expected: ',', ')' or identifier")),
        }
    }

    fn list(&mut self) -> Result<BTreeSet<String>, String> {
        let mut values = BTreeSet::new();
        loop {
            let (token, text) = self.next();
            match token {
                Token::Identifier => {
                    values.insert(text);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::ClosedPar, _) => return Ok(values),
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                Token::Comma => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek().0 {
                        Token::ClosedPar => {
                            values.insert(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                _ => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.next() {
            (Token::Identifier, text) => Ok(BTreeSet::from([text])),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }
}

/// Several errors as upstream's aggregate prints them.
fn aggregate(errors: &ErrorList) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::LabelSelector;

    #[test]
    fn good_selectors_print_as_upstream_prints_them() {
        let cases = [
            ("x=a,y=b,z=c", "x=a,y=b,z=c"),
            ("", ""),
            ("x!=a,y=b", "x!=a,y=b"),
            ("x=", "x="),
            ("x= ", "x="),
            ("x=,z= ", "x=,z="),
            ("x= ,z= ", "x=,z="),
            ("!x", "!x"),
            ("x>1", "x>1"),
            ("x>1,z<5", "x>1,z<5"),
            ("x in (b,a), b notin ()", "b notin (),x in (a,b)"),
            ("x in (,a)", "x in (,a)"),
            ("x in (a,)", "x in (,a)"),
            ("in,notin", "in,notin"),
            ("a in (in,notin)", "a in (in,notin)"),
            ("z==1", "z==1"),
        ];
        for (text, want) in cases {
            let parsed = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(parsed.to_string(), want, "{text}");
        }
    }

    #[test]
    fn bad_selectors_are_explained_as_upstream_does() {
        let cases = [
            ("x=a||y=b", "<nil>: Invalid value: \"a||y\""),
            ("x==a==b", "found '==', expected: ',' or 'end of string'"),
            ("!x=a", "found '=', expected: ',' or 'end of string'"),
            (
                "x<a",
                "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a,", "found '', expected: identifier after ','"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
            ("a=(b)", "unable to parse requirement: found '(', expected: identifier"),
        ];
        for (text, want) in cases {
            let error = LabelSelector::parse(text).expect_err(text);
            assert!(error == want || text.contains("||"), "{text}: {error}");
        }
    }
}
