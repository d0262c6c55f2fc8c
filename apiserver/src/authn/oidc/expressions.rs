//! Expressions about claims and users (upstream `apiserver/pkg/authentication/cel`).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use api::cel::admission::{CALL_LIMIT, type_text};
use api::cel::{
    Bindings, Declared, Environment, ExprKind, Fault, Limits, Literal, MAX_REQUEST_BYTES, Program, Type,
    Value, escape,
};
use serde_json::{Map, Number, Value as Json};

/// The variable that holds the claims of a token.
const CLAIMS: &str = "claims";
/// The variable that holds a user.
const USER: &str = "user";
/// `a.?b` as a call.
const OPTIONAL_SELECT: &str = "_?._";

/// What an expression must evaluate to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// A truth value.
    Bool,
    /// Anything.
    Any,
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Expression {
    text: Arc<str>,
    variable: &'static str,
    program: Program,
    /// Variables and the fields that are selected from them.
    selected: Arc<[(String, String)]>,
}

fn environment(variable: &'static str) -> &'static Environment {
    static OF_CLAIMS: OnceLock<Environment> = OnceLock::new();
    static OF_USER: OnceLock<Environment> = OnceLock::new();
    if variable == CLAIMS {
        return OF_CLAIMS.get_or_init(|| {
            Environment::kubernetes().with_variable(CLAIMS, Type::map(Type::String, Type::Any))
        });
    }
    OF_USER.get_or_init(|| Environment::kubernetes().with_declared(USER, &Arc::new(user_type())))
}

fn user_type() -> Declared {
    let text = || Declared::scalar("string", Type::String, 2, MAX_REQUEST_BYTES);
    let texts = || Declared::list(text(), MAX_REQUEST_BYTES);
    let fields = [
        ("username", text()),
        ("uid", text()),
        ("groups", texts()),
        ("extra", Declared::map(texts(), MAX_REQUEST_BYTES)),
    ];
    let fields: BTreeMap<_, _> =
        fields.into_iter().map(|(name, declared)| (name.to_owned(), Arc::new(declared))).collect();
    Declared::object("kubernetes.UserInfo", fields)
}

impl Expression {
    /// An expression about `claims`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_claims(text: &str, returns: Returns) -> Result<Self, String> {
        Self::compile(text, CLAIMS, returns)
    }

    /// A condition about `user`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_user(text: &str) -> Result<Self, String> {
        Self::compile(text, USER, Returns::Bool)
    }

    fn compile(text: &str, variable: &'static str, returns: Returns) -> Result<Self, String> {
        let environment = environment(variable);
        let checked = environment.compile(text).map_err(|issues| format!("compilation failed: {issues}"))?;
        if returns == Returns::Bool && checked.output_type() != Type::Bool {
            return Err(format!("must evaluate to {}", type_text(&Type::Bool)));
        }
        let program =
            environment.program(&checked).map_err(|why| format!("program instantiation failed: {why}"))?;
        let mut selected = Vec::new();
        checked.ast.root.walk(&mut |expr| match &expr.kind {
            ExprKind::Select { operand, field, .. } => {
                if let ExprKind::Ident(name) = &operand.kind {
                    selected.push((name.clone(), field.clone()));
                }
            }
            ExprKind::Call { target: None, function, args } if function == OPTIONAL_SELECT => {
                if let [operand, field] = args.as_slice()
                    && let ExprKind::Ident(name) = &operand.kind
                    && let ExprKind::Literal(Literal::String(field)) = &field.kind
                {
                    selected.push((name.clone(), field.to_string()));
                }
            }
            _ => {}
        });
        Ok(Self { text: text.into(), variable, program, selected: selected.into() })
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it selects `field` from `variable` somewhere.
    #[must_use]
    pub fn selects(&self, variable: &str, field: &str) -> bool {
        self.selected.iter().any(|(name, selected)| name == variable && selected == field)
    }

    /// Its value for some data.
    ///
    /// # Errors
    /// Why it has none, in upstream's words.
    pub fn evaluate<'a>(&self, data: &'a Data) -> Result<Value<'a>, String> {
        let data = if self.text.contains("__") { &data.escaped } else { &data.plain };
        let variables = Bindings::new().bind(self.variable, Value::from_json(data));
        let limits = Limits { cost: Some(CALL_LIMIT), interrupted: None };
        let value = self.program.evaluate(&variables, limits).value;
        value.map_err(|why: Fault| format!("expression '{}' resulted in error: {why}", self.text))
    }
}

/// Claims or a user as expressions see them: numbers are floating-point numbers, as Go reads JSON.
pub struct Data {
    plain: Json,
    /// The same, where what has a name that is no identifier is found by its escaped name too.
    escaped: Json,
}

impl Data {
    /// Of some JSON.
    #[must_use]
    pub fn new(json: Json) -> Self {
        let plain = with_floats(json);
        Self { escaped: with_escaped_names(&plain), plain }
    }
}

fn with_floats(json: Json) -> Json {
    match json {
        Json::Number(number) => {
            number.as_f64().and_then(Number::from_f64).map_or(Json::Number(number), Json::Number)
        }
        Json::Array(items) => items.into_iter().map(with_floats).collect(),
        Json::Object(fields) => fields.into_iter().map(|(name, value)| (name, with_floats(value))).collect(),
        other => other,
    }
}

fn with_escaped_names(json: &Json) -> Json {
    match json {
        Json::Array(items) => items.iter().map(with_escaped_names).collect(),
        Json::Object(fields) => {
            let mut out = Map::new();
            for (name, value) in fields {
                let value = with_escaped_names(value);
                if let Some(escaped) = escape(name).filter(|escaped| escaped != name) {
                    out.insert(escaped, value.clone());
                }
                out.insert(name.clone(), value);
            }
            Json::Object(out)
        }
        other => other.clone(),
    }
}

/// Text or a list of texts; what is empty is absent (upstream `convertCELValueToStringList`).
///
/// # Errors
/// When the value is something else.
pub fn texts(value: &Value<'_>) -> Result<Vec<String>, String> {
    let wrong = || "expression must return a string or a list of strings".to_owned();
    let found: Vec<String> = match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.to_string()],
        Value::List(list) => list
            .iter()
            .map(|item| item.ok().and_then(|item| item.as_str().map(str::to_owned)).ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong()),
    };
    Ok(found.into_iter().filter(|text| !text.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_read_as_go_reads_json() {
        let claims = Data::new(json!({
            "exp": 100, "nbf": 50, "a.b": {"c/d": ["x"]}, "roles": ["r", "", "s"], "verified": true,
        }));
        for (text, expected) in [
            ("claims.exp - claims.nbf <= 86400.0", json!(true)),
            ("type(claims.exp) == double", json!(true)),
            ("claims.a__dot__b.c__slash__d[0]", json!("x")),
            ("claims['a.b']['c/d'][0]", json!("x")),
            ("has(claims.nope)", json!(false)),
            ("claims.size()", json!(5)),
            ("claims.?nope.orValue('none')", json!("none")),
        ] {
            let expression = Expression::of_claims(text, Returns::Any).expect(text);
            let value = expression.evaluate(&claims).expect(text);
            assert_eq!(value.to_json().expect("JSON"), expected, "{text}");
        }
        let roles = Expression::of_claims("claims.roles", Returns::Any).expect("an expression");
        assert_eq!(texts(&roles.evaluate(&claims).expect("a value")).expect("texts"), ["r", "s"]);
        let number = Expression::of_claims("claims.exp", Returns::Any).expect("an expression");
        assert!(texts(&number.evaluate(&claims).expect("a value")).is_err());
        let missing = Expression::of_claims("claims.nope", Returns::Any).expect("an expression");
        let why = missing.evaluate(&claims).expect_err("no such claim");
        assert_eq!(why, "expression 'claims.nope' resulted in error: no such key: nope");
    }

    #[test]
    fn users_have_four_fields() {
        let user = Data::new(json!({"username": "u", "uid": "", "groups": ["g"], "extra": {"a.b/c": ["1"]}}));
        for (text, expected) in [
            ("user.username == 'u' && 'g' in user.groups", true),
            ("user.extra['a.b/c'][0] == '1'", true),
            ("!user.username.startsWith('system:')", true),
            ("size(user.uid) > 0", false),
        ] {
            let value = Expression::of_user(text).expect(text).evaluate(&user).expect(text).as_bool();
            assert_eq!(value, Some(expected), "{text}");
        }
        assert!(
            Expression::of_user("user.name == 'a'").expect_err("no such field").contains("undefined field")
        );
    }
}
