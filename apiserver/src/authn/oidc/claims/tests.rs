//! Cases of upstream's `TestToken` about what is made of claims.

use serde_json::json;

use super::*;
use crate::authn::structured::{AuthenticationConfiguration, validate};

/// The user that claims name with this beside an issuer.
fn user(mappings: Value, more: Value, claims: Value) -> Result<User, String> {
    let mut jwt = json!({
        "issuer": {"url": "https://a", "audiences": ["my-client"]},
        "claimMappings": mappings,
    });
    if let (Some(jwt), Value::Object(more)) = (jwt.as_object_mut(), more) {
        jwt.extend(more);
    }
    let config: AuthenticationConfiguration =
        serde_json::from_value(json!({"jwt": [jwt]})).expect("a configuration");
    let rules = validate(&config, &[]).expect("a good configuration");
    let Value::Object(claims) = claims else { panic!("claims are an object") };
    user_of(&claims, &config.jwt[0], &rules[0])
}

fn by_claim(claim: &str, prefix: &str) -> Value {
    json!({"username": {"claim": claim, "prefix": prefix}})
}

#[test]
fn names_come_from_claims() {
    let none = || json!({});
    for (mappings, claims, expected) in [
        (by_claim("username", ""), json!({"username": "jane"}), Ok("jane")),
        (by_claim("username", "oidc:"), json!({"username": "jane"}), Ok("oidc:jane")),
        (by_claim("username", ""), json!({"username": ""}), Ok("")),
        (
            by_claim("username", ""),
            none(),
            Err(r#"oidc: parse username claims "username": claim not present"#),
        ),
        (
            by_claim("username", ""),
            json!({"username": 1}),
            Err(
                r#"oidc: parse username claims "username": json: cannot unmarshal number into Go value of type string"#,
            ),
        ),
        (by_claim("email", ""), json!({"email": "j@e", "email_verified": true}), Ok("j@e")),
        (by_claim("email", ""), json!({"email": "j@e"}), Ok("j@e")),
        (
            by_claim("email", ""),
            json!({"email": "j@e", "email_verified": false}),
            Err("oidc: email not verified"),
        ),
        (
            by_claim("email", ""),
            json!({"email": "j@e", "email_verified": "false"}),
            Err(
                "oidc: parse 'email_verified' claim: json: cannot unmarshal string into Go value of type bool",
            ),
        ),
        (
            json!({"username": {"expression": "claims.foo.username + ':x'"}}),
            json!({"foo": {"username": "jane"}}),
            Ok("jane:x"),
        ),
        (
            json!({"username": {"expression": "claims.username"}}),
            json!({"username": ""}),
            Err("oidc: empty username via CEL expression is not allowed"),
        ),
        (
            json!({"username": {"expression": "claims.username"}}),
            json!({"username": 1}),
            Err(
                "oidc: error evaluating username claim expression: username claim expression must return a string",
            ),
        ),
        (
            json!({"username": {"expression": "claims.turtle.foo"}}),
            json!({"turtle": {}}),
            Err(
                "oidc: error evaluating username claim expression: expression 'claims.turtle.foo' resulted in error: no such key: foo",
            ),
        ),
    ] {
        let found = user(mappings.clone(), none(), claims.clone()).map(|user| user.name);
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{mappings} {claims}");
    }
}

#[test]
fn groups_come_from_claims() {
    let mapped = |groups: Value, claims: Value| {
        let mut mappings = by_claim("username", "");
        mappings["groups"] = groups;
        let mut all = json!({"username": "jane"});
        all["groups"] = claims;
        user(mappings, json!({}), all).map(|user| user.groups)
    };
    let claim = |prefix: &str| json!({"claim": "groups", "prefix": prefix});
    let list = |items: &[&str]| Ok(items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>());
    assert_eq!(mapped(claim(""), json!(["a", "b"])), list(&["a", "b"]));
    assert_eq!(mapped(claim("g:"), json!(["a", "b"])), list(&["g:a", "g:b"]));
    assert_eq!(mapped(claim(""), json!("team")), list(&["team"]));
    assert_eq!(
        mapped(claim(""), json!(42)).expect_err("a number"),
        r#"oidc: parse groups claim "groups": json: cannot unmarshal number into Go value of type string"#
    );
    let expression = |text: &str| json!({"expression": text});
    assert_eq!(mapped(expression("claims.groups"), json!(["a", "", "b"])), list(&["a", "b"]));
    assert_eq!(mapped(expression("claims.groups"), Value::Null), list(&[]));
    assert_eq!(mapped(expression("claims.groups.split(',')"), json!("a,b")), list(&["a", "b"]));
    assert_eq!(
        mapped(expression("claims.groups"), json!(1)).expect_err("a number"),
        "oidc: error evaluating group claim expression: expression must return a string or a list of strings"
    );
    let mut none = by_claim("username", "");
    none["groups"] = claim("");
    assert_eq!(user(none, json!({}), json!({"username": "jane"})).expect("a user").groups, [""; 0]);
}

#[test]
fn uids_and_extra_come_from_claims() {
    let mut mappings = by_claim("username", "");
    mappings["uid"] = json!({"expression": "claims.uid"});
    mappings["extra"] = json!([
        {"key": "example.org/foo", "valueExpression": "claims.foo"},
        {"key": "example.org/bar", "valueExpression": "claims.bar"},
        {"key": "example.org/none", "valueExpression": "''"},
    ]);
    let claims = json!({
        "username": "jane", "uid": "1234", "foo": "bar", "bar": ["baz", "qux"],
        "jti": "ea28ed49",
    });
    let found = user(mappings.clone(), json!({}), claims).expect("a user");
    assert_eq!(found.uid, "1234");
    let extra: Vec<(&str, String)> =
        found.extra.iter().map(|(key, values)| (key.as_str(), values.join(","))).collect();
    assert_eq!(
        extra,
        [
            ("authentication.kubernetes.io/credential-id", "JTI=ea28ed49".to_owned()),
            ("example.org/bar", "baz,qux".to_owned()),
            ("example.org/foo", "bar".to_owned()),
        ]
    );
    let wrong = json!({"username": "jane", "uid": "1", "foo": 1, "bar": ""});
    assert_eq!(
        user(mappings, json!({}), wrong).expect_err("a number"),
        "oidc: error evaluating extra claim expression: claims.foo: expression must return a string or a list of \
         strings"
    );
    let mut by = by_claim("username", "");
    by["uid"] = json!({"claim": "uid"});
    let claims = json!({"username": "jane", "uid": "1234", "jti": 7});
    let found = user(by, json!({}), claims).expect("a user");
    assert_eq!((found.uid.as_str(), found.extra.len()), ("1234", 0), "an id that is no text is no id");
}

#[test]
fn rules_are_kept() {
    let rule = |rules: Value, claims: Value| {
        user(by_claim("username", ""), json!({"claimValidationRules": rules}), claims).map(|user| user.name)
    };
    let jane = |hd: Value| json!({"username": "jane", "hd": hd, "aud": ["foo", "bar"]});
    let wanted = || json!([{"claim": "hd", "requiredValue": "example.com"}]);
    assert_eq!(rule(wanted(), jane(json!("example.com"))).as_deref(), Ok("jane"));
    assert_eq!(
        rule(wanted(), jane(json!("example.org"))).expect_err("another value"),
        "oidc: required claim hd value does not match. Got = example.org, want = example.com"
    );
    assert_eq!(
        rule(wanted(), json!({"username": "jane"})).expect_err("no such claim"),
        "oidc: required claim hd not present in ID token"
    );
    let aud = |text: &str| json!([{"expression": text, "message": "audience must be exact"}]);
    assert_eq!(rule(aud("'foo' in claims.aud"), jane(json!(""))).as_deref(), Ok("jane"));
    assert_eq!(
        rule(aud(r#"sets.equivalent(claims.aud, ["bar", "foo", "baz"])"#), jane(json!("")))
            .expect_err("not the same"),
        "oidc: error evaluating claim validation expression: validation expression 'sets.equivalent(claims.aud, \
         [\"bar\", \"foo\", \"baz\"])' failed: audience must be exact"
    );
    assert_eq!(
        rule(aud("claims.no == 'x'"), jane(json!(""))).expect_err("no such claim"),
        "oidc: error evaluating claim validation expression: expression 'claims.no == 'x'' resulted in error: no \
         such key: no"
    );
}

#[test]
fn users_are_what_they_must_be() {
    let rules = json!({"userValidationRules": [
        {"expression": "!user.username.startsWith('system:')", "message": "reserved"},
        {"expression": "user.groups.all(group, !group.startsWith('system:'))", "message": "reserved group"},
        {"expression": "!(user.extra[?'authentication.kubernetes.io/credential-id'][0].orValue('') in ['JTI=1'])",
         "message": "credential is revoked"},
    ]});
    let mut mappings = by_claim("username", "system:");
    mappings["groups"] = json!({"claim": "groups", "prefix": ""});
    let start = "oidc: error evaluating user info validation rule: validation expression '";
    let why = user(mappings.clone(), rules.clone(), json!({"username": "x"})).expect_err("a reserved name");
    assert_eq!(why, format!("{start}!user.username.startsWith('system:')' failed: reserved"));
    mappings["username"]["prefix"] = json!("");
    let ask = |claims: Value| user(mappings.clone(), rules.clone(), claims);
    assert!(ask(json!({"username": "x", "groups": ["dev"], "jti": "2"})).is_ok());
    assert!(
        ask(json!({"username": "x", "groups": ["system:masters"]}))
            .expect_err("no")
            .ends_with("reserved group")
    );
    assert!(ask(json!({"username": "x", "jti": "1"})).expect_err("no").ends_with("credential is revoked"));
}
