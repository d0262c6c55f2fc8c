//! Requests for certificates (upstream `certificates/validation`).

use api::names::GroupVersionKind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{below, changes, wholly, with};

const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIGVMEkCAQAwFjEUMBIGA1UECgwLdGVzdGluZy1vcmcwKjAFBgMrZXADIQDzoa4D
LI/xzRq0wmnZ9TIaWOSsj8vgNO8Wg68rIDav8qAAMAUGAytlcANBAHNPulrjHo/p
dxhv+K936Idfndv8X7wTRnde93qBUEnbwmmy6VAb45579UfkBAyZyT5Djho51HF/
Q9khtVnhFgo=
-----END CERTIFICATE REQUEST-----
";
const CERTIFICATE: &str = "MIIBQjCB9aADAgECAhRB5XtmQcpSAruiaZGo92r1zeqN3jAFBgMrZXAwFjEUMBIG
A1UECgwLdGVzdGluZy1vcmcwIBcNMjYxMTI5MTQwNjEwWhgPMjEyNjExMDUxNDA2
MTBaMBYxFDASBgNVBAoMC3Rlc3Rpbmctb3JnMCowBQYDK2VwAyEA86GuAyyP8c0a
tMJp2fUyGljkrI/L4DTvFoOvKyA2r/KjUzBRMB0GA1UdDgQWBBQerOTQlyEpWbKA
0zGek2dZtUdiMzAfBgNVHSMEGDAWgBQerOTQlyEpWbKA0zGek2dZtUdiMzAPBgNV
HRMBAf8EBTADAQH/MAUGAytlcANBAJe7WUw0bfkYEtrxn94/1z1WvEGsRkc+eCnN
+msHh0M0LnuaLaH3YiHKSLa9cTUYFDEjB0b/Qs9BN997x0Y16wQ=
";

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("certificates.k8s.io", "v1", "CertificateSigningRequest")
}

fn base() -> Value {
    json!({
        "metadata": {"name": "testcsr"},
        "spec": {
            "request": STANDARD.encode(REQUEST), "usages": ["key encipherment"],
            "signerName": "example.com/valid-name",
        },
    })
}

fn block(label: &str, text: &str) -> String {
    format!("Leading text\n-----BEGIN {label}-----\n{text}-----END {label}-----\nTrailing text\n")
}

/// The status with a certificate that a signer wrote.
fn issued(certificate: &str) -> Value {
    json!({"status": {"certificate": STANDARD.encode(certificate)}})
}

fn conditions(types: &[&str]) -> Value {
    let conditions: Vec<Value> = types.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
    json!({"status": {"conditions": conditions}})
}

#[test]
fn requests() {
    let no_block = "PEM block type must be CERTIFICATE REQUEST";
    let invalid = format!("request: Invalid value: \"aW52YWxpZCBkYXRh\": {no_block}");
    let empty = format!("request: Invalid value: null: {no_block}");
    let short = |seconds: i32| {
        format!(
            "expirationSeconds: Invalid value: {seconds}: may not specify a duration less than 600 seconds (10 minutes)"
        )
    };
    let seconds = |seconds: i32| json!({"expirationSeconds": seconds});
    let (negative, zero, one, minute) = (short(-1), short(0), short(1), short(60));
    let cases = [
        (json!({}), ""),
        (json!({"request": ""}), empty.as_str()),
        (json!({"request": STANDARD.encode("invalid data")}), &invalid),
        (json!({"usages": null}), "usages: Required value"),
        (json!({"usages": []}), "usages: Required value"),
        (
            json!({"usages": ["unknown", "unknown"]}),
            "usages[0]: Unsupported value: \"unknown\": supported values: \"any\", \"cert sign\", \"client auth\" | usages[1]: Unsupported value: \"unknown\" | usages[1]: Duplicate value: \"unknown\"",
        ),
        (seconds(-1), &negative),
        (seconds(0), &zero),
        (seconds(1), &one),
        (seconds(60), &minute),
        (seconds(600), ""),
    ];
    below(&kind(), &base(), "spec.", |spec| json!({"spec": spec}), &cases);
}

#[test]
fn signers() {
    let a = |count: usize| "a".repeat(count);
    let domain = [a(63), a(63), a(63), a(61)].join(".");
    let longest = format!("{domain}/{}.{}", a(63), a(253));
    let subdomain = "a lowercase RFC 1123 subdomain must consist of";
    let whole = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    let wrong = |value: &str, why: &str| format!("Invalid value: \"{value}\": {why}");
    let path = |path: &str| {
        (format!("example.com/{path}"), wrong(path, &format!("validating label \"{path}\": {subdomain}")))
    };
    let label = format!("{}.example.io", a(66));
    let too_long = |limit: usize| format!("Too long: may not be more than {limit} bytes");
    let cases: Vec<(Value, String)> = [
        (String::new(), "Required value".to_owned()),
        ("an-invalid-signer-name".to_owned(), wrong("an-invalid-signer-name", whole)),
        (
            "an-invalid-signer-name.com/something/else".to_owned(),
            wrong("an-invalid-signer-name.com/something/else", whole),
        ),
        (
            "example/some-signer-name".to_owned(),
            wrong("example", "should be a domain with at least two segments separated by dots"),
        ),
        path(""),
        path("something-"),
        path("-"),
        ("example.com/some-signer-name".to_owned(), String::new()),
        (format!("{longest}.toolong"), too_long(571)),
        (format!("{domain}.extra/valid-path"), too_long(253)),
        (format!("abc.io/{}.{}", a(253), a(253)), String::new()),
        (
            format!("{label}/valid-path"),
            wrong(&label, &format!("validating label \"{}\": must be no more than 63 characters", a(66))),
        ),
        (longest, String::new()),
        (
            "kubernetes.io/legacy-unknown".to_owned(),
            wrong(
                "kubernetes.io/legacy-unknown",
                "the legacy signerName is not allowed via this API version",
            ),
        ),
    ]
    .into_iter()
    .map(|(name, why)| {
        let why = if why.is_empty() { why } else { format!("spec.signerName: {why}") };
        (json!({"spec": {"signerName": name}}), why)
    })
    .collect();
    let cases: Vec<(Value, &str)> =
        cases.iter().map(|(part, wrong)| (part.clone(), wrong.as_str())).collect();
    wholly(&kind(), &base(), &cases);
}

#[test]
fn statuses() {
    let approved = |certificate: &str| with(&conditions(&["Approved"]), &issued(certificate));
    let certificate = "status.certificate: Invalid value: \"<certificate data>\": ";
    let no_block = format!("{certificate}must contain at least one CERTIFICATE PEM block");
    let other = format!("{certificate}only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE1\"");
    let headers = format!("{certificate}no PEM block headers are permitted");
    let nothing = format!("{certificate}found CERTIFICATE PEM block containing 0 certificates");
    let good = block("CERTIFICATE", CERTIFICATE);
    wholly(
        &kind(),
        &base(),
        &[
            (json!({}), ""),
            (conditions(&["Approved"]), ""),
            (conditions(&["Denied"]), ""),
            (conditions(&["Failed"]), ""),
            (conditions(&["Approved", "Failed"]), ""),
            (approved(&good), ""),
            (approved(&format!("{good}{good}")), ""),
            (
                conditions(&["Approved", "Denied"]),
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
            ),
            (conditions(&[""]), "status.conditions[0].type: Required value"),
            (
                conditions(&["Approved", "Approved"]),
                "status.conditions[1].type: Duplicate value: \"Approved\"",
            ),
            (
                json!({"status": {"conditions": [{"type": "Approved", "status": "False"}]}}),
                "status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\"",
            ),
            (
                json!({"status": {"conditions": [{"type": "Other", "status": ""}]}}),
                "status.conditions[0].status: Required value",
            ),
            (
                json!({"status": {"conditions": [{"type": "Other", "status": "Maybe"}]}}),
                "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
            ),
            (json!({"status": {"conditions": [{"type": "Other", "status": "False"}]}}), ""),
            (approved("no PEM content"), &no_block),
            (approved(&block("CERTIFICATE1", CERTIFICATE)), &other),
            (approved(&block("CERTIFICATE", &format!("Somekey: Somevalue\n\n{CERTIFICATE}"))), &headers),
            (approved(&block("CERTIFICATE", &format!("*{CERTIFICATE}"))), &no_block),
            (approved(&block("CERTIFICATE", "")), &nothing),
            (approved(&block("CERTIFICATE", "MIIBQjCB9aADAgEC\n")), certificate),
        ],
    );
}

/// What a request may not change, however it is written.
fn kept() -> Vec<(Value, Value, String)> {
    let arbitrary = issued("no PEM content");
    let finalized = |changes: &Value| with(changes, &json!({"metadata": {"finalizers": ["foo.com/bar"]}}));
    let removed = |kind: &str| {
        let wrong =
            format!("status.conditions: Forbidden: updates may not remove a condition of type \"{kind}\"");
        (conditions(&[kind]), json!({}), wrong)
    };
    let usages = json!({"spec": {"usages": ["unknown", "unknown"]}});
    let legacy = json!({"spec": {"signerName": "kubernetes.io/legacy-unknown"}});
    let both = conditions(&["Approved", "Denied"]);
    let untyped = conditions(&[""]);
    let twice = conditions(&["Approved", "Approved"]);
    let mut cases = vec![
        (json!({}), json!({}), String::new()),
        (json!({}), conditions(&["Failed"]), String::new()),
        removed("Approved"),
        removed("Denied"),
        removed("Failed"),
    ];
    for lax in [arbitrary, usages, legacy, both, untyped, twice] {
        cases.push((finalized(&lax), lax, String::new()));
    }
    cases
}

fn put(subresource: &str, more: Vec<(Value, Value, String)>) {
    let mut cases = kept();
    cases.extend(more);
    let cases: Vec<(Value, Value, &str)> =
        cases.iter().map(|(before, after, wrong)| (before.clone(), after.clone(), wrong.as_str())).collect();
    changes(&kind(), subresource, &base(), &cases);
}

fn added(kind: &str) -> (Value, Value, String) {
    let wrong = format!("status.conditions: Forbidden: updates may not add a condition of type \"{kind}\"");
    (json!({}), conditions(&[kind]), wrong)
}

#[test]
fn updates() {
    let set = "status.certificate: Forbidden: updates may not set certificate content".to_owned();
    let both = "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive | status.conditions: Forbidden: updates may not add a condition of type \"Approved\" | status.conditions: Forbidden: updates may not add a condition of type \"Denied\"".to_owned();
    put(
        "",
        vec![
            added("Approved"),
            added("Denied"),
            (json!({}), issued(&block("CERTIFICATE", CERTIFICATE)), set),
            (json!({}), conditions(&["Approved", "Denied"]), both),
        ],
    );
}

#[test]
fn status_updates() {
    let certificate = "status.certificate: ";
    let no_block = format!(
        "{certificate}Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block"
    );
    let reset = format!("{certificate}Forbidden: updates may not modify existing certificate content");
    let good = block("CERTIFICATE", CERTIFICATE);
    put(
        "status",
        vec![
            added("Approved"),
            added("Denied"),
            (json!({}), issued(&good), String::new()),
            (json!({}), issued("no PEM content"), no_block),
            (issued("no PEM content"), issued(&block("CERTIFICATE1", CERTIFICATE)), reset),
        ],
    );
}

#[test]
fn approval_updates() {
    let set = "status.certificate: Forbidden: updates may not set certificate content".to_owned();
    put(
        "approval",
        vec![
            (json!({}), conditions(&["Approved"]), String::new()),
            (json!({}), conditions(&["Denied"]), String::new()),
            (json!({}), issued(&block("CERTIFICATE", CERTIFICATE)), set),
        ],
    );
}
