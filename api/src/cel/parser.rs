//! Parses expressions.
//!
//! A recursive descent through the grammar of the language, shaped like the generated parser upstream uses: depth is
//! counted for each rule and limited, chains of `&&` and `||` become balanced trees, macros are expanded as soon as
//! their call is complete. It knows only right expressions; what exactly is wrong with others, in the generated
//! parser's words, is found by [`super::syntax`].

use super::ast::{Ast, Expr, ExprId, ExprKind, Literal, MapEntry, StructField, operators as op};
use super::lexer::{Kind, Token, tokens};
use super::macros::{self, Call, Expansion, Ids, Macros};
use super::source::{Issues, Location, Source};
use super::{syntax, unescape::unescape};

/// The deepest nesting of any rule of the grammar, and of operators in the tree.
const MAX_DEPTH: u16 = 250;
/// The longest expression, in characters.
const MAX_SIZE: usize = 100_000;

/// Names that are no variables.
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// Parses `text`, knowing these macros.
///
/// # Errors
/// With all that is wrong.
pub(crate) fn parse(text: &str, macros: Macros) -> Result<(Ast, Source), Issues> {
    let source = Source::new(text);
    let mut issues = Issues::new(source.clone());
    let size = source.chars().len();
    if size > MAX_SIZE {
        let message = format!("expression code point size exceeds limit: size: {size}, limit {MAX_SIZE}");
        issues.report(Location { line: -1, column: -1 }, message);
        return Err(issues);
    }
    let tokens = tokens(&source, &mut issues);
    let mut parser = Parser {
        source: &source,
        tokens: &tokens,
        at: 0,
        issues,
        offsets: vec![0],
        depths: Depths::default(),
        macros,
    };
    let parsed = parser.start();
    let Parser { mut issues, offsets, at, .. } = parser;
    match parsed {
        Ok(root) if issues.is_empty() => Ok((Ast { root, offsets }, source)),
        Ok(_) => Err(issues),
        Err(Stop::Depth(message)) => {
            issues.report(Location::NONE, message);
            Err(issues)
        }
        Err(Stop::Syntax) => {
            // The lexer's issues and those of the parser are in the order of the text.
            syntax::explain(&tokens, &mut issues);
            if issues.is_empty() {
                let token = tokens[at.min(tokens.len() - 1)];
                let message = format!("Syntax error: extraneous input '{}'", token.text(&source));
                issues.report_at(token.start, message);
            }
            Err(issues)
        }
    }
}

/// Why parsing ended early.
enum Stop {
    /// A token that cannot stand there.
    Syntax,
    /// Nested too deeply.
    Depth(String),
}

type Parsed<T> = Result<T, Stop>;

/// How deep in each of the rules that can recur.
#[derive(Default)]
struct Depths {
    expr: u16,
    relation: u16,
    calc: u16,
    member: u16,
}

/// An expression and how many operators are nested in it.
struct Node {
    expr: Expr,
    height: u16,
}

struct Parser<'s> {
    source: &'s Source,
    tokens: &'s [Token],
    at: usize,
    issues: Issues,
    offsets: Vec<u32>,
    depths: Depths,
    macros: Macros,
}

impl Ids for Parser<'_> {
    fn id(&mut self, offset: u32) -> ExprId {
        self.offsets.push(offset);
        self.offsets.len() as ExprId - 1
    }

    fn offset(&self, id: ExprId) -> u32 {
        self.offsets.get(id as usize).copied().unwrap_or_default()
    }
}

/// Counts one level deeper.
fn deeper(depth: &mut u16) -> Parsed<()> {
    *depth += 1;
    match *depth > MAX_DEPTH {
        true => Err(Stop::Depth(format!("expression recursion limit exceeded: {MAX_DEPTH}"))),
        false => Ok(()),
    }
}

/// One operator above operands of these heights.
fn above(heights: &[u16]) -> Parsed<u16> {
    let height = heights.iter().max().copied().unwrap_or_default() + 1;
    match height > MAX_DEPTH {
        true => Err(Stop::Depth("max recursion depth exceeded".to_owned())),
        false => Ok(height),
    }
}

fn relation(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Less => op::LESS,
        Kind::LessEquals => op::LESS_EQUALS,
        Kind::GreaterEquals => op::GREATER_EQUALS,
        Kind::Greater => op::GREATER,
        Kind::Equals => op::EQUALS,
        Kind::NotEquals => op::NOT_EQUALS,
        Kind::In => op::IN,
        _ => return None,
    })
}

/// An arithmetic operator and how tightly it binds.
fn calculation(kind: Kind) -> Option<(&'static str, u8)> {
    Some(match kind {
        Kind::Star => (op::MULTIPLY, 2),
        Kind::Slash => (op::DIVIDE, 2),
        Kind::Percent => (op::MODULO, 2),
        Kind::Plus => (op::ADD, 1),
        Kind::Minus => (op::SUBTRACT, 1),
        _ => return None,
    })
}

impl Parser<'_> {
    fn peek(&self) -> Token {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn kind(&self) -> Kind {
        self.peek().kind
    }

    fn kind_after(&self, count: usize) -> Kind {
        self.tokens[(self.at + count).min(self.tokens.len() - 1)].kind
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn accept(&mut self, kind: Kind) -> Option<Token> {
        (self.kind() == kind).then(|| self.next())
    }

    fn expect(&mut self, kind: Kind) -> Parsed<Token> {
        self.accept(kind).ok_or(Stop::Syntax)
    }

    fn text(&self, token: Token) -> String {
        token.text(self.source)
    }

    /// Notes that something at `offset` is wrong; an expression in its place.
    fn wrong(&mut self, offset: u32, message: impl Into<String>) -> Expr {
        let id = self.id(offset);
        self.issues.report_at(offset, message);
        Expr::new(id, ExprKind::Unspecified)
    }

    fn make(&mut self, offset: u32, kind: ExprKind) -> Expr {
        let id = self.id(offset);
        Expr::new(id, kind)
    }

    /// A call, or what the macro it is stands for.
    fn call(&mut self, offset: u32, function: &str, target: Option<Expr>, args: Vec<Expr>) -> Expr {
        let call = Call { function: function.to_owned(), target: target.map(Box::new), args };
        let macros = self.macros;
        match macros::expand(self, offset, call, macros) {
            Expansion::Expr(expr) => expr,
            Expansion::Wrong(offset, message) => self.wrong(offset, message),
            Expansion::Call(Call { function, target, args }) => {
                self.make(offset, ExprKind::Call { target, function, args })
            }
        }
    }

    fn start(&mut self) -> Parsed<Expr> {
        let node = self.expr()?;
        self.expect(Kind::Eof)?;
        Ok(node.expr)
    }

    fn expr(&mut self) -> Parsed<Node> {
        deeper(&mut self.depths.expr)?;
        let mut node = self.any_of(Kind::Or)?;
        if let Some(token) = self.accept(Kind::Question) {
            let yes = self.any_of(Kind::Or)?;
            self.expect(Kind::Colon)?;
            let no = self.expr()?;
            let height = above(&[node.height, yes.height, no.height])?;
            let expr = self.call(token.start, op::CONDITIONAL, None, vec![node.expr, yes.expr, no.expr]);
            node = Node { expr, height };
        }
        self.depths.expr -= 1;
        Ok(node)
    }

    /// Terms joined by `||`, or by `&&`.
    fn any_of(&mut self, joint: Kind) -> Parsed<Node> {
        let first = self.term(joint)?;
        if self.kind() != joint {
            return Ok(first);
        }
        let mut height = first.height;
        let (mut terms, mut places) = (vec![Some(first.expr)], Vec::new());
        while let Some(token) = self.accept(joint) {
            let next = self.term(joint)?;
            height = height.max(next.height);
            terms.push(Some(next.expr));
            places.push(self.id(token.start));
        }
        let function = if joint == Kind::Or { op::OR } else { op::AND };
        let expr = balance(function, &mut terms, &places, 0, places.len() - 1);
        Ok(Node { expr, height })
    }

    fn term(&mut self, joint: Kind) -> Parsed<Node> {
        if joint == Kind::Or { self.any_of(Kind::And) } else { self.relation() }
    }

    fn relation(&mut self) -> Parsed<Node> {
        let outside = self.depths.relation;
        deeper(&mut self.depths.relation)?;
        let mut left = self.calc(0)?;
        while let Some(function) = relation(self.kind()) {
            deeper(&mut self.depths.relation)?;
            let token = self.next();
            // What stands on the right of a relation is itself a relation, of one calculation.
            deeper(&mut self.depths.relation)?;
            let right = self.calc(0)?;
            self.depths.relation -= 1;
            left = self.binary(token, function, left, right)?;
        }
        self.depths.relation = outside;
        Ok(left)
    }

    fn calc(&mut self, tightness: u8) -> Parsed<Node> {
        let outside = self.depths.calc;
        deeper(&mut self.depths.calc)?;
        let mut left = self.unary()?;
        while let Some((function, binds)) = calculation(self.kind())
            && binds >= tightness
        {
            deeper(&mut self.depths.calc)?;
            let token = self.next();
            let right = self.calc(binds + 1)?;
            left = self.binary(token, function, left, right)?;
        }
        self.depths.calc = outside;
        Ok(left)
    }

    fn binary(&mut self, token: Token, function: &str, left: Node, right: Node) -> Parsed<Node> {
        let height = above(&[left.height, right.height])?;
        let expr = self.call(token.start, function, None, vec![left.expr, right.expr]);
        Ok(Node { expr, height })
    }

    fn unary(&mut self) -> Parsed<Node> {
        let first = self.peek();
        let function = match first.kind {
            Kind::Exclam => op::NOT,
            // One minus before a number belongs to the number.
            Kind::Minus if !matches!(self.kind_after(1), Kind::Int | Kind::Float) => op::NEGATE,
            _ => return self.member(),
        };
        let mut count = 0;
        while self.accept(first.kind).is_some() {
            count += 1;
        }
        let node = self.member()?;
        if count % 2 == 0 {
            return Ok(node);
        }
        let expr = self.call(first.start, function, None, vec![node.expr]);
        Ok(Node { expr, height: node.height })
    }

    fn member(&mut self) -> Parsed<Node> {
        let outside = self.depths.member;
        deeper(&mut self.depths.member)?;
        let mut node = self.primary()?;
        loop {
            node = match self.kind() {
                Kind::Dot => {
                    deeper(&mut self.depths.member)?;
                    self.dot(node)?
                }
                Kind::LeftBracket => {
                    deeper(&mut self.depths.member)?;
                    self.index(node)?
                }
                _ => break,
            };
        }
        self.depths.member = outside;
        Ok(node)
    }

    /// `.field`, `.?field` or `.function(…)` behind `operand`.
    fn dot(&mut self, operand: Node) -> Parsed<Node> {
        let dot = self.next();
        let optional = self.accept(Kind::Question).is_some();
        let name = self.next();
        let field = match name.kind {
            Kind::Ident => self.text(name),
            Kind::EscIdent => {
                self.wrong(name.start, "unsupported syntax: '`'");
                String::new()
            }
            _ => return Err(Stop::Syntax),
        };
        if !optional
            && name.kind == Kind::Ident
            && let Some(open) = self.accept(Kind::LeftParen)
        {
            let (args, heights) = self.arguments()?;
            let height = above(&[operand.height, heights])?;
            return Ok(Node { expr: self.call(open.start, &field, Some(operand.expr), args), height });
        }
        let height = above(&[operand.height])?;
        let expr = if !optional {
            self.make(
                dot.start,
                ExprKind::Select { operand: Box::new(operand.expr), field, test_only: false },
            )
        } else if !self.macros.optionals {
            self.wrong(dot.start, "unsupported syntax '.?'")
        } else {
            let field = self.make(name.start, ExprKind::Literal(Literal::String(field.into())));
            let args = vec![operand.expr, field];
            self.make(dot.start, ExprKind::Call { target: None, function: op::OPT_SELECT.to_owned(), args })
        };
        Ok(Node { expr, height })
    }

    /// `[index]` or `[?index]` behind `target`.
    fn index(&mut self, target: Node) -> Parsed<Node> {
        let open = self.next();
        let optional = self.accept(Kind::Question).is_some();
        let index = self.expr()?;
        self.expect(Kind::RightBracket)?;
        let height = above(&[target.height, index.height])?;
        let expr = if optional && !self.macros.optionals {
            self.wrong(open.start, "unsupported syntax '[?'")
        } else {
            let function = if optional { op::OPT_INDEX } else { op::INDEX };
            self.call(open.start, function, None, vec![target.expr, index.expr])
        };
        Ok(Node { expr, height })
    }

    /// Arguments up to the closing parenthesis, and the height of the highest.
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, u16)> {
        let (mut args, mut height) = (Vec::new(), 0);
        if self.accept(Kind::RightParen).is_some() {
            return Ok((args, height));
        }
        loop {
            let arg = self.expr()?;
            height = height.max(arg.height);
            args.push(arg.expr);
            if self.accept(Kind::Comma).is_none() {
                self.expect(Kind::RightParen)?;
                return Ok((args, height));
            }
        }
    }

    fn primary(&mut self) -> Parsed<Node> {
        match self.kind() {
            Kind::Dot | Kind::Ident => self.name(),
            Kind::LeftParen => {
                self.next();
                let inner = self.expr()?;
                self.expect(Kind::RightParen)?;
                Ok(inner)
            }
            Kind::LeftBracket => self.list(),
            Kind::LeftBrace => self.map(),
            _ => self.literal(),
        }
    }

    /// A variable, a function call or the construction of an object.
    fn name(&mut self) -> Parsed<Node> {
        let start = self.peek().start;
        let mut name = String::new();
        if self.accept(Kind::Dot).is_some() {
            name.push('.');
        }
        if self.kind() != Kind::Ident {
            return Err(Stop::Syntax);
        }
        let mut ahead = 1;
        while self.kind_after(ahead) == Kind::Dot && self.kind_after(ahead + 1) == Kind::Ident {
            ahead += 2;
        }
        if self.kind_after(ahead) == Kind::LeftBrace {
            return self.construction(name, ahead);
        }
        let token = self.next();
        let ident = self.text(token);
        let reserved = RESERVED.contains(&ident.as_str());
        name.push_str(&ident);
        if let Some(open) = self.accept(Kind::LeftParen) {
            let (args, height) = self.arguments()?;
            let expr = match reserved {
                true => self.wrong(start, format!("reserved identifier: {ident}")),
                false => self.call(open.start, &name, None, args),
            };
            return Ok(Node { expr, height });
        }
        let expr = match reserved {
            true => self.wrong(start, format!("reserved identifier: {ident}")),
            false => self.make(token.start, ExprKind::Ident(name)),
        };
        Ok(Node { expr, height: 0 })
    }

    fn construction(&mut self, mut type_name: String, tokens: usize) -> Parsed<Node> {
        for _ in 0..tokens {
            let token = self.next();
            type_name.push_str(&self.text(token));
        }
        let open = self.next();
        let start = self.peek().start;
        let id = self.id(open.start);
        let (mut fields, mut height) = (Vec::new(), 0);
        while !matches!(self.kind(), Kind::RightBrace | Kind::Comma) {
            let optional = self.optional_mark();
            let name = self.next();
            let field = match name.kind {
                Kind::Ident => self.text(name),
                Kind::EscIdent => {
                    self.wrong(start, "unsupported syntax: '`'");
                    String::new()
                }
                _ => return Err(Stop::Syntax),
            };
            let colon = self.expect(Kind::Colon)?;
            let field_id = self.id(colon.start);
            let value = self.expr()?;
            height = height.max(value.height);
            fields.push(StructField { id: field_id, name: field, value: value.expr, optional });
            if !self.goes_on(Kind::RightBrace) {
                break;
            }
        }
        self.accept(Kind::Comma);
        self.expect(Kind::RightBrace)?;
        Ok(Node { expr: Expr::new(id, ExprKind::Struct { type_name, fields }), height })
    }

    /// Whether a comma is followed by one more element rather than by the end.
    fn goes_on(&mut self, end: Kind) -> bool {
        let more = self.kind() == Kind::Comma && self.kind_after(1) != end;
        if more {
            self.next();
        }
        more
    }

    /// The question mark before an element, if any.
    fn optional_mark(&mut self) -> bool {
        match self.accept(Kind::Question) {
            Some(mark) if !self.macros.optionals => {
                self.wrong(mark.start, "unsupported syntax '?'");
                false
            }
            mark => mark.is_some(),
        }
    }

    fn list(&mut self) -> Parsed<Node> {
        let open = self.next();
        let id = self.id(open.start);
        let (mut elements, mut optionals, mut height) = (Vec::new(), Vec::new(), 0);
        while !matches!(self.kind(), Kind::RightBracket | Kind::Comma) {
            if self.optional_mark() {
                optionals.push(elements.len());
            }
            let element = self.expr()?;
            height = height.max(element.height);
            elements.push(element.expr);
            if !self.goes_on(Kind::RightBracket) {
                break;
            }
        }
        self.accept(Kind::Comma);
        self.expect(Kind::RightBracket)?;
        Ok(Node { expr: Expr::new(id, ExprKind::List { elements, optionals }), height })
    }

    fn map(&mut self) -> Parsed<Node> {
        let open = self.next();
        let id = self.id(open.start);
        let (mut entries, mut height) = (Vec::new(), 0);
        while !matches!(self.kind(), Kind::RightBrace | Kind::Comma) {
            let optional = self.optional_mark();
            let key = self.expr()?;
            let colon = self.expect(Kind::Colon)?;
            let entry_id = self.id(colon.start);
            let value = self.expr()?;
            height = height.max(key.height).max(value.height);
            entries.push(MapEntry { id: entry_id, key: key.expr, value: value.expr, optional });
            if !self.goes_on(Kind::RightBrace) {
                break;
            }
        }
        self.accept(Kind::Comma);
        self.expect(Kind::RightBrace)?;
        Ok(Node { expr: Expr::new(id, ExprKind::Map(entries)), height })
    }

    fn literal(&mut self) -> Parsed<Node> {
        let start = self.peek().start;
        let negative = self.accept(Kind::Minus).is_some();
        let token = self.next();
        let text = self.text(token);
        let literal = match token.kind {
            Kind::Int => int(&text, negative).map(Literal::Int).ok_or("invalid int literal"),
            Kind::Float => text
                .parse::<f64>()
                .ok()
                .filter(|value| value.is_finite())
                .map(|value| Literal::Double(if negative { -value } else { value }))
                .ok_or("invalid double literal"),
            _ if negative => return Err(Stop::Syntax),
            Kind::Uint => uint(&text[..text.len() - 1]).map(Literal::Uint).ok_or("invalid uint literal"),
            Kind::String => unescape(&text, false)
                .map(|bytes| Literal::String(String::from_utf8_lossy(&bytes).into_owned().into())),
            Kind::Bytes => unescape(&text[1..], true).map(|bytes| Literal::Bytes(bytes.into())),
            Kind::True => Ok(Literal::Bool(true)),
            Kind::False => Ok(Literal::Bool(false)),
            Kind::Null => Ok(Literal::Null),
            _ => return Err(Stop::Syntax),
        };
        let expr = match literal {
            Ok(literal) => self.make(start, ExprKind::Literal(literal)),
            Err(message) => self.wrong(start, message),
        };
        Ok(Node { expr, height: 0 })
    }
}

fn int(text: &str, negative: bool) -> Option<i64> {
    let magnitude = i128::from(uint(text)?);
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

fn uint(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The terms from `low` on as a tree as flat as possible; the operators between them are `low..=high` of `places`.
fn balance(function: &str, terms: &mut [Option<Expr>], places: &[ExprId], low: usize, high: usize) -> Expr {
    let middle = (low + high).div_ceil(2);
    let take = |terms: &mut [Option<Expr>], at: usize| {
        terms[at].take().unwrap_or(Expr::new(places[middle], ExprKind::Unspecified))
    };
    let left = match middle == low {
        true => take(terms, middle),
        false => balance(function, terms, places, low, middle - 1),
    };
    let right = match middle == high {
        true => take(terms, middle + 1),
        false => balance(function, terms, places, middle + 1, high),
    };
    let kind = ExprKind::Call { target: None, function: function.to_owned(), args: vec![left, right] };
    Expr::new(places[middle], kind)
}
