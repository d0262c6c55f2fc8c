//! Certificate signing requests (upstream `pkg/apis/certificates/validation`).

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::field::{Error, ErrorList, Path, Report, quote};
use crate::format;

use super::claim::same;
use super::golang;
use super::meta;
use super::rules::{list, to_value};

const DOMAIN_MAX: usize = 253;
const SIGNER_NAME_MAX: usize = DOMAIN_MAX + 1 + 253 + 1 + 63;

/// The name of a signer: a domain and a path.
pub(crate) fn signer_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if name.is_empty() {
        errors.required(path, "");
        return errors;
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, signer] = parts.as_slice() else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.invalid(path, name, detail);
        return errors;
    };
    if domain.len() > DOMAIN_MAX {
        errors.too_long(path, DOMAIN_MAX);
    }
    errors.extend(first_bad_label(domain, format::dns1123_label, path));
    if !domain.contains('.') {
        errors.invalid(path, *domain, "should be a domain with at least two segments separated by dots");
    }
    errors.extend(first_bad_label(signer, format::dns1123_subdomain, path));
    if name.len() > SIGNER_NAME_MAX {
        errors.too_long(path, SIGNER_NAME_MAX);
    }
    errors
}

fn first_bad_label(text: &str, check: fn(&str) -> Vec<String>, path: &Path) -> ErrorList {
    for label in text.split('.') {
        let messages = check(label);
        if !messages.is_empty() {
            let detail = |message| format!("validating label {}: {message}", quote(label));
            return messages.into_iter().map(|m| Error::invalid(path, text, detail(m))).collect();
        }
    }
    ErrorList::new()
}

/// Sorted, as they are shown.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// The way a request is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Status,
    Approval,
}

fn any_name(_: &str, _: bool) -> Vec<String> {
    Vec::new()
}

/// A new request.
pub(crate) fn create(request: &CertificateSigningRequest) -> ErrorList {
    check(request, None)
}

/// A changed request.
pub(crate) fn update(new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> ErrorList {
    change(new, old, Part::Whole)
}

/// A request changed by its status.
pub(crate) fn status(new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> ErrorList {
    change(new, old, Part::Status)
}

/// A request changed by its approval.
pub(crate) fn approval(new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> ErrorList {
    change(new, old, Part::Approval)
}

/// A part of a text in PEM form (RFC 7468).
struct Block {
    label: String,
    has_headers: bool,
    contents: Vec<u8>,
}

/// The well-formed blocks of the text; all others are passed over, as Go does.
fn blocks(pem: &[u8]) -> Vec<Block> {
    let text = String::from_utf8_lossy(pem);
    let (mut blocks, mut open) = (Vec::new(), None);
    for line in text.lines().map(str::trim_end) {
        if let Some(label) = line.strip_prefix("-----BEGIN ") {
            open = label.strip_suffix("-----").map(|label| (label, Vec::new()));
        } else if let Some(end) = line.strip_prefix("-----END ") {
            blocks.extend(
                open.take()
                    .filter(|(label, _)| end.strip_suffix("-----") == Some(*label))
                    .and_then(|(label, lines)| block(label, &lines)),
            );
        } else if let Some((_, lines)) = &mut open {
            lines.push(line);
        }
    }
    blocks
}

fn block(label: &str, lines: &[&str]) -> Option<Block> {
    let headers = lines.iter().take_while(|line| line.contains(':')).count();
    let text: String = lines[headers..].iter().flat_map(|line| line.split_whitespace()).collect();
    let contents = STANDARD.decode(text).ok()?;
    Some(Block { label: label.to_owned(), has_headers: headers > 0, contents })
}

/// Why the text is no request for a certificate.
fn bad_request(pem: &[u8]) -> Option<String> {
    let block = blocks(pem).into_iter().next();
    let Some(block) = block.filter(|block| block.label == "CERTIFICATE REQUEST") else {
        return Some("PEM block type must be CERTIFICATE REQUEST".to_owned());
    };
    match X509CertificationRequest::from_der(&block.contents) {
        Ok((_, request)) => {
            request.verify_signature().err().map(|_| "x509: ECDSA verification failure".to_owned())
        }
        Err(_) => Some("asn1: structure error: malformed request".to_owned()),
    }
}

/// Why the text is no list of certificates.
fn bad_certificate(pem: &[u8]) -> Option<String> {
    if pem.is_empty() {
        return None;
    }
    let blocks = blocks(pem);
    for block in &blocks {
        if block.label != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {}", quote(&block.label)));
        }
        if block.has_headers {
            return Some("no PEM block headers are permitted".to_owned());
        }
        if block.contents.is_empty() {
            return Some("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        let mut rest = block.contents.as_slice();
        while !rest.is_empty() {
            match X509Certificate::from_der(rest) {
                Ok((left, _)) => rest = left,
                Err(_) => return Some("x509: malformed certificate".to_owned()),
            }
        }
    }
    blocks.is_empty().then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

fn conditions_of(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default()
}

fn of_type<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Vec<&'a CertificateSigningRequestCondition> {
    conditions_of(request).iter().filter(|c| c.type_ == kind).collect()
}

fn certificate_of(request: &CertificateSigningRequest) -> &[u8] {
    let certificate = request.status.as_ref().and_then(|s| s.certificate.as_ref());
    certificate.map(|ByteString(bytes)| bytes.as_slice()).unwrap_or_default()
}

fn has_duplicates<'a>(mut items: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = BTreeSet::new();
    items.any(|item| !seen.insert(item))
}

fn check(request: &CertificateSigningRequest, old: Option<&CertificateSigningRequest>) -> ErrorList {
    let mut errors = meta::validate_core(&request.metadata, false, any_name, &Path::new("metadata"));
    let (spec, path) = (&request.spec, Path::new("spec"));
    if let Some(why) = bad_request(&spec.request.0) {
        let shown = if spec.request.0.is_empty() { serde_json::Value::Null } else { to_value(&spec.request) };
        errors.invalid(&path.child("request"), shown, why);
    }
    let usages = list(&spec.usages);
    let before = old.map(|old| list(&old.spec.usages)).unwrap_or_default();
    let at = path.child("usages");
    if usages.is_empty() {
        errors.required(&at, "");
    }
    if before.iter().all(|usage| USAGES.contains(&usage.as_str())) {
        for (i, usage) in usages.iter().enumerate() {
            errors.one_of(&at.index(i), usage, &USAGES);
        }
    }
    if !has_duplicates(before.iter().map(String::as_str)) {
        for (i, usage) in usages.iter().enumerate().filter(|(i, usage)| usages[..*i].contains(usage)) {
            errors.duplicate(&at.index(i), usage.as_str());
        }
    }
    let at = path.child("signerName");
    let legacy = old.is_some_and(|old| old.spec.signer_name == LEGACY_SIGNER);
    if spec.signer_name == LEGACY_SIGNER && !legacy {
        let detail = "the legacy signerName is not allowed via this API version";
        errors.invalid(&at, LEGACY_SIGNER, detail);
    } else {
        errors.extend(signer_name(&spec.signer_name, &at));
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|seconds| *seconds < 600) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&path.child("expirationSeconds"), seconds, detail);
    }
    conditions(request, old, &Path::new("status").child("conditions"), &mut errors);
    let certificate = certificate_of(request);
    let unchanged = old.is_some_and(|old| certificate_of(old) == certificate);
    let was_bad = old.is_some_and(|old| bad_certificate(certificate_of(old)).is_some());
    if !unchanged
        && !was_bad
        && let Some(why) = bad_certificate(certificate)
    {
        errors.invalid(&Path::new("status").child("certificate"), "<certificate data>", why);
    }
    errors
}

fn conditions(
    request: &CertificateSigningRequest,
    old: Option<&CertificateSigningRequest>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let before = old.map(conditions_of).unwrap_or_default();
    let had = |kind: &str| before.iter().any(|c| c.type_ == kind);
    let (lax_types, lax_both) = (had(""), had("Approved") && had("Denied"));
    let lax_copies = has_duplicates(before.iter().map(|c| c.type_.as_str()));
    let all = conditions_of(request);
    for (i, condition) in all.iter().enumerate() {
        let (kind, at) = (condition.type_.as_str(), path.index(i));
        if kind.is_empty() && !lax_types {
            errors.required(&at.child("type"), "");
        }
        let at_status = at.child("status");
        match (condition.status.as_str(), kind) {
            ("", _) => errors.required(&at_status, ""),
            (status, "Approved" | "Denied" | "Failed") => errors.one_of(&at_status, status, &["True"]),
            (status, _) => errors.one_of(&at_status, status, &["False", "True", "Unknown"]),
        }
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "-",
        };
        if !lax_both && all[..i].iter().any(|c| c.type_ == other) {
            errors.invalid(path, kind, "Approved and Denied conditions are mutually exclusive");
        }
        if !lax_copies && all[..i].iter().any(|c| c.type_ == kind) {
            errors.duplicate(&at.child("type"), kind);
        }
    }
}

fn change(new: &CertificateSigningRequest, old: &CertificateSigningRequest, part: Part) -> ErrorList {
    let mut errors = check(new, Some(old));
    let path = Path::new("status");
    let at = path.child("conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        if of_type(new, kind).len() < of_type(old, kind).len() {
            errors.forbidden(&at, format!("updates may not remove a condition of type {}", quote(kind)));
        }
    }
    for kind in ["Approved", "Denied"].into_iter().filter(|_| part != Part::Approval) {
        let (now, before) = (of_type(new, kind), of_type(old, kind));
        if now.len() > before.len() {
            errors.forbidden(&at, format!("updates may not add a condition of type {}", quote(kind)));
        } else if now.len() == before.len() && !same(&now, &before) {
            let diff = golang::diff("", &to_value(&before), &to_value(&now));
            let detail = format!("updates may not modify a condition of type {}\n{diff}", quote(kind));
            errors.forbidden(&at, detail);
        }
    }
    let (certificate, before) = (certificate_of(new), certificate_of(old));
    if certificate != before {
        let at = path.child("certificate");
        if part != Part::Status {
            errors.forbidden(&at, "updates may not set certificate content");
        } else if !before.is_empty() {
            errors.forbidden(&at, "updates may not modify existing certificate content");
        }
    }
    errors.extend(meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata")));
    errors
}
