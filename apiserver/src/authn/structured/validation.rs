//! Whether a configuration of authentication makes sense (upstream `apiserver/pkg/apis/apiserver/validation`). What is
//! checked is compiled on the way: the [`Rules`] of each issuer.

use std::collections::BTreeSet;

use api::field::{Error, ErrorList, Path};
use api::format::domain_prefixed_path;
use rustls::pki_types::pem::SectionKind;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::{
    AuthenticationConfiguration, ClaimMappings, ClaimValidationRule, Issuer, JwtAuthenticator,
    PrefixedClaimOrExpression, UserValidationRule,
};
use crate::authn::oidc::expressions::{Expression, Returns};
use crate::url;

/// The most issuers of one configuration.
const ISSUERS: usize = 64;

/// The compiled expressions of one issuer.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What the user's name is.
    pub username: Option<Expression>,
    /// What the groups are.
    pub groups: Option<Expression>,
    /// What the uid is.
    pub uid: Option<Expression>,
    /// What else is known, by key.
    pub extra: Vec<(String, Expression)>,
    /// What must hold of claims, with messages.
    pub claims: Vec<(Expression, String)>,
    /// What must hold of the user, with messages.
    pub user: Vec<(Expression, String)>,
}

/// Checks a configuration and compiles it. `disallowed`: issuers that are the server's own.
///
/// # Errors
/// With all that is wrong.
pub fn validate(
    config: &AuthenticationConfiguration,
    disallowed: &[String],
) -> Result<Vec<Rules>, ErrorList> {
    let root = Path::new("jwt");
    if config.jwt.len() > ISSUERS {
        return Err(vec![Error::too_many(&root, config.jwt.len(), ISSUERS)]);
    }
    let disallowed: BTreeSet<&str> = disallowed.iter().map(String::as_str).collect();
    let (mut errors, mut all) = (ErrorList::new(), Vec::new());
    let (mut issuers, mut discovery) = (BTreeSet::new(), BTreeSet::new());
    for (i, authenticator) in config.jwt.iter().enumerate() {
        let path = root.index(i);
        all.push(validate_authenticator(authenticator, &disallowed, &path, &mut errors));
        let Issuer { url, discovery_url, .. } = &authenticator.issuer;
        if !issuers.insert(url) {
            errors.push(Error::duplicate(&path.child("issuer").child("url"), url.clone()));
        }
        if !discovery_url.is_empty() && !discovery.insert(discovery_url) {
            errors.push(Error::duplicate(&path.child("issuer").child("discoveryURL"), discovery_url.clone()));
        }
    }
    if let Some(anonymous) = config.anonymous.as_ref().filter(|a| !a.enabled && !a.conditions.is_empty()) {
        let shown: Vec<Value> = anonymous.conditions.iter().map(|c| json!({"Path": c.path})).collect();
        let why = "enabled should be set to true when conditions are defined";
        errors.push(Error::invalid(&Path::new("anonymous.conditions"), shown, why));
    }
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}

fn validate_authenticator(
    authenticator: &JwtAuthenticator,
    disallowed: &BTreeSet<&str>,
    path: &Path,
    errors: &mut ErrorList,
) -> Rules {
    let mut rules = Rules::default();
    validate_issuer(&authenticator.issuer, disallowed, &path.child("issuer"), errors);
    let at = path.child("claimValidationRules");
    rules.claims = validate_claim_rules(&authenticator.claim_validation_rules, &at, errors);
    validate_mappings(&authenticator.claim_mappings, &path.child("claimMappings"), &mut rules, errors);
    let at = path.child("userValidationRules");
    rules.user = validate_user_rules(&authenticator.user_validation_rules, &at, errors);
    rules
}

fn validate_issuer(issuer: &Issuer, disallowed: &BTreeSet<&str>, path: &Path, errors: &mut ErrorList) {
    let at = path.child("url");
    if issuer.url.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        validate_url(&issuer.url, disallowed, &at, errors);
    }
    if !issuer.discovery_url.is_empty() {
        let at = path.child("discoveryURL");
        let same = issuer.url.trim_end_matches('/') == issuer.discovery_url.trim_end_matches('/');
        if !issuer.url.is_empty() && same {
            let why = "discoveryURL must be different from URL";
            errors.push(Error::invalid(&at, issuer.discovery_url.clone(), why));
        }
        validate_url(&issuer.discovery_url, &BTreeSet::new(), &at, errors);
    }
    validate_audiences(issuer, path, errors);
    if let Err(why) = check_authorities(&issuer.certificate_authority) {
        errors.push(Error::invalid(&path.child("certificateAuthority"), "<omitted>", why));
    }
    let egress = issuer.egress_selector_type.as_str();
    if !matches!(egress, "" | "controlplane" | "cluster") {
        let why = "egress selector must be either controlplane or cluster";
        errors.push(Error::invalid(&path.child("egressSelectorType"), egress, why));
    }
}

fn validate_url(text: &str, disallowed: &BTreeSet<&str>, path: &Path, errors: &mut ErrorList) {
    if disallowed.contains(text) {
        let known: Vec<&str> = disallowed.iter().copied().collect();
        let why = format!("URL must not overlap with disallowed issuers: [{}]", known.join(" "));
        errors.push(Error::invalid(path, text, why));
    }
    let parts = match url::Parts::parse(text) {
        Ok(parts) => parts,
        Err(why) => {
            let shown = api::field::quote(text);
            return errors.push(Error::invalid(path, text, format!("parse {shown}: {why}")));
        }
    };
    for (wrong, why) in [
        (parts.scheme != "https", "URL scheme must be https"),
        (parts.user.is_some(), "URL must not contain a username or password"),
        (!parts.query.is_empty(), "URL must not contain a query"),
        (!parts.fragment.is_empty(), "URL must not contain a fragment"),
    ] {
        if wrong {
            errors.push(Error::invalid(path, text, why));
        }
    }
}

fn validate_audiences(issuer: &Issuer, path: &Path, errors: &mut ErrorList) {
    let (audiences, policy) = (&issuer.audiences, issuer.audience_match_policy.as_str());
    let (at, policy_at) = (path.child("audiences"), path.child("audienceMatchPolicy"));
    if audiences.is_empty() {
        return errors.push(Error::required(&at, format!("at least one {at} is required")));
    }
    let mut seen = BTreeSet::new();
    for (i, audience) in audiences.iter().enumerate() {
        if audience.is_empty() {
            errors.push(Error::required(&at.index(i), ""));
        }
        if !seen.insert(audience) {
            errors.push(Error::duplicate(&at.index(i), audience.clone()));
        }
    }
    if audiences.len() > 1 && policy != "MatchAny" {
        let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
        errors.push(Error::invalid(&policy_at, policy, why));
    }
    if audiences.len() == 1 && !matches!(policy, "" | "MatchAny") {
        let why = "audienceMatchPolicy must be empty or MatchAny for single audience";
        errors.push(Error::invalid(&policy_at, policy, why));
    }
}

/// Whether a bundle (PEM) holds certificates; an empty one is none.
fn check_authorities(bundle: &str) -> Result<(), String> {
    if bundle.is_empty() {
        return Ok(());
    }
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(bundle.as_bytes()).flatten();
    let mut found = false;
    for (_, der) in sections.filter(|(kind, _)| *kind == SectionKind::Certificate) {
        x509_parser::parse_x509_certificate(&der).map_err(|_| "x509: malformed certificate".to_owned())?;
        found = true;
    }
    let none = "data does not contain any valid RSA or ECDSA certificates";
    if found { Ok(()) } else { Err(none.to_owned()) }
}

fn validate_claim_rules(
    rules: &[ClaimValidationRule],
    path: &Path,
    errors: &mut ErrorList,
) -> Vec<(Expression, String)> {
    let mut compiled = Vec::new();
    let (mut claims, mut expressions) = (BTreeSet::new(), BTreeSet::new());
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        match (rule.claim.is_empty(), rule.expression.is_empty()) {
            (false, false) => {
                let why = "claim and expression can't both be set";
                errors.push(Error::invalid(&path, rule.claim.clone(), why));
            }
            (true, true) => errors.push(Error::required(&path, "claim or expression is required")),
            (false, true) => {
                if !rule.message.is_empty() {
                    let why = "may not be specified when claim is set";
                    errors.push(Error::invalid(&path.child("message"), rule.message.clone(), why));
                }
                if !claims.insert(&rule.claim) {
                    errors.push(Error::duplicate(&path.child("claim"), rule.claim.clone()));
                }
            }
            (true, false) => {
                if !rule.required_value.is_empty() {
                    let why = "may not be specified when expression is set";
                    errors.push(Error::invalid(
                        &path.child("requiredValue"),
                        rule.required_value.clone(),
                        why,
                    ));
                }
                let at = path.child("expression");
                if !expressions.insert(&rule.expression) {
                    errors.push(Error::duplicate(&at, rule.expression.clone()));
                    continue;
                }
                let expression =
                    compile(&rule.expression, &at, errors, |e| Expression::of_claims(e, Returns::Bool));
                compiled.extend(expression.map(|expression| (expression, rule.message.clone())));
            }
        }
    }
    compiled
}

fn compile(
    text: &str,
    path: &Path,
    errors: &mut ErrorList,
    how: impl FnOnce(&str) -> Result<Expression, String>,
) -> Option<Expression> {
    match how(text) {
        Ok(expression) => Some(expression),
        Err(why) => {
            errors.push(Error::invalid(path, text, why));
            None
        }
    }
}

fn of_claims(text: &str, path: &Path, errors: &mut ErrorList) -> Option<Expression> {
    compile(text, path, errors, |text| Expression::of_claims(text, Returns::Any))
}

fn validate_mappings(mappings: &ClaimMappings, path: &Path, rules: &mut Rules, errors: &mut ErrorList) {
    rules.username = claim_or_expression(&mappings.username, true, &path.child("username"), errors);
    rules.groups = claim_or_expression(&mappings.groups, false, &path.child("groups"), errors);
    let (uid, at) = (&mappings.uid, path.child("uid"));
    if !uid.claim.is_empty() && !uid.expression.is_empty() {
        errors.push(Error::invalid(&at, "", "claim and expression can't both be set"));
    } else if !uid.expression.is_empty() {
        rules.uid = of_claims(&uid.expression, &at.child("expression"), errors);
    }
    validate_extra(mappings, &path.child("extra"), rules, errors);

    let uses = |expression: &Expression, claim: &str| expression.selects("claims", claim);
    let email = rules.username.as_ref().is_some_and(|expression| uses(expression, "email"));
    let mut verifying = rules.username.iter().chain(rules.extra.iter().map(|(_, e)| e));
    let verified = verifying.any(|expression| uses(expression, "email_verified"))
        || rules.claims.iter().any(|(expression, _)| uses(expression, "email_verified"));
    if email && !verified {
        let why = "claims.email_verified must be used in claimMappings.username.expression or \
                   claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email \
                   is used in claimMappings.username.expression";
        let at = path.child("username").child("expression");
        errors.push(Error::invalid(&at, mappings.username.expression.clone(), why));
    }
}

fn claim_or_expression(
    mapping: &PrefixedClaimOrExpression,
    required: bool,
    path: &Path,
    errors: &mut ErrorList,
) -> Option<Expression> {
    match (mapping.claim.is_empty(), mapping.expression.is_empty()) {
        (false, false) => {
            errors.push(Error::invalid(path, "", "claim and expression can't both be set"));
            None
        }
        (true, true) => {
            if required {
                errors.push(Error::required(path, "claim or expression is required"));
            }
            None
        }
        (true, false) => {
            if let Some(prefix) = &mapping.prefix {
                let why = "may not be specified when expression is set";
                errors.push(Error::invalid(&path.child("prefix"), prefix.clone(), why));
            }
            of_claims(&mapping.expression, &path.child("expression"), errors)
        }
        (false, true) => {
            if mapping.prefix.is_none() {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable \
                           prefixing";
                errors.push(Error::required(&path.child("prefix"), why));
            }
            None
        }
    }
}

fn validate_extra(mappings: &ClaimMappings, path: &Path, rules: &mut Rules, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, mapping) in mappings.extra.iter().enumerate() {
        let path = path.index(i);
        let (at, key) = (path.child("key"), mapping.key.as_str());
        errors.extend(domain_prefixed_path(&at, key));
        if key.to_lowercase() != key {
            errors.push(Error::invalid(&at, key, "must be lowercase"));
        }
        if is_reserved(key) {
            let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            errors.push(Error::invalid(&at, key, why));
        }
        if !seen.insert(key) {
            errors.push(Error::duplicate(&at, key));
            continue;
        }
        let at = path.child("valueExpression");
        if mapping.value_expression.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let expression = of_claims(&mapping.value_expression, &at, errors);
        rules.extra.extend(expression.map(|expression| (key.to_owned(), expression)));
    }
}

fn is_reserved(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    ["kubernetes.io", "k8s.io"].iter().any(|reserved| {
        domain.strip_suffix(reserved).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

fn validate_user_rules(
    rules: &[UserValidationRule],
    path: &Path,
    errors: &mut ErrorList,
) -> Vec<(Expression, String)> {
    let (mut compiled, mut seen) = (Vec::new(), BTreeSet::new());
    for (i, rule) in rules.iter().enumerate() {
        let at = path.index(i).child("expression");
        if rule.expression.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if !seen.insert(&rule.expression) {
            errors.push(Error::duplicate(&at, rule.expression.clone()));
        } else {
            let expression = compile(&rule.expression, &at, errors, Expression::of_user);
            compiled.extend(expression.map(|expression| (expression, rule.message.clone())));
        }
    }
    compiled
}

#[cfg(test)]
mod tests;
