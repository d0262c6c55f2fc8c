//! Jobs and cron jobs (upstream `batch/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{container, creates, pod_spec, updates, with};

fn kind(kind: &'static str) -> GroupVersionKind {
    GroupVersionKind::new("batch", "v1", kind)
}

fn template(labels: &Value, restart: &str) -> Value {
    let mut spec = pod_spec(restart);
    spec["initContainers"] = json!([container("def")]);
    json!({"metadata": {"labels": labels}, "spec": spec})
}

/// A job whose selector the server has made.
fn generated() -> Value {
    let labels = json!({
        "batch.kubernetes.io/controller-uid": "1a2b3c", "controller-uid": "1a2b3c",
        "batch.kubernetes.io/job-name": "myjob", "job-name": "myjob",
    });
    json!({
        "metadata": {"name": "myjob", "namespace": "default", "uid": "1a2b3c"},
        "spec": {"selector": {"matchLabels": labels}, "template": template(&labels, "Never")},
    })
}

/// A job whose selector the client has made.
fn manual() -> Value {
    let labels = json!({"a": "b"});
    json!({
        "metadata": {"name": "myjob", "namespace": "default", "uid": "1a2b3c"},
        "spec": {"manualSelector": true, "selector": {"matchLabels": labels}, "template": template(&labels, "OnFailure")},
    })
}

#[test]
fn selectors_and_templates_of_jobs() {
    creates(
        &kind("Job"),
        &manual(),
        &[
            (json!({}), ""),
            (
                json!({"spec": {"template": {"metadata": {"labels": {"a": null, "y": "z"}}}}}),
                "spec.template.metadata.labels: Invalid value: {\"y\":\"z\"}: `selector` does not match template `labels`",
            ),
            (
                json!({"spec": {"template": {"spec": {"restartPolicy": null}}}}),
                "spec.template.spec.restartPolicy: Required value",
            ),
            (
                json!({"spec": {"template": {"spec": {"restartPolicy": "Invalid"}}}}),
                "spec.template.spec.restartPolicy: Unsupported value",
            ),
        ],
    );
    creates(
        &kind("Job"),
        &generated(),
        &[
            (json!({}), ""),
            (json!({"spec": {"selector": null}}), "spec.selector: Required value"),
            (
                json!({"spec": {"selector": {"matchLabels": {"a": "b", "controller-uid": null, "job-name": null,
                    "batch.kubernetes.io/controller-uid": null, "batch.kubernetes.io/job-name": null}}}}),
                "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` not auto-generated",
            ),
            (
                json!({"spec": {"template": {"metadata": {"labels": {"batch.kubernetes.io/controller-uid": null}}}}}),
                "spec.template.metadata.labels[batch.kubernetes.io/controller-uid]: Required value: must be '1a2b3c'",
            ),
            (
                json!({"spec": {"managedBy": format!("example.com/{}", "x".repeat(60))}}),
                "spec.managedBy: Too long: may not be more than 63 bytes",
            ),
            (
                json!({"spec": {"managedBy": "invalid custom controller name"}}),
                "spec.managedBy: Invalid value: \"invalid custom controller name\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ),
            (json!({"spec": {"managedBy": "example.com/foo"}}), ""),
        ],
    );
}

#[test]
fn numbers_of_jobs() {
    let indexed = |spec: Value| {
        let mut spec = spec;
        spec["completionMode"] = json!("Indexed");
        json!({"spec": spec})
    };
    let per_index = |spec: Value| {
        let mut spec = spec;
        spec["backoffLimitPerIndex"] = json!(1);
        indexed(spec)
    };
    let negative = "must be greater than or equal to 0";
    creates(
        &kind("Job"),
        &generated(),
        &[
            (json!({"spec": {"parallelism": -1}}), &format!("spec.parallelism: {negative}")),
            (json!({"spec": {"backoffLimit": -1}}), &format!("spec.backoffLimit: {negative}")),
            (json!({"spec": {"completions": -1}}), &format!("spec.completions: {negative}")),
            (
                json!({"spec": {"activeDeadlineSeconds": -1}}),
                &format!("spec.activeDeadlineSeconds: {negative}"),
            ),
            (
                json!({"spec": {"ttlSecondsAfterFinished": -1}}),
                &format!("spec.ttlSecondsAfterFinished: {negative}"),
            ),
            (
                json!({"spec": {"backoffLimitPerIndex": 1}}),
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
            ),
            (
                indexed(json!({"backoffLimitPerIndex": -1, "completions": 1})),
                &format!("spec.backoffLimitPerIndex: {negative}"),
            ),
            (
                per_index(json!({"completions": 10, "maxFailedIndexes": 11})),
                "spec.maxFailedIndexes: Invalid value: 11: must be less than or equal to completions",
            ),
            (
                per_index(json!({"completions": 100_001})),
                "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
            ),
            (
                per_index(json!({"completions": 100_001, "parallelism": 50_000, "maxFailedIndexes": 1})),
                "spec.parallelism: Invalid value: 50000: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index",
            ),
            (
                per_index(json!({"completions": 100_001, "maxFailedIndexes": 100_001})),
                "spec.maxFailedIndexes: Invalid value: 100001: must be less than or equal to 100000",
            ),
            (
                per_index(json!({"completions": 100_001, "maxFailedIndexes": 50_000})),
                "spec.maxFailedIndexes: Invalid value: 50000: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index",
            ),
            (
                per_index(json!({"completions": 1, "maxFailedIndexes": -1})),
                &format!("spec.maxFailedIndexes: {negative}"),
            ),
            (
                indexed(json!({"completions": 1, "maxFailedIndexes": 1})),
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            ),
            (indexed(json!({})), "spec.completions: Required value: when completion mode is Indexed"),
            (
                indexed(json!({"completions": 2, "parallelism": 100_001})),
                "spec.parallelism: must be less than or equal to 100000 when completion mode is Indexed",
            ),
            (
                json!({"spec": {"podReplacementPolicy": ""}}),
                "spec.podReplacementPolicy: Unsupported value: \"\": supported values: \"Failed\", \"TerminatingOrFailed\"",
            ),
        ],
    );
}

#[test]
fn success_policies_of_jobs() {
    let base = with(&generated(), &json!({"spec": {"completionMode": "Indexed", "completions": 5}}));
    let rules = |rules: Value| json!({"spec": {"successPolicy": {"rules": rules}}});
    let at = "spec.successPolicy.rules[0]";
    creates(
        &kind("Job"),
        &base,
        &[
            (
                rules(
                    json!([{"succeededCount": 1, "succeededIndexes": "0,2,4"}, {"succeededIndexes": "1,3"}]),
                ),
                "",
            ),
            (
                json!({"spec": {"completionMode": null, "successPolicy": {"rules": [{"succeededCount": 1}]}}}),
                "spec.successPolicy: requires indexed completion mode",
            ),
            (
                json!({"spec": {"successPolicy": {"rules": null}}}),
                "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified",
            ),
            (
                rules(json!([{}])),
                &format!(
                    "{at}: Required value: at least one of succeededCount or succeededIndexes must be specified"
                ),
            ),
            (
                rules(json!([{"succeededIndexes": "invalid-format"}])),
                &format!(
                    "{at}.succeededIndexes: Invalid value: \"invalid-format\": error parsing succeededIndexes: cannot convert string to integer for index: \"invalid\""
                ),
            ),
            (
                rules(json!([{"succeededIndexes": "1".repeat(65_537)}])),
                &format!("{at}.succeededIndexes: Too long: may not be more than 65536 bytes"),
            ),
            (
                rules(json!([{"succeededCount": -1}])),
                &format!("{at}.succeededCount: must be greater than or equal to 0"),
            ),
            (
                rules(json!([{"succeededCount": 6}])),
                &format!(
                    "{at}.succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)"
                ),
            ),
            (
                rules(json!([{"succeededCount": 4, "succeededIndexes": "0-2"}])),
                &format!(
                    "{at}.succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes in the specified succeededIndexes field)"
                ),
            ),
            (
                rules(vec![json!({"succeededCount": 5}); 21].into()),
                "spec.successPolicy.rules: Too many: 21: must have at most 20 items",
            ),
        ],
    );
}

#[test]
fn failure_policies_of_jobs() {
    let rules = |rules: Value| json!({"spec": {"podFailurePolicy": {"rules": rules}}});
    let codes = |values: Value| json!({"operator": "In", "values": values});
    let exits = |values: Value| rules(json!([{"action": "FailJob", "onExitCodes": codes(values)}]));
    let on = |condition: Value| rules(json!([{"action": "Ignore", "onPodConditions": [condition]}]));
    let many = |count: i32, one: fn(i32) -> Value| -> Value { (0..count).map(one).collect() };
    let at = "spec.podFailurePolicy.rules[0]";
    let disruption = json!({"type": "DisruptionTarget", "status": "True"});
    creates(
        &kind("Job"),
        &generated(),
        &[
            (on(disruption.clone()), ""),
            (exits(json!([1, 2, 3])), ""),
            (
                rules(json!([{"action": "FailJob"}])),
                &format!(
                    "{at}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"
                ),
            ),
            (
                rules(
                    json!([{"action": "FailJob", "onExitCodes": codes(json!([1])), "onPodConditions": [disruption]}]),
                ),
                &format!(
                    "{at}: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported"
                ),
            ),
            (exits(json!([11, 11])), &format!("{at}.onExitCodes.values[1]: Duplicate value: 11")),
            (exits(json!([12, 13, 13, 13])), &format!("{at}.onExitCodes.values[2]: Duplicate value: 13")),
            (
                exits(json!([19, 11])),
                &format!("{at}.onExitCodes.values: Invalid value: [19,11]: must be ordered"),
            ),
            (exits(json!([])), &format!("{at}.onExitCodes.values: at least one value is required")),
            (
                exits(json!([1, 0, 2])),
                &format!("{at}.onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator"),
            ),
            (
                exits(many(256, |i| json!(i))),
                &format!("{at}.onExitCodes.values: Too many: 256: must have at most 255 items"),
            ),
            (
                rules(many(
                    21,
                    |i| json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [i + 1]}}),
                )),
                "spec.podFailurePolicy.rules: Too many: 21: must have at most 20 items",
            ),
            (
                rules(json!([{"action": "FailJob", "onPodConditions":
                    many(21, |i| json!({"type": format!("CustomType_{i}"), "status": "True"}))}])),
                &format!("{at}.onPodConditions: Too many: 21: must have at most 20 items"),
            ),
            (
                rules(json!([{"action": "", "onExitCodes": codes(json!([1]))}])),
                &format!(
                    "{at}.action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"
                ),
            ),
            (
                rules(json!([{"action": "UnknownAction", "onExitCodes": codes(json!([1]))}])),
                &format!(
                    "{at}.action: Unsupported value: \"UnknownAction\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\""
                ),
            ),
            (
                rules(json!([{"action": "FailJob", "onExitCodes": {"operator": "", "values": [1]}}])),
                &format!("{at}.onExitCodes.operator: Required value: valid values: [\"In\" \"NotIn\"]"),
            ),
            (
                rules(
                    json!([{"action": "FailJob", "onExitCodes": {"operator": "UnknownOperator", "values": [1]}}]),
                ),
                &format!(
                    "{at}.onExitCodes.operator: Unsupported value: \"UnknownOperator\": supported values: \"In\", \"NotIn\""
                ),
            ),
            (
                rules(json!([
                    {"action": "Ignore", "onExitCodes": {"containerName": "ctr", "operator": "In", "values": [1]}},
                    {"action": "FailJob", "onExitCodes": {"containerName": "xyz", "operator": "In", "values": [5]}},
                ])),
                "spec.podFailurePolicy.rules[1].onExitCodes.containerName: Invalid value: \"xyz\": must be one of the container or initContainer names in the pod template",
            ),
            (
                on(json!({"type": "DisruptionTarget"})),
                &format!(
                    "{at}.onPodConditions[0].status: Required value: valid values: [\"False\" \"True\" \"Unknown\"]"
                ),
            ),
            (
                on(json!({"type": "DisruptionTarget", "status": "UnknownStatus"})),
                &format!(
                    "{at}.onPodConditions[0].status: Unsupported value: \"UnknownStatus\": supported values: \"False\", \"True\", \"Unknown\""
                ),
            ),
            (
                on(json!({"status": "True"})),
                &format!("{at}.onPodConditions[0].type: Invalid value: \"\": name part must be non-empty"),
            ),
            (
                on(json!({"type": "Invalid Condition Type", "status": "True"})),
                &format!(
                    "{at}.onPodConditions[0].type: Invalid value: \"Invalid Condition Type\": name part must consist of alphanumeric characters"
                ),
            ),
            (
                with(
                    &on(json!({"type": "DisruptionTarget", "status": "True"})),
                    &json!({"spec": {"podReplacementPolicy": "TerminatingOrFailed"}}),
                ),
                "spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\"",
            ),
            (
                json!({"spec": {"podFailurePolicy": {"rules": []}, "template": {"spec": {"restartPolicy": "OnFailure"}}}}),
                "spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when podFailurePolicy is specified",
            ),
        ],
    );
}

#[test]
fn what_of_a_job_stays() {
    updates(
        &kind("Job"),
        &with(&generated(), &json!({"spec": {"completions": 2, "backoffLimitPerIndex": null}})),
        &[
            (json!({}), ""),
            (
                json!({"spec": {"parallelism": 3, "activeDeadlineSeconds": 7, "ttlSecondsAfterFinished": 1}}),
                "",
            ),
            (json!({"spec": {"completions": 3}}), "spec.completions: field is immutable"),
            (json!({"spec": {"managedBy": "example.com/foo"}}), "spec.managedBy: field is immutable"),
            (
                json!({"spec": {"podFailurePolicy": {"rules": [{"action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}}}),
                "spec.podFailurePolicy: field is immutable",
            ),
        ],
    );
}

#[test]
fn schedules_of_cron_jobs() {
    let base = json!({
        "metadata": {"name": "mycronjob", "namespace": "default"},
        "spec": {
            "schedule": "* * * * ?", "concurrencyPolicy": "Allow",
            "jobTemplate": {"spec": {"template": {"metadata": {}, "spec": pod_spec("OnFailure")}}},
        },
    });
    creates(
        &kind("CronJob"),
        &base,
        &[
            (json!({}), ""),
            (json!({"spec": {"schedule": "@hourly"}}), ""),
            (json!({"spec": {"timeZone": "America/New_York"}}), ""),
            (json!({"spec": {"schedule": "error"}}), "spec.schedule: Invalid value"),
            (json!({"spec": {"schedule": ""}}), "spec.schedule: Required value"),
            (json!({"spec": {"timeZone": ""}}), "spec.timeZone: timeZone must be nil or non-empty string"),
            (
                json!({"spec": {"timeZone": "Amerrica/New_York"}}),
                "spec.timeZone: unknown time zone Amerrica/New_York",
            ),
            (
                json!({"spec": {"schedule": "TZ=America/New_York 0 0 * * *"}}),
                "spec.schedule: cannot use TZ or CRON_TZ in schedule",
            ),
            (
                json!({"spec": {"startingDeadlineSeconds": -1}}),
                "spec.startingDeadlineSeconds: must be greater than or equal to 0",
            ),
            (
                json!({"spec": {"successfulJobsHistoryLimit": -1}}),
                "spec.successfulJobsHistoryLimit: must be greater than or equal to 0",
            ),
            (
                json!({"spec": {"failedJobsHistoryLimit": -1}}),
                "spec.failedJobsHistoryLimit: must be greater than or equal to 0",
            ),
            (json!({"spec": {"concurrencyPolicy": ""}}), "spec.concurrencyPolicy: Required value"),
            (
                json!({"spec": {"jobTemplate": {"spec": {"parallelism": -1}}}}),
                "spec.jobTemplate.spec.parallelism: must be greater than or equal to 0",
            ),
            (
                json!({"spec": {"jobTemplate": {"spec": {"completions": -1}}}}),
                "spec.jobTemplate.spec.completions: must be greater than or equal to 0",
            ),
            (
                json!({"spec": {"jobTemplate": {"spec": {"selector": {"matchLabels": {"a": "b"}}}}}}),
                "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
            ),
            (
                json!({"metadata": {"name": "10000000002000000000300000000040000000005000000000123"}}),
                "metadata.name: must be no more than 52 characters",
            ),
            (
                json!({"spec": {"jobTemplate": {"spec": {"manualSelector": true}}}}),
                "spec.jobTemplate.spec.manualSelector: Unsupported value",
            ),
            (
                json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Invalid"}}}}}}),
                "spec.jobTemplate.spec.template.spec.restartPolicy: Unsupported value",
            ),
            (
                json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Always"}}}}}}),
                "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ),
            (
                json!({"spec": {"jobTemplate": {"spec": {"ttlSecondsAfterFinished": -1}}}}),
                "spec.jobTemplate.spec.ttlSecondsAfterFinished: must be greater than or equal to 0",
            ),
        ],
    );
}
