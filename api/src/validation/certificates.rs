//! Certificate signing requests (upstream `pkg/apis/certificates/validation`).

use crate::field::{Error, ErrorList, Path, Report, quote};
use crate::format;

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
