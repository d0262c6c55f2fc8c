//! Flow schemas and priority levels (upstream `flowcontrol/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{below, changes, wholly, with};

fn kind(kind: &'static str) -> GroupVersionKind {
    GroupVersionKind::new("flowcontrol.apiserver.k8s.io", "v1", kind)
}

/// Owned cases, as [`below`] takes them.
fn lent(cases: &[(Value, String)]) -> Vec<(Value, &str)> {
    cases.iter().map(|(part, wrong)| (part.clone(), wrong.as_str())).collect()
}

fn resources(changes: Value) -> Value {
    with(&json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}), &changes)
}

fn urls(urls: &[&str]) -> Value {
    json!({"verbs": ["*"], "nonResourceURLs": urls})
}

fn user() -> Value {
    json!({"kind": "User", "user": {"name": "noxu"}})
}

fn schema() -> Value {
    json!({
        "metadata": {"name": "system-foo"},
        "spec": {
            "matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "system-bar"},
            "rules": [{"subjects": [user()], "resourceRules": [resources(json!({}))]}],
        },
    })
}

#[test]
fn rules() {
    let rule = |rule: Value| json!([with(&json!({"subjects": [user()]}), &rule)]);
    let of = |changes: Value| rule(json!({"resourceRules": [resources(changes)]}));
    let others = |paths: &[&str]| rule(json!({"nonResourceRules": [urls(paths)]}));
    let subject = |subject: Value| json!([{"subjects": [subject], "nonResourceRules": [urls(&["*"])]}]);
    let account = json!({"namespace": "s", "name": "n"});
    let named = json!({"name": "fred"});
    let bad_kind = "[0].subjects[0].kind: Unsupported value";
    let mut cases: Vec<(Value, String)> = [
        (rule(json!({})), "[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty"),
        (json!([{"subjects": [{"kind": "Group", "group": {"name": "noxu"}}], "resourceRules": [resources(json!({}))]}]), ""),
        (
            subject(json!({"kind": "ServiceAccount", "user": named, "group": named})),
            "[0].subjects[0].serviceAccount: Required value: serviceAccount is required when subject kind is 'ServiceAccount' | [0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User' | [0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
        ),
        (
            subject(json!({"kind": "User", "group": named, "serviceAccount": account})),
            "[0].subjects[0].user: Required value: user is required when subject kind is 'User' | [0].subjects[0].serviceAccount: Forbidden: serviceAccount is forbidden when subject kind is not 'ServiceAccount' | [0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
        ),
        (
            subject(json!({"kind": "Group", "user": named, "serviceAccount": account})),
            "[0].subjects[0].group: Required value: group is required when subject kind is 'Group' | [0].subjects[0].serviceAccount: Forbidden: serviceAccount is forbidden when subject kind is not 'ServiceAccount' | [0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
        ),
        (subject(json!({"kind": "User", "user": {"name": ""}})), "[0].subjects[0].user.name: Required value"),
        (subject(json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "a"}})), ""),
        (subject(json!({"kind": "FooKind"})), bad_kind),
        (subject(json!({"kind": ""})), bad_kind),
        (
            subject(json!({"kind": "ServiceAccount", "serviceAccount": {"name": "noxu"}})),
            "[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account",
        ),
        (json!([{"nonResourceRules": [urls(&["*"])]}]), "[0].subjects: Required value: subjects must contain at least one value"),
        (
            of(json!({"verbs": ["*", "create"], "apiGroups": ["*", "tak"], "resources": ["*", "tok"]})),
            "[0].resourceRules[0].verbs: Invalid value: [\"*\",\"create\"]: if '*' is present, must not specify other verbs | [0].resourceRules[0].apiGroups: Invalid value: [\"*\",\"tak\"]: if '*' is present, must not specify other api groups | [0].resourceRules[0].resources: Invalid value: [\"*\",\"tok\"]: if '*' is present, must not specify other resources",
        ),
        (rule(json!({"resourceRules": [resources(json!({}))], "nonResourceRules": [urls(&["/apis/*"])]})), ""),
        (
            others(&["*", "tik"]),
            "[0].nonResourceRules[0].nonResourceURLs: Invalid value: [\"*\",\"tik\"]: if '*' is present, must not specify other non-resource URLs",
        ),
        (
            of(json!({"verbs": ["feed"]})),
            "[0].resourceRules[0].verbs: Unsupported value: [\"feed\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
        ),
        (of(json!({"verbs": []})), "[0].resourceRules[0].verbs: Required value: verbs must contain at least one value"),
        (of(json!({"apiGroups": []})), "[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group"),
        (of(json!({"resources": []})), "[0].resourceRules[0].resources: Required value: resource rules must supply at least one resource"),
        (others(&[]), "[0].nonResourceRules[0].nonResourceURLs: Required value: nonResourceURLs must contain at least one value"),
        (
            of(json!({"namespaces": null})),
            "[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
        ),
        (of(json!({"namespaces": null, "clusterScope": true})), ""),
        (of(json!({"clusterScope": true})), ""),
        (
            of(json!({"namespaces": ["foo", "*"]})),
            "[0].resourceRules[0].namespaces: Invalid value: [\"foo\",\"*\"]: if '*' is present, must not specify other namespaces",
        ),
        (
            of(json!({"namespaces": ["-foo"]})),
            "[0].resourceRules[0].namespaces[0]: Invalid value: \"-foo\": each member of this list must be '*' or a DNS-1123 label; a lowercase RFC 1123 label must consist of",
        ),
    ]
    .map(|(rules, wrong)| (rules, wrong.to_owned()))
    .into();
    for (url, why) in [
        ("", "must not be empty"),
        ("foo", "must start with slash"),
        ("/", ""),
        ("//", "must not contain double slash"),
        ("/foo", ""),
        ("/////", "must not contain double slash"),
        ("/apis/", ""),
        ("/healthz/*", ""),
        ("/healthz/*/foo", "wildcard can only do suffix matching"),
        ("/healthz/foo bar", "must not contain white-space"),
        ("/health*", "wildcard can only do suffix matching"),
        ("/health*/foo", "wildcard can only do suffix matching"),
        ("/*/*", "wildcard can only do suffix matching"),
    ] {
        let at = "[0].nonResourceRules[0].nonResourceURLs[0]";
        let wrong =
            if why.is_empty() { String::new() } else { format!("{at}: Invalid value: \"{url}\": {why}") };
        cases.push((others(&[url]), wrong));
    }
    let place = |rules: &Value| json!({"spec": {"rules": rules}});
    below(&kind("FlowSchema"), &schema(), "spec.rules", place, &lent(&cases));
}

#[test]
fn schemas() {
    let of = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let everything = resources(json!({"clusterScope": true}));
    let exempt = |url: &str| {
        let rule = json!({
            "subjects": [group("system:masters")], "resourceRules": [everything], "nonResourceRules": [urls(&[url])],
        });
        of(
            "exempt",
            json!({
                "matchingPrecedence": 1, "priorityLevelConfiguration": {"name": "exempt"}, "rules": [rule],
            }),
        )
    };
    let catch_all = |url: &str| {
        let subjects = [group("system:unauthenticated"), group("system:authenticated")];
        let rule =
            json!({"subjects": subjects, "resourceRules": [everything], "nonResourceRules": [urls(&[url])]});
        of(
            "catch-all",
            json!({
                "matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "catch-all"}, "rules": [rule],
                "distinguisherMethod": {"type": "ByUser"},
            }),
        )
    };
    let spec = |spec: Value| json!({"spec": spec});
    wholly(
        &kind("FlowSchema"),
        &schema(),
        &[
            (json!({}), ""),
            (exempt("*"), ""),
            (exempt("/"), "spec: spec of 'exempt' must equal the fixed value"),
            (catch_all("*"), ""),
            (catch_all("/"), "spec: spec of 'catch-all' must equal the fixed value"),
            (
                of(
                    "fred",
                    json!({"matchingPrecedence": 1, "priorityLevelConfiguration": {"name": "exempt"}}),
                ),
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
            ),
            (
                spec(json!({"priorityLevelConfiguration": {"name": "system+++$$"}})),
                "spec.priorityLevelConfiguration.name: Invalid value: \"system+++$$\": a lowercase RFC 1123 subdomain must consist of",
            ),
            (
                spec(json!({"priorityLevelConfiguration": {"name": ""}})),
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
            ),
            (
                spec(json!({"matchingPrecedence": 10001})),
                "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000",
            ),
            (
                spec(json!({"matchingPrecedence": 0})),
                "spec.matchingPrecedence: Invalid value: 0: must be a positive value",
            ),
            (spec(json!({"distinguisherMethod": {"type": "ByNamespace"}})), ""),
            (
                spec(json!({"distinguisherMethod": {"type": "ByHand"}})),
                "spec.distinguisherMethod.type: Unsupported value: ",
            ),
        ],
    );
}

#[test]
fn statuses() {
    let conditions = |types: &[&str]| {
        let conditions: Vec<Value> = types.iter().map(|kind| json!({"type": kind})).collect();
        json!({"status": {"conditions": conditions}})
    };
    for (kind, base) in [(kind("FlowSchema"), schema()), (kind("PriorityLevelConfiguration"), level())] {
        changes(
            &kind,
            "status",
            &base,
            &[
                (json!({}), json!({"status": {}}), ""),
                (json!({}), conditions(&["1", "1"]), "status.conditions[1].type: Duplicate value: \"1\""),
                (json!({}), conditions(&[""]), "status.conditions[0].type: Required value"),
                (json!({}), conditions(&["1", "2"]), ""),
            ],
        );
    }
}

fn level() -> Value {
    json!({
        "metadata": {"name": "system-foo"},
        "spec": {
            "type": "Limited", "limited": {"nominalConcurrencyShares": 42, "limitResponse": {"type": "Reject"}},
        },
    })
}

#[test]
fn levels() {
    let of = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let exempt = |changes: Value| {
        let spec = json!({
            "type": "Exempt", "limited": null, "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0},
        });
        of("exempt", with(&spec, &changes))
    };
    let misnamed =
        "spec.type: Invalid value: \"Limited\": must be 'Exempt' if and only if `name` is 'exempt'";
    let fixed = "spec: spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
    let changed = format!("{misnamed} | {fixed}");
    let repurposed =
        format!("{misnamed} | spec.exempt: Forbidden: must be nil if the type is Limited | {fixed}");
    wholly(
        &kind("PriorityLevelConfiguration"),
        &level(),
        &[
            (exempt(json!({})), ""),
            (of("exempt", json!({})), &changed),
            (
                exempt(json!({"exempt": {"nominalConcurrencyShares": -1, "lendablePercent": 101}})),
                "spec.exempt.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer | spec.exempt.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
            ),
            (
                exempt(json!({"exempt": {"nominalConcurrencyShares": -1, "lendablePercent": -1}})),
                "spec.exempt.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer | spec.exempt.lendablePercent: Invalid value: -1: must be between 0 and 100, inclusive",
            ),
            (of("exempt", json!({"exempt": {}})), &repurposed),
            (
                exempt(
                    json!({"limited": {"nominalConcurrencyShares": 42, "limitResponse": {"type": "Reject"}}}),
                ),
                "spec.limited: Forbidden: must be nil if the type is not Limited | spec: spec of 'exempt' except the 'spec.exempt' field must equal the fixed value",
            ),
            (exempt(json!({"exempt": {"nominalConcurrencyShares": 10, "lendablePercent": 10}})), ""),
            (
                of("broken-limited", json!({"exempt": {}, "limited": null})),
                "spec.exempt: Forbidden: must be nil if the type is Limited | spec.limited: Required value: must not be empty when type is Limited",
            ),
            (
                of("broken-limited", json!({"limited": null})),
                "spec.limited: Required value: must not be empty when type is Limited",
            ),
            (of("broken-type", json!({"type": "Other"})), "spec.type: Unsupported value: \"Other\""),
            (of("max-in-flight", json!({})), ""),
            (of("catch-all", json!({})), "spec: spec of 'catch-all' must equal the fixed value"),
            (of("catch-all", json!({"limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0}})), ""),
            (
                json!({"metadata": {"annotations": {"flowcontrol.k8s.io/preserve-zero-concurrency-shares": ""}}}),
                "metadata.annotations: Forbidden: annotation 'flowcontrol.k8s.io/preserve-zero-concurrency-shares' is forbidden",
            ),
        ],
    );
}

#[test]
fn limits() {
    let queue = |queues: i64, hand: i64| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 100});
        json!({"limitResponse": {"type": "Queue", "queuing": queuing}})
    };
    let rejecting = with(&queue(512, 4), &json!({"limitResponse": {"type": "Reject"}}));
    let at = "limitResponse.queuing";
    let bits = |queues: i64, hand: i64| {
        format!(
            "{at}.handSize: Invalid value: {hand}: required entropy bits of deckSize {queues} and handSize {hand} should not be greater than 60"
        )
    };
    let mut cases = vec![
        (rejecting, format!("{at}: Forbidden: must be nil if limited.limitResponse.type is not Limited")),
        (
            json!({"limitResponse": {"type": "Queue"}}),
            format!("{at}: Required value: must not be empty if limited.limitResponse.type is Limited"),
        ),
        (
            json!({"limitResponse": {"type": "Wait"}}),
            "limitResponse.type: Unsupported value: \"Wait\"".to_owned(),
        ),
        (queue(512, 4), String::new()),
        (queue(512, 8), bits(512, 8)),
        (queue(128, 10), bits(128, 10)),
        (
            queue(i64::from(i32::MAX), 3),
            format!(
                "{at}.queues: Invalid value: 2147483647: must not be greater than 10000000 | {}",
                bits(i64::from(i32::MAX), 3)
            ),
        ),
        (queue(10_000_000, 2), String::new()),
        (queue(7, 8), format!("{at}.handSize: Invalid value: 8: should not be greater than queues (7)")),
        (
            queue(0, 0),
            format!(
                "{at}.queues: Invalid value: 0: must be positive | {at}.handSize: Invalid value: 0: must be positive"
            ),
        ),
    ];
    let percent = "must be between 0 and 100, inclusive";
    for (key, value, why) in [
        ("nominalConcurrencyShares", 0, ""),
        ("nominalConcurrencyShares", 1, ""),
        ("nominalConcurrencyShares", -1, "must be a non-negative integer"),
        ("lendablePercent", 0, ""),
        ("lendablePercent", 100, ""),
        ("lendablePercent", 101, percent),
        ("lendablePercent", -1, percent),
        ("borrowingLimitPercent", 0, ""),
        ("borrowingLimitPercent", 1, ""),
        ("borrowingLimitPercent", 100, ""),
        ("borrowingLimitPercent", -1, "if specified, must be a non-negative integer"),
    ] {
        let wrong =
            if why.is_empty() { String::new() } else { format!("{key}: Invalid value: {value}: {why}") };
        cases.push((json!({key: value}), wrong));
    }
    let place = |limited: &Value| json!({"spec": {"limited": limited}});
    below(&kind("PriorityLevelConfiguration"), &level(), "spec.limited.", place, &lent(&cases));
}
