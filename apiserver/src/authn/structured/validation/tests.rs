//! Cases of upstream's `TestValidateAuthenticationConfiguration` and those of its parts.

use super::*;

/// A configuration of one issuer, with this beside a valid issuer and user name.
fn with(more: Value) -> AuthenticationConfiguration {
    let mut jwt = json!({
        "issuer": {"url": "https://issuer-url", "audiences": ["audience"]},
        "claimMappings": {"username": {"claim": "sub", "prefix": "prefix"}},
    });
    merge(&mut jwt, more);
    serde_json::from_value(json!({"jwt": [jwt]})).expect("a configuration")
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (name, value) in more {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn errors(config: &AuthenticationConfiguration, disallowed: &[&str]) -> Vec<String> {
    let disallowed: Vec<String> = disallowed.iter().map(|issuer| (*issuer).to_owned()).collect();
    match validate(config, &disallowed) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn issuers_are_checked() {
    let issuer = |issuer: Value| with(json!({"issuer": issuer}));
    let at = "jwt[0].issuer.";
    for (config, expected) in [
        (issuer(json!({})), vec![]),
        (issuer(json!({"url": ""})), vec!["url: Required value"]),
        (
            issuer(json!({"url": "invalid-url"})),
            vec![r#"url: Invalid value: "invalid-url": URL scheme must be https"#],
        ),
        (
            issuer(json!({"url": "https://u:p@issuer-url"})),
            vec![
                r#"url: Invalid value: "https://u:p@issuer-url": URL must not contain a username or password"#,
            ],
        ),
        (
            issuer(json!({"url": "https://issuer-url?a=b#c"})),
            vec![
                r#"url: Invalid value: "https://issuer-url?a=b#c": URL must not contain a query"#,
                r#"url: Invalid value: "https://issuer-url?a=b#c": URL must not contain a fragment"#,
            ],
        ),
        (
            issuer(json!({"url": "https://issuer-url:invalid-port"})),
            vec![
                r#"url: Invalid value: "https://issuer-url:invalid-port": parse "https://issuer-url:invalid-port": invalid port ":invalid-port" after host"#,
            ],
        ),
        (
            issuer(json!({"discoveryURL": "https://issuer-url/"})),
            vec![
                r#"discoveryURL: Invalid value: "https://issuer-url/": discoveryURL must be different from URL"#,
            ],
        ),
        (
            issuer(json!({"discoveryURL": "http://other"})),
            vec![r#"discoveryURL: Invalid value: "http://other": URL scheme must be https"#],
        ),
        (
            issuer(json!({"audiences": []})),
            vec!["audiences: Required value: at least one jwt[0].issuer.audiences is required"],
        ),
        (issuer(json!({"audiences": [""]})), vec!["audiences[0]: Required value"]),
        (
            issuer(json!({"audienceMatchPolicy": "MatchExact"})),
            vec![
                r#"audienceMatchPolicy: Invalid value: "MatchExact": audienceMatchPolicy must be empty or MatchAny for single audience"#,
            ],
        ),
        (
            issuer(json!({"audiences": ["a", "a"], "audienceMatchPolicy": "MatchAny"})),
            vec![r#"audiences[1]: Duplicate value: "a""#],
        ),
        (
            issuer(json!({"audiences": ["a", "b"]})),
            vec![
                r#"audienceMatchPolicy: Invalid value: "": audienceMatchPolicy must be MatchAny for multiple audiences"#,
            ],
        ),
        (
            issuer(json!({"certificateAuthority": "invalid"})),
            vec![
                r#"certificateAuthority: Invalid value: "<omitted>": data does not contain any valid RSA or ECDSA certificates"#,
            ],
        ),
        (
            issuer(json!({"egressSelectorType": "panda"})),
            vec![
                r#"egressSelectorType: Invalid value: "panda": egress selector must be either controlplane or cluster"#,
            ],
        ),
    ] {
        let expected: Vec<String> = expected.iter().map(|error| format!("{at}{error}")).collect();
        assert_eq!(errors(&config, &[]), expected);
    }
    let own = errors(&issuer(json!({})), &["b", "https://issuer-url", "a"]);
    let expected = r#"jwt[0].issuer.url: Invalid value: "https://issuer-url": URL must not overlap with disallowed issuers: [a b https://issuer-url]"#;
    assert_eq!(own, [expected]);
}

#[test]
fn issuers_are_named_once() {
    let mut config = with(json!({"issuer": {"discoveryURL": "https://d"}}));
    config.jwt.push(config.jwt[0].clone());
    let expected = [
        r#"jwt[1].issuer.url: Duplicate value: "https://issuer-url""#,
        r#"jwt[1].issuer.discoveryURL: Duplicate value: "https://d""#,
    ];
    assert_eq!(errors(&config, &[]), expected);
    let many = AuthenticationConfiguration { jwt: vec![config.jwt[0].clone(); 65], anonymous: None };
    assert_eq!(errors(&many, &[]), ["jwt: Too many: 65: must have at most 64 items"]);
}

#[test]
fn anonymous_conditions_need_anonymous_requests() {
    let mut config: AuthenticationConfiguration =
        serde_json::from_value(json!({"anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]}}))
            .expect("a configuration");
    assert!(errors(&config, &[]).is_empty());
    config.anonymous.as_mut().expect("given").enabled = false;
    let expected = r#"anonymous.conditions: Invalid value: [{"Path":"/livez"}]: enabled should be set to true when conditions are defined"#;
    assert_eq!(errors(&config, &[]), [expected]);
}

const UNDECLARED: &str = "compilation failed: ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n \
                          | foo.bar\n | ^";

#[test]
fn claim_rules_are_checked() {
    let at = "jwt[0].claimValidationRules";
    for (rules, expected) in [
        (json!([{}]), "[0]: Required value: claim or expression is required".to_owned()),
        (
            json!([{"claim": "claim", "expression": "expression"}]),
            r#"[0]: Invalid value: "claim": claim and expression can't both be set"#.to_owned(),
        ),
        (
            json!([{"claim": "claim", "message": "message"}]),
            r#"[0].message: Invalid value: "message": may not be specified when claim is set"#.to_owned(),
        ),
        (
            json!([{"expression": "claims.foo == 'bar'", "requiredValue": "value"}]),
            r#"[0].requiredValue: Invalid value: "value": may not be specified when expression is set"#
                .to_owned(),
        ),
        (
            json!([{"claim": "claim"}, {"claim": "claim"}]),
            r#"[1].claim: Duplicate value: "claim""#.to_owned(),
        ),
        (
            json!([{"expression": "claims.foo == 'bar'"}, {"expression": "claims.foo == 'bar'"}]),
            r#"[1].expression: Duplicate value: "claims.foo == 'bar'""#.to_owned(),
        ),
        (
            json!([{"expression": "foo.bar"}]),
            format!(r#"[0].expression: Invalid value: "foo.bar": {UNDECLARED}"#),
        ),
        (
            json!([{"expression": "claims.foo"}]),
            r#"[0].expression: Invalid value: "claims.foo": must evaluate to bool"#.to_owned(),
        ),
    ] {
        assert_eq!(errors(&with(json!({"claimValidationRules": rules})), &[]), [format!("{at}{expected}")]);
    }
}

#[test]
fn mappings_are_checked() {
    let at = "jwt[0].claimMappings.";
    let extra = |key: &str, expression: &str| json!({"extra": [{"key": key, "valueExpression": expression}]});
    for (mappings, expected) in [
        (
            json!({"username": {"claim": "claim", "expression": "claims.username"}}),
            r#"username: Invalid value: "": claim and expression can't both be set"#.to_owned(),
        ),
        (
            json!({"username": {"claim": ""}}),
            "username: Required value: claim or expression is required".to_owned(),
        ),
        (
            json!({"username": {"claim": "", "expression": "claims.username"}}),
            r#"username.prefix: Invalid value: "prefix": may not be specified when expression is set"#
                .to_owned(),
        ),
        (
            json!({"groups": {"claim": "groups"}}),
            "groups.prefix: Required value: prefix is required when claim is set. It can be set to an empty string \
             to disable prefixing"
                .to_owned(),
        ),
        (
            json!({"groups": {"expression": "foo.bar"}}),
            format!(r#"groups.expression: Invalid value: "foo.bar": {UNDECLARED}"#),
        ),
        (
            json!({"uid": {"claim": "claim", "expression": "claims.uid"}}),
            r#"uid: Invalid value: "": claim and expression can't both be set"#.to_owned(),
        ),
        (
            json!({"uid": {"expression": "foo.bar"}}),
            format!(r#"uid.expression: Invalid value: "foo.bar": {UNDECLARED}"#),
        ),
        (extra("", "claims.extra"), "extra[0].key: Required value".to_owned()),
        (extra("example.org/foo", ""), "extra[0].valueExpression: Required value".to_owned()),
        (
            extra("example.org/foo", "foo.bar"),
            format!(r#"extra[0].valueExpression: Invalid value: "foo.bar": {UNDECLARED}"#),
        ),
        (
            extra("foo", "claims.extra"),
            r#"extra[0].key: Invalid value: "foo": must be a domain-prefixed path (such as "acme.io/foo")"#
                .to_owned(),
        ),
        (
            extra("example.org/Foo", "claims.extra"),
            r#"extra[0].key: Invalid value: "example.org/Foo": must be lowercase"#.to_owned(),
        ),
        (
            extra("a.k8s.io/foo", "claims.extra"),
            r#"extra[0].key: Invalid value: "a.k8s.io/foo": k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"#
                .to_owned(),
        ),
    ] {
        assert_eq!(errors(&with(json!({"claimMappings": mappings})), &[]), [format!("{at}{expected}")]);
    }
    for key in ["example-k8s.io/foo", "notkubernetes.io/foo"] {
        assert!(errors(&with(json!({"claimMappings": extra(key, "claims.extra")})), &[]).is_empty(), "{key}");
    }
}

#[test]
fn addresses_of_mail_must_be_verified() {
    let config = |username: &str, more: Value| {
        let username = json!({"claim": "", "prefix": null, "expression": username});
        let mut all = json!({"claimMappings": {"username": username}});
        merge(&mut all, more);
        with(all)
    };
    let none = || json!({});
    for (username, more, fine) in [
        ("claims.email", none(), false),
        (r#"{"fancy": claims.?email}"#, none(), false),
        (r#"["a"].map(i, i + claims.email)"#, none(), false),
        ("claims.email_", none(), true),
        ("claims.?email_verified.orValue(true) ? claims.email : claims.sub", none(), true),
        (
            "claims.email",
            json!({"claimValidationRules": [{"expression": "string(claims.email_verified) == 'p'"}]}),
            true,
        ),
        (
            "claims.email",
            json!({"claimMappings": {"extra": [{"key": "p.io/f", "valueExpression": "claims.?email_verified"}]}}),
            true,
        ),
        (
            "claims.email",
            json!({"claimValidationRules": [{"claim": "c", "requiredValue": "claims.email_verified"}]}),
            false,
        ),
    ] {
        let found = errors(&config(username, more), &[]);
        assert_eq!(found.is_empty(), fine, "{username}: {found:?}");
        let start = "jwt[0].claimMappings.username.expression: Invalid value: ";
        assert!(found.iter().all(|error| error.starts_with(start)), "{found:?}");
    }
}

#[test]
fn user_rules_are_checked() {
    let at = "jwt[0].userValidationRules";
    for (rules, expected) in [
        (json!([{}]), "[0].expression: Required value".to_owned()),
        (
            json!([{"expression": "user.username == 'foo'"}, {"expression": "user.username == 'foo'"}]),
            r#"[1].expression: Duplicate value: "user.username == 'foo'""#.to_owned(),
        ),
        (
            json!([{"expression": "user.username"}]),
            r#"[0].expression: Invalid value: "user.username": must evaluate to bool"#.to_owned(),
        ),
        (
            json!([{"expression": "foo.bar"}]),
            format!(r#"[0].expression: Invalid value: "foo.bar": {UNDECLARED}"#),
        ),
    ] {
        assert_eq!(errors(&with(json!({"userValidationRules": rules})), &[]), [format!("{at}{expected}")]);
    }
}
