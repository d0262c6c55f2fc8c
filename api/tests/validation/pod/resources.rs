//! What pods ask for as a whole, extended resources, and claims of devices.

use serde_json::{Value, json};

use super::super::container;
use super::{changed, containers, specs};

fn limited(name: &str, limits: Value) -> Value {
    changed(name, &json!({"resources": {"limits": limits}}))
}

fn requesting(name: &str, requests: Value) -> Value {
    changed(name, &json!({"resources": {"requests": requests}}))
}

#[test]
fn extended_resources() {
    let both =
        |requests: Value, limits: Value| json!({"resources": {"requests": requests, "limits": limits}});
    let whole = "must be an integer";
    let a = |amount: &str| json!({"example.com/a": amount});
    let cases = [
        (both(a("10"), a("10")), String::new()),
        (both(a("2"), a("1")), ".resources.requests: must be equal to example.com/a limit of 1".to_owned()),
        (
            both(a("2"), json!({})),
            ".resources.limits: Required value: Limit must be set for non overcommitable resources"
                .to_owned(),
        ),
        (
            both(a("500m"), json!({})),
            format!(
                ".resources.requests[example.com/a]: {whole} | .resources.limits: Required value: Limit must be set"
            ),
        ),
        (
            both(a("5"), a("2.5")),
            format!(
                ".resources.limits[example.com/a]: {whole} | .resources.requests: must be equal to example.com/a limit of 2500m"
            ),
        ),
        (
            both(a("2.5"), a("2.5")),
            format!(
                ".resources.limits[example.com/a]: {whole} | .resources.requests[example.com/a]: {whole}"
            ),
        ),
    ];
    let cases: Vec<(Value, &str)> = cases.iter().map(|(own, wrong)| (own.clone(), wrong.as_str())).collect();
    containers(&cases);
    for (own, wrong) in &cases {
        let parts: Vec<String> =
            wrong.split(" | ").filter(|w| !w.is_empty()).map(|w| format!(".initContainers[0]{w}")).collect();
        specs(&[(json!({"initContainers": [changed("init", own)]}), &parts.join(" | "))]);
    }
    let names = [
        ("memory", ""),
        ("cpu", ""),
        ("ephemeral-storage", ""),
        ("my.favorite.app.co/12345", ""),
        ("kubernetes.io/abc", ""),
        ("network", "must be a standard resource"),
        ("disk", "must be a standard resource"),
        (".", "name part must consist of"),
        ("..", "name part must consist of"),
        ("my.favorite.app.co/_12345", "name part must consist of"),
        ("my.favorite.app.co/12345_", "name part must consist of"),
        ("kubernetes.io/..", "name part must consist of"),
        ("kubernetes.io", "must be a standard resource"),
        ("kubernetes.io/will/not/work/", "a valid label key must consist of"),
        ("storage", "must be a standard resource for containers"),
        ("requests.cpu", "must be a standard resource for containers"),
    ];
    for (name, wrong) in names {
        let own = json!({"resources": {"limits": {name: "1"}}});
        let object =
            super::super::with(&super::base(), &json!({"spec": {"containers": [changed("ctr", &own)]}}));
        let errors =
            api::validation::validate_create(&super::kind(), &super::super::decoded(&super::kind(), object));
        let found = errors.first().map(ToString::to_string).unwrap_or_default();
        assert!(errors.is_empty() == wrong.is_empty() && found.contains(wrong), "{name}: {found}");
    }
}

#[test]
fn resources_of_pods() {
    let os = |name: &str, resources: Value| json!({"os": {"name": name}, "resources": resources});
    let own = |resources: Value| json!({"resources": resources});
    let full = json!({
        "requests": {"cpu": "10", "memory": "10Mi", "hugepages-2Mi": "100Mi"},
        "limits": {"cpu": "20", "memory": "20Mi", "hugepages-2Mi": "100Mi"},
    });
    let mut claiming = full.clone();
    claiming["claims"] = json!([{"name": "resource-claim"}]);
    let claims = json!([{"name": "resource-claim", "resourceClaimName": "c"}]);
    let huge = json!({"hugepages-2Mi": "2Mi"});
    let supported = "supported values: \"cpu\", \"hugepages-\", \"memory\"";
    let native = format!("kubernetes.io/{}", "a".repeat(63));
    specs(&[
        (own(json!({"limits": {"cpu": "100m", "memory": "200Mi"}})), ""),
        (os("linux", full.clone()), ""),
        (os("windows", full), ".resources: Forbidden: may not be set for a windows pod"),
        (
            json!({"os": {"name": "linux"}, "resources": claiming, "resourceClaims": claims}),
            ".resources.claims: Forbidden: claims may not be set for Resources at pod-level",
        ),
        (
            json!({"os": {"name": "windows"}, "resources": {"limits": {"cpu": "100m"}}, "containers": [limited("c", json!({"cpu": "200m"}))]}),
            ".resources: Forbidden: may not be set for a windows pod",
        ),
        (own(json!({"limits": huge, "requests": {"memory": "2Mi", "hugepages-2Mi": "2Mi"}})), ""),
        (own(json!({"limits": {"memory": "2Mi", "hugepages-2Mi": "2Mi"}})), ""),
        (own(json!({"limits": {"memory": "2Mi"}, "requests": {"memory": "2Mi"}})), ""),
        (own(json!({"limits": {"cpu": "10"}, "requests": {"cpu": "10"}})), ""),
        (
            own(json!({"limits": huge, "requests": huge})),
            ".resources: Forbidden: HugePages require cpu or memory",
        ),
        (
            own(json!({"requests": {"memory": "2Mi", "hugepages-2Mi": "2Mi"}})),
            ".resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            own(json!({"limits": {"ephemeral-storage": "2Mi"}})),
            &format!(
                ".resources.limits[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": {supported}"
            ),
        ),
        (
            own(json!({"limits": {"kubernetesio/cpu": "2"}})),
            &format!(
                ".resources.limits[kubernetesio/cpu]: Unsupported value: \"kubernetesio/cpu\": {supported}"
            ),
        ),
        (
            own(json!({"limits": {native.as_str(): "2"}})),
            &format!(".resources.limits[{native}]: Unsupported value: \"{native}\": {supported}"),
        ),
        (
            own(json!({"limits": {"kubernetes.io": "2"}})),
            ".resources.limits[kubernetes.io]: must be a standard resource type or fully qualified",
        ),
        (
            own(json!({"limits": {"storage": "2"}})),
            &format!(".resources.limits[storage]: Unsupported value: \"storage\": {supported}"),
        ),
        (
            own(json!({"limits": {"requests.cpu": "2"}})),
            &format!(".resources.limits[requests.cpu]: Unsupported value: \"requests.cpu\": {supported}"),
        ),
    ]);
}

#[test]
fn containers_fit_into_their_pods() {
    let requests = |own: Value, all: &[Value]| {
        let all: Vec<Value> =
            all.iter().enumerate().map(|(i, r)| requesting(&format!("c{i}"), r.clone())).collect();
        json!({"resources": {"requests": own}, "containers": all})
    };
    let limits = |own: Value, all: &[Value]| {
        let all: Vec<Value> =
            all.iter().enumerate().map(|(i, r)| limited(&format!("c{i}"), r.clone())).collect();
        json!({"resources": {"limits": own}, "containers": all})
    };
    let of = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    let huge =
        |cpu: &str, memory: &str, huge: &str| json!({"cpu": cpu, "memory": memory, "hugepages-2Mi": huge});
    let ten = of("10", "10Mi");
    let sum = |name: &str, sum: &str| {
        format!(
            ".resources.requests[{name}]: must be greater than or equal to aggregate container requests of {sum}"
        )
    };
    let storage =
        |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory, "ephemeral-storage": "10Gi"});
    let each = |name: &str, limit: &str| {
        format!(
            ".resources.containers[0][{name}].limits: must be less than or equal to pod limits of {limit}"
        )
    };
    specs(&[
        (requests(ten.clone(), &[of("5", "5Mi"), of("4", "3Mi")]), ""),
        (requests(ten.clone(), &[of("5", "5Mi"), of("5", "5Mi")]), ""),
        (
            requests(ten.clone(), &[of("6", "5Mi"), of("8", "7Mi")]),
            &format!("{} | {}", sum("cpu", "14"), sum("memory", "12Mi")),
        ),
        (requests(ten.clone(), &[storage("6", "5Mi"), storage("4", "3Mi")]), ""),
        (limits(huge("10", "10Mi", "10Mi"), &[huge("5", "5Mi", "4Mi"), huge("4", "3Mi", "4Mi")]), ""),
        (limits(huge("10", "10Mi", "8Mi"), &[huge("5", "5Mi", "4Mi"), huge("5", "5Mi", "4Mi")]), ""),
        (limits(ten, &[of("5", "5Mi"), of("6", "9Mi")]), ""),
        (
            limits(
                json!({"cpu": "10", "hugepages-2Mi": "4Mi"}),
                &[json!({"cpu": "6", "hugepages-2Mi": "4Mi"}), json!({"cpu": "6", "hugepages-2Mi": "4Mi"})],
            ),
            ".resources.limits[hugepages-2Mi]: must be greater than or equal to aggregate container limits of 8Mi",
        ),
        (
            limits(huge("10", "10Mi", "2Mi"), &[huge("11", "12Mi", "4Mi")]),
            &format!(
                ".resources.limits[hugepages-2Mi]: must be greater than or equal to aggregate container limits of 4Mi | {} | {} | {}",
                each("cpu", "10"),
                each("hugepages-2Mi", "2Mi"),
                each("memory", "10Mi")
            ),
        ),
    ]);
}

#[test]
fn claims_of_devices() {
    let using = |claims: Value| changed("ctr", &json!({"resources": {"claims": claims}}));
    let claim = |name: &str| json!({"name": name, "resourceClaimName": "some-claim"});
    let of = |claims: Value, used: Value| json!({"containers": [using(used)], "resourceClaims": claims});
    let one = |used: Value| of(json!([claim("my-claim")]), used);
    let defined = |claims: Value| json!({"resourceClaims": claims});
    let at = ".containers[0].resources.claims";
    let known = "must be one of the names in pod.spec.resourceClaims: my-claim";
    let label = "a lowercase RFC 1123 label must consist of";
    let template = json!({"name": "my-claim", "resourceClaimTemplateName": "some-claim-template"});
    specs(&[
        (of(json!([template]), json!([{"name": "my-claim"}])), ""),
        (one(json!([{"name": "my-claim"}])), ""),
        (
            of(
                json!([claim("my-claim"), claim("another-claim")]),
                json!([{"name": "my-claim"}, {"name": "another-claim"}]),
            ),
            "",
        ),
        (
            of(
                json!([claim("my-claim"), claim("another-claim")]),
                json!([{"name": "my-claim", "request": "req-0"}, {"name": "another-claim", "request": "req-0"}]),
            ),
            "",
        ),
        (
            one(json!([{"name": "my-claim", "request": "req-0"}, {"name": "my-claim", "request": "req-1"}])),
            "",
        ),
        (
            json!({"initContainers": [changed("init", &json!({"resources": {"claims": [{"name": "my-claim"}]}}))], "resourceClaims": [claim("my-claim")]}),
            "",
        ),
        (defined(json!([claim("../my-claim")])), &format!(".resourceClaims[0].name: {label}")),
        (defined(json!([claim("my/claim")])), &format!(".resourceClaims[0].name: {label}")),
        (defined(json!([claim("")])), ".resourceClaims[0].name: Required value"),
        (
            defined(json!([claim("my-claim"), claim("my-claim")])),
            ".resourceClaims[1].name: Duplicate value: \"my-claim\"",
        ),
        (
            defined(json!([{"name": "my-claim"}])),
            ".resourceClaims[0]: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        ),
        (
            defined(
                json!([{"name": "my-claim", "resourceClaimName": "a", "resourceClaimTemplateName": "b"}]),
            ),
            ".resourceClaims[0]: at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        ),
        (one(json!([{"name": "no-such-claim"}])), &format!("{at}[0]: Not found: \"no-such-claim\": {known}")),
        (one(json!([{"name": ""}])), &format!("{at}[0]: Required value")),
        (
            one(json!([{"name": "my-claim"}, {"name": "my-claim"}])),
            &format!("{at}[1]: Duplicate value: \"my-claim\""),
        ),
        (
            one(json!([{"name": "my-claim"}, {"name": "my-claim", "request": "req-0"}])),
            &format!("{at}[1]: Duplicate value: \"my-claim\""),
        ),
        (
            one(json!([{"name": "my-claim", "request": "req-0"}, {"name": "my-claim"}])),
            &format!("{at}[1]: Duplicate value: \"my-claim\""),
        ),
        (
            one(json!([{"name": "my-claim", "request": "req-0"}, {"name": "my-claim", "request": "req-0"}])),
            &format!("{at}[1]: Duplicate value: \"my-claim/req-0\""),
        ),
        (one(json!([{"name": "my-claim", "request": "*$@%^"}])), &format!("{at}[0].request: {label}")),
        (
            of(json!([]), json!([{"name": "my-claim"}])),
            &format!(
                "{at}[0]: Not found: \"my-claim\": must be one of the names in pod.spec.resourceClaims which is empty"
            ),
        ),
        (
            defined(json!([{"name": "my-claim", "resourceClaimTemplateName": ".foo_bar"}])),
            ".resourceClaims[0].resourceClaimTemplateName: a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            defined(json!([{"name": "my-claim", "resourceClaimName": ".foo_bar"}])),
            ".resourceClaims[0].resourceClaimName: a lowercase RFC 1123 subdomain must consist of",
        ),
    ]);
    super::super::wholly(
        &super::kind(),
        &super::base(),
        &[(
            json!({
                "metadata": {"annotations": {"kubernetes.io/config.mirror": "True"}},
                "spec": {"nodeName": "n", "containers": [container("ctr")], "resourceClaims": [claim("my-claim")]},
            }),
            "[]: Forbidden: static pods do not support resource claims",
        )],
    );
}
