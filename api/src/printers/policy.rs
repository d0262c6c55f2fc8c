//! Webhooks, admission policies, RBAC and certificates.

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

use super::duration::human;
use super::{AGE, Column, Doc, NAME, Table, age, name, or};

/// What the description of a role that is referred to ends with in the version served now.
const IMMUTABLE: &str = " This field is immutable.";

const WEBHOOKS: Column = Column::integer(
    "Webhooks",
    Doc::Text("Webhooks indicates the number of webhooks registered in this configuration"),
);

pub(crate) static WEBHOOK_CONFIGURATION: Table = Table::new(&[NAME, WEBHOOKS, AGE], |object, now| {
    vec![name(object), json!(object.list("webhooks").len()), age(object, now)]
});

const PARAM_KIND: Column = Column::string(
    "ParamKind",
    Doc::Text("ParamKind specifies the kind of resources used to parameterize this policy"),
);

pub(crate) static VALIDATING_POLICY: Table = Table::new(
    &[
        NAME,
        Column::integer(
            "Validations",
            Doc::Text("Validations indicates the number of validation rules defined in this configuration"),
        ),
        PARAM_KIND,
        AGE,
    ],
    |object, now| policy(object, "validations", now),
);

pub(crate) static MUTATING_POLICY: Table = Table::new(
    &[
        NAME,
        Column::integer(
            "Mutations",
            Doc::Text("Mutation indicates the number of mutations rules defined in this configuration"),
        ),
        PARAM_KIND,
        AGE,
    ],
    |object, now| policy(object, "mutations", now),
);

fn policy(object: &Object, rules: &str, now: jiff::Timestamp) -> Vec<Value> {
    let empty = Object::new();
    let spec = object.object("spec").unwrap_or(&empty);
    let kind = spec.object("paramKind").map(|k| format!("{}/{}", k.text("apiVersion"), k.text("kind")));
    let kind = kind.unwrap_or_else(|| "<unset>".to_owned());
    vec![name(object), json!(spec.list(rules).len()), json!(kind), age(object, now)]
}

pub(crate) static POLICY_BINDING: Table = Table::new(
    &[
        NAME,
        Column::string(
            "PolicyName",
            Doc::Text("PolicyName indicates the policy definition which the policy binding binded to"),
        ),
        Column::string(
            "ParamRef",
            Doc::Text("ParamRef indicates the param resource which sets the configuration param"),
        ),
        AGE,
    ],
    |object, now| {
        let empty = Object::new();
        let spec = object.object("spec").unwrap_or(&empty);
        let param = match spec.object("paramRef") {
            Some(param) if !param.text("name").is_empty() => {
                format!("{}/{}", or(param.text("namespace"), "*"), param.text("name"))
            }
            Some(param) if param.object("selector").is_some() => selector_struct(&param["selector"]),
            _ => "<unset>".to_owned(),
        };
        vec![name(object), json!(spec.text("policyName")), json!(param), age(object, now)]
    },
);

/// As Go prints the API type itself, which is what upstream shows here.
fn selector_struct(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object();
    let pair = |(key, value): (&String, &Value)| format!("{key}: {},", value.as_str().unwrap_or_default());
    let labels: String = labels.into_iter().flatten().map(pair).collect();
    let expression = |e: &Value| {
        let values: Vec<_> = e["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let text = |key: &str| e[key].as_str().unwrap_or_default().to_owned();
        format!(
            "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
            text("key"),
            text("operator"),
            values.join(" ")
        )
    };
    let expressions: String =
        selector["matchExpressions"].as_array().into_iter().flatten().map(expression).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

pub(crate) static ROLE_BINDING: Table = Table::new(
    &[
        NAME,
        Column::string("Role", Doc::Older("io.k8s.api.rbac.v1.RoleBinding", "roleRef", IMMUTABLE)),
        AGE,
        Column::string("Users", Doc::Text("Users in the roleBinding")).wide(),
        Column::string("Groups", Doc::Text("Groups in the roleBinding")).wide(),
        Column::string("ServiceAccounts", Doc::Text("ServiceAccounts in the roleBinding")).wide(),
    ],
    binding,
);

pub(crate) static CLUSTER_ROLE_BINDING: Table = Table::new(
    &[
        NAME,
        Column::string("Role", Doc::Older("io.k8s.api.rbac.v1.ClusterRoleBinding", "roleRef", IMMUTABLE)),
        AGE,
        Column::string("Users", Doc::Text("Users in the clusterRoleBinding")).wide(),
        Column::string("Groups", Doc::Text("Groups in the clusterRoleBinding")).wide(),
        Column::string("ServiceAccounts", Doc::Text("ServiceAccounts in the clusterRoleBinding")).wide(),
    ],
    binding,
);

fn binding(object: &Object, now: jiff::Timestamp) -> Vec<Value> {
    let role = object.object("roleRef").map(|r| format!("{}/{}", r.text("kind"), r.text("name")));
    let subjects = |kind: &str| {
        let shown = |s: &Object| match (kind, s.text("namespace")) {
            ("ServiceAccount", namespace) if !namespace.is_empty() => {
                format!("{namespace}/{}", s.text("name"))
            }
            _ => s.text("name").to_owned(),
        };
        let all: Vec<String> =
            object.each("subjects").filter(|s| s.text("kind") == kind).map(shown).collect();
        json!(all.join(", "))
    };
    vec![
        name(object),
        json!(role.unwrap_or_default()),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

const CSR_SPEC: &str = "io.k8s.api.certificates.v1.CertificateSigningRequestSpec";

/// Upstream describes these columns with the texts of an older version of the kind.
const SIGNER_TEXT: &str = "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on this field using `spec.signerName`.";

pub(crate) static CERTIFICATE_SIGNING_REQUEST: Table = Table::new(
    &[
        NAME,
        AGE,
        Column::string("SignerName", Doc::Text(SIGNER_TEXT)),
        Column::string("Requestor", Doc::Text("Base64-encoded PKCS#10 CSR data")),
        Column::string("RequestedDuration", Doc::Field(CSR_SPEC, "expirationSeconds")),
        Column::string(
            "Condition",
            Doc::Text("Conditions applied to the request, such as approval or denial."),
        ),
    ],
    |object, now| {
        let empty = Object::new();
        let (spec, status) =
            (object.object("spec").unwrap_or(&empty), object.object("status").unwrap_or(&empty));
        let duration = spec.get("expirationSeconds").and_then(Value::as_i64);
        let duration = duration.map_or("<none>".to_owned(), |s| human(jiff::SignedDuration::from_secs(s)));
        let has = |kind: &str| status.each("conditions").any(|c| c.text("type") == kind);
        let mut state = match (has("Denied"), has("Approved")) {
            (true, _) => "Denied",
            (false, true) => "Approved",
            (false, false) => "Pending",
        }
        .to_owned();
        if has("Failed") {
            state.push_str(",Failed");
        }
        if !status.text("certificate").is_empty() {
            state.push_str(",Issued");
        }
        vec![
            name(object),
            age(object, now),
            json!(or(spec.text("signerName"), "<none>")),
            json!(spec.text("username")),
            json!(duration),
            json!(state),
        ]
    },
);
