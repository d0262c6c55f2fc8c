//! Where pods may run: affinity, tolerations, spreading, gates.

use serde_json::{Value, json};

use super::super::below;
use super::{base, kind, specs};

#[test]
fn affinity_to_nodes() {
    let required = |terms: Value| json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    let expression = |own: Value| required(json!([{"matchExpressions": [own]}]));
    let fields = |own: Value| required(json!([{"matchFields": [own]}]));
    let preferred = |weight: i32, expressions: Value| json!([{"weight": weight, "preference": {"matchExpressions": expressions}}]);
    let bar = json!([{"key": "foo", "operator": "In", "values": ["bar"]}]);
    let place = |own: &Value| json!({"spec": {"affinity": {"nodeAffinity": own}}});
    let terms = ".requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let first = format!("{terms}[0].matchExpressions[0]");
    let field = format!("{terms}[0].matchFields[0]");
    below(
        &kind(),
        &base(),
        "spec.affinity.nodeAffinity",
        place,
        &[
            (
                json!({
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{
                        "matchExpressions": [{"key": "key2", "operator": "In", "values": ["value1", "value2"]}],
                        "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["host1"]}],
                    }]},
                    "preferredDuringSchedulingIgnoredDuringExecution": preferred(10, bar.clone()),
                }),
                "",
            ),
            (
                json!({
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": []}]},
                    "preferredDuringSchedulingIgnoredDuringExecution": preferred(10, json!([])),
                }),
                "",
            ),
            (
                expression(json!({"key": "key1", "operator": ""})),
                &format!("{first}.operator: Invalid value: \"\": not a valid selector operator"),
            ),
            (
                expression(json!({"key": "invalid key ___@#", "operator": "Exists"})),
                &format!("{first}.key: Invalid value: \"invalid key ___@#\""),
            ),
            (
                expression(json!({"key": "foo", "operator": "In", "values": ["-1"]})),
                &format!("{first}.values[0]: Invalid value: \"-1\": a valid label must be an empty string"),
            ),
            (expression(json!({"key": "foo", "operator": "In"})), &format!("{first}.values: Required value")),
            (
                expression(json!({"key": "foo", "operator": "Exists", "values": ["a"]})),
                &format!("{first}.values: Forbidden"),
            ),
            (
                expression(json!({"key": "foo", "operator": "Gt", "values": ["1", "2"]})),
                &format!("{first}.values: Required value: must be specified single value"),
            ),
            (
                fields(json!({"key": "metadata.name", "operator": "In", "values": ["host1", "host2"]})),
                &format!(
                    "{field}.values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
                ),
            ),
            (
                fields(json!({"key": "metadata.name", "operator": "Exists"})),
                &format!("{field}.operator: not a valid selector operator"),
            ),
            (
                fields(json!({"key": "metadata.namespace", "operator": "In", "values": ["ns1"]})),
                &format!(
                    "{field}.key: Invalid value: \"metadata.namespace\": not a valid field selector key"
                ),
            ),
            (
                json!({"preferredDuringSchedulingIgnoredDuringExecution": preferred(199, bar)}),
                ".preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 199: must be in the range 1-100",
            ),
            (
                required(json!([])),
                &format!("{terms}: Required value: must have at least one node selector term"),
            ),
        ],
    );
}

/// A term of affinity to pods, as one that must be met and as one that should be.
fn terms(term: &Value, weight: i32) -> [(Value, &'static str); 2] {
    [
        (
            json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]}),
            ".requiredDuringSchedulingIgnoredDuringExecution[0]",
        ),
        (
            json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "podAffinityTerm": term}]}),
            ".preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm",
        ),
    ]
}

#[test]
fn affinity_to_pods() {
    let expression = |key: &str, operator: &str, values: Value| json!({"key": key, "operator": operator, "values": values});
    let selector = |expressions: Value| json!({"matchExpressions": expressions});
    let term = |changes: Value| {
        let mut term = json!({
            "labelSelector": selector(json!([expression("key", "NotIn", json!(["value1", "value2"]))])),
            "topologyKey": "k8s.io/zone",
        });
        api::patch::merge::apply(&mut term, changes);
        term
    };
    let two = json!(["value1", "value2"]);
    let merged = selector(json!([
        expression("key", "NotIn", two.clone()),
        expression("key2", "In", json!(["value1"])),
        expression("key3", "NotIn", json!(["value1"])),
    ]));
    let simple = "Invalid value: \"/simple\": prefix part must be non-empty";
    let cases = [
        (
            term(
                json!({"namespaces": ["ns"], "namespaceSelector": selector(json!([expression("key", "In", two.clone())]))}),
            ),
            "",
        ),
        (term(json!({"labelSelector": selector(json!([expression("key2", "Exists", Value::Null)]))})), ""),
        (
            term(
                json!({"labelSelector": selector(json!([expression("key2", "DoesNotExist", Value::Null)]))}),
            ),
            "",
        ),
        (
            term(json!({"labelSelector": merged, "matchLabelKeys": ["key2"], "mismatchLabelKeys": ["key3"]})),
            "",
        ),
        (
            term(
                json!({"labelSelector": selector(json!([expression("key2", "In", json!(["value1"])), expression("key2", "NotIn", json!(["value1"]))])),
                "mismatchLabelKeys": ["key2"]}),
            ),
            "",
        ),
        (
            term(json!({"labelSelector": selector(json!([expression("key2", "Exists", two.clone())]))})),
            ".labelSelector.matchExpressions[0].values: Forbidden",
        ),
        (
            term(json!({"namespaceSelector": selector(json!([expression("key2", "In", Value::Null)]))})),
            ".namespaceSelector.matchExpressions[0].values: Required value",
        ),
        (
            term(json!({"namespaceSelector": selector(json!([expression("key2", "Exists", two)]))})),
            ".namespaceSelector.matchExpressions[0].values: Forbidden",
        ),
        (
            term(json!({"namespaces": ["INVALID_NAMESPACE"]})),
            ".namespace: Invalid value: \"INVALID_NAMESPACE\"",
        ),
        (
            term(json!({"topologyKey": ""})),
            ".topologyKey: Required value: can not be empty | .topologyKey: name part must be non-empty | .topologyKey: name part must consist of",
        ),
        (term(json!({"matchLabelKeys": ["/simple"]})), &format!(".matchLabelKeys[0]: {simple}")),
        (term(json!({"mismatchLabelKeys": ["/simple"]})), &format!(".mismatchLabelKeys[0]: {simple}")),
        (
            term(
                json!({"labelSelector": selector(json!([expression("key", "In", json!(["value1"])), expression("key", "NotIn", json!(["value2"]))])),
                "matchLabelKeys": ["key"]}),
            ),
            "[0]: Invalid value: \"key\": exists in both matchLabelKeys and labelSelector",
        ),
        (
            term(json!({"matchLabelKeys": ["samekey"], "mismatchLabelKeys": ["samekey"]})),
            ".matchLabelKeys[0]: Invalid value: \"samekey\": exists in both matchLabelKeys and mismatchLabelKeys",
        ),
        (
            term(json!({"labelSelector": null, "matchLabelKeys": ["key"]})),
            ".matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
        ),
    ];
    for key in ["podAffinity", "podAntiAffinity"] {
        let at = format!("spec.affinity.{key}");
        let place = |own: &Value| json!({"spec": {"affinity": {key: own}}});
        for (own, wrong) in &cases {
            for (affinity, path) in terms(own, 10) {
                let parts: Vec<String> =
                    wrong.split(" | ").filter(|w| !w.is_empty()).map(|w| format!("{path}{w}")).collect();
                below(&kind(), &base(), &at, place, &[(affinity, &parts.join(" | "))]);
            }
        }
        let [_, (heavy, _)] = terms(&term(json!({})), 109);
        let weight = ".preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 109: must be in the range 1-100";
        below(&kind(), &base(), &at, place, &[(heavy, weight)]);
    }
}

#[test]
fn tolerations() {
    let place = |toleration: &Value| json!({"spec": {"tolerations": [toleration]}});
    let unsupported = |operator: &str| {
        format!(
            ".operator: Unsupported value: \"{operator}\": supported values: \"Equal\", \"Exists\", \"Lt\", \"Gt\""
        )
    };
    let sla = |operator: &str| json!({"key": "node.kubernetes.io/sla", "operator": operator, "value": "950", "effect": "NoSchedule"});
    below(
        &kind(),
        &base(),
        "spec.tolerations[0]",
        place,
        &[
            (
                json!({"key": "foo", "operator": "Exists", "value": "", "effect": "NoExecute", "tolerationSeconds": 60}),
                "",
            ),
            (
                json!({"key": "foo", "operator": "Equal", "value": "bar", "effect": "NoExecute", "tolerationSeconds": 60}),
                "",
            ),
            (json!({"key": "foo", "operator": "Equal", "value": "bar", "effect": "NoSchedule"}), ""),
            (json!({"operator": "Exists", "effect": "NoSchedule"}), ""),
            (json!({"key": "foo", "value": "bar", "effect": "NoSchedule"}), ""),
            (json!({"key": "foo", "operator": "Equal", "value": "bar"}), ""),
            (
                json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": -2}),
                "",
            ),
            (
                json!({"key": "nospecialchars^=@", "operator": "Equal", "value": "bar", "effect": "NoSchedule"}),
                ".key: Invalid value: \"nospecialchars^=@\"",
            ),
            (
                json!({"key": "foo", "operator": "In", "value": "bar", "effect": "NoSchedule"}),
                ".operator: Unsupported value: \"In\": supported values: \"Equal\", \"Exists\"",
            ),
            (
                json!({"key": "foo", "operator": "Exists", "value": "bar", "effect": "NoSchedule"}),
                ".operator: Invalid value: \"bar\": value must be empty when `operator` is 'Exists'",
            ),
            (
                json!({"operator": "Equal", "value": "bar", "effect": "NoSchedule"}),
                ".operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty",
            ),
            (
                json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 20}),
                ".effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
            ),
            (
                json!({"key": "foo", "operator": "Exists", "effect": "Odd"}),
                ".effect: Unsupported value: \"Odd\"",
            ),
            (sla("Lt"), &unsupported("Lt")),
            (sla("Gt"), &unsupported("Gt")),
        ],
    );
}

#[test]
fn spreading() {
    let place = |constraints: &Value| json!({"spec": {"topologySpreadConstraints": constraints}});
    let one = |changes: Value| {
        let mut one =
            json!({"maxSkew": 1, "topologyKey": "k8s.io/zone", "whenUnsatisfiable": "DoNotSchedule"});
        api::patch::merge::apply(&mut one, changes);
        json!([one])
    };
    let two = |first: Value, second: Value| json!([one(first)[0], one(second)[0]]);
    let expressions = |values: &[&[&str]]| {
        let all: Vec<Value> =
            values.iter().map(|v| json!({"key": "foo", "operator": "NotIn", "values": v})).collect();
        json!({"matchLabelKeys": ["foo"], "labelSelector": {"matchExpressions": all}})
    };
    let positive = "must be greater than zero";
    let known = "supported values: \"DoNotSchedule\", \"ScheduleAnyway\"";
    let only = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
    below(
        &kind(),
        &base(),
        "spec.topologySpreadConstraints",
        place,
        &[
            (one(json!({"minDomains": 3})), ""),
            (one(json!({"maxSkew": 0})), &format!("[0].maxSkew: Invalid value: 0: {positive}")),
            (one(json!({"maxSkew": -1})), &format!("[0].maxSkew: Invalid value: -1: {positive}")),
            (one(json!({"whenUnsatisfiable": "ScheduleAnyway"})), ""),
            (one(json!({"minDomains": -1})), &format!("[0].minDomains: Invalid value: -1: {positive}")),
            (
                one(json!({"whenUnsatisfiable": "ScheduleAnyway", "minDomains": 10})),
                &format!("[0].minDomains: Invalid value: 10: {only}"),
            ),
            (
                one(json!({"whenUnsatisfiable": "ScheduleAnyway", "minDomains": -1})),
                &format!(
                    "[0].minDomains: Invalid value: -1: {positive} | [0].minDomains: Invalid value: -1: {only}"
                ),
            ),
            (one(json!({"topologyKey": ""})), "[0].topologyKey: Required value: can not be empty"),
            (
                one(json!({"whenUnsatisfiable": ""})),
                &format!("[0].whenUnsatisfiable: Unsupported value: \"\": {known}"),
            ),
            (
                one(json!({"whenUnsatisfiable": "N/A"})),
                &format!("[0].whenUnsatisfiable: Unsupported value: \"N/A\": {known}"),
            ),
            (
                two(
                    json!({}),
                    json!({"maxSkew": 2, "topologyKey": "k8s.io/node", "whenUnsatisfiable": "ScheduleAnyway"}),
                ),
                "",
            ),
            (
                two(json!({"topologyKey": "", "whenUnsatisfiable": "ScheduleAnyway"}), json!({"maxSkew": 2})),
                "[0].topologyKey: Required value: can not be empty",
            ),
            (
                two(json!({}), json!({"maxSkew": 2})),
                "[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{k8s.io/zone, DoNotSchedule}\"",
            ),
            (one(json!({"nodeAffinityPolicy": "Honor", "nodeTaintsPolicy": "Ignore"})), ""),
            (
                one(json!({"nodeAffinityPolicy": "Unknown", "nodeTaintsPolicy": "Ignore"})),
                "[0].nodeAffinityPolicy: Unsupported value: \"Unknown\": supported values: \"Honor\", \"Ignore\"",
            ),
            (
                one(json!({"nodeAffinityPolicy": "Honor", "nodeTaintsPolicy": "Unknown"})),
                "[0].nodeTaintsPolicy: Unsupported value: \"Unknown\"",
            ),
            (
                one(json!({"labelSelector": {}, "matchLabelKeys": ["/simple"]})),
                "[0].matchLabelKeys[0]: Invalid value: \"/simple\": prefix part must be non-empty",
            ),
            (one(expressions(&[&["value1"]])), ""),
            (
                one(expressions(&[&["value1"], &["value2", "value3"]])),
                "[0][0]: Invalid value: \"foo\": exists in both matchLabelKeys and labelSelector",
            ),
            (
                one(json!({"matchLabelKeys": ["foo"]})),
                "[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
            ),
            (
                one(
                    json!({"labelSelector": {"matchLabels": {"NoUppercaseOrSpecialCharsLike=Equals": "foo"}}}),
                ),
                "[0].labelSelector.matchLabels: Invalid value: \"NoUppercaseOrSpecialCharsLike=Equals\"",
            ),
            (one(json!({"labelSelector": {"matchLabels": {"foo": "foo"}}})), ""),
        ],
    );
}

#[test]
fn gates() {
    let gates = |names: &[&str]| {
        let all: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"schedulingGates": all})
    };
    let consists = "name part must consist of alphanumeric characters, '-', '_' or '.'";
    let held = json!({"nodeName": "node", "schedulingGates": [{"name": "foo"}]});
    specs(&[
        (json!({"schedulingGates": null}), ""),
        (gates(&["foo", "bar"]), ""),
        (
            gates(&["foo", ""]),
            &format!(".schedulingGates[1]: name part must be non-empty | .schedulingGates[1]: {consists}"),
        ),
        (gates(&["foo", "\nbar"]), &format!(".schedulingGates[1]: {consists}")),
        (gates(&["foo", "bar", "bar"]), ".schedulingGates[2]: Duplicate value: \"bar\""),
        (
            gates(&["foo", "bar", "foo", "baz", "foo", "bar"]),
            ".schedulingGates[2]: Duplicate value: \"foo\" | .schedulingGates[4]: Duplicate value: \"foo\" | .schedulingGates[5]: Duplicate value: \"bar\"",
        ),
        (held, ".nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"),
    ]);
}
