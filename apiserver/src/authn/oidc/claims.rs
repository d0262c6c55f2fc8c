//! From the claims of a verified token to a user. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::expressions::{Data, Expression, texts};
use crate::authn::User;
use crate::authn::structured::{JwtAuthenticator, PrefixedClaimOrExpression, Rules};

/// The claims of a token.
pub type Claims = Map<String, Value>;

/// The user that claims name, as the configuration maps them, if all its rules are kept.
///
/// # Errors
/// What is wrong with the claims or the user, in upstream's words.
pub fn user_of(claims: &Claims, config: &JwtAuthenticator, rules: &Rules) -> Result<User, String> {
    let data = Data::new(Value::Object(claims.clone()));
    let user = User {
        name: username(claims, &data, &config.claim_mappings.username, rules)?,
        groups: groups(claims, &data, &config.claim_mappings.groups, rules)?,
        uid: uid(claims, &data, &config.claim_mappings.uid.claim, rules)?,
        extra: extra(claims, &data, rules)?,
    };
    for rule in config.claim_validation_rules.iter().filter(|rule| !rule.claim.is_empty()) {
        let (claim, wanted) = (&rule.claim, &rule.required_value);
        let found = claims.get(claim);
        let found = found.ok_or_else(|| format!("oidc: required claim {claim} not present in ID token"))?;
        let got = text(found).map_err(|why| format!("oidc: parse claim {claim}: {why}"))?;
        if got != *wanted {
            return Err(format!(
                "oidc: required claim {claim} value does not match. Got = {got}, want = {wanted}"
            ));
        }
    }
    let failed = |why: String| format!("oidc: error evaluating claim validation expression: {why}");
    all_hold(&rules.claims, &data).map_err(failed)?;
    if !rules.user.is_empty() {
        let shown = serde_json::json!({
            "username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        });
        let failed = |why: String| format!("oidc: error evaluating user info validation rule: {why}");
        all_hold(&rules.user, &Data::new(shown)).map_err(failed)?;
    }
    Ok(user)
}

fn username(
    claims: &Claims,
    data: &Data,
    mapping: &PrefixedClaimOrExpression,
    rules: &Rules,
) -> Result<String, String> {
    if let Some(expression) = &rules.username {
        let failed = |why: String| format!("oidc: error evaluating username claim expression: {why}");
        let value = expression.evaluate(data).map_err(failed)?;
        let name = value
            .as_str()
            .ok_or_else(|| failed("username claim expression must return a string".to_owned()))?;
        if name.is_empty() {
            return Err("oidc: empty username via CEL expression is not allowed".to_owned());
        }
        return Ok(name.to_owned());
    }
    let claim = mapping.claim.as_str();
    let name = claims.get(claim).ok_or_else(|| "claim not present".to_owned()).and_then(text);
    let name = name.map_err(|why| format!("oidc: parse username claims {claim:?}: {why}"))?;
    if claim == "email" {
        match claims.get("email_verified") {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Bool(false) | Value::Null) => return Err("oidc: email not verified".to_owned()),
            Some(other) => {
                let why = mismatch(other, "bool");
                return Err(format!("oidc: parse 'email_verified' claim: {why}"));
            }
        }
    }
    Ok(format!("{}{name}", mapping.prefix.as_deref().unwrap_or_default()))
}

fn groups(
    claims: &Claims,
    data: &Data,
    mapping: &PrefixedClaimOrExpression,
    rules: &Rules,
) -> Result<Vec<String>, String> {
    let claim = mapping.claim.as_str();
    if let Some(found) = claims.get(claim).filter(|_| !claim.is_empty()) {
        let failed = |why: String| format!("oidc: parse groups claim {claim:?}: {why}");
        // Some issuers have one role, which is no list.
        let groups = match found {
            Value::Null => Vec::new(),
            Value::Array(items) if items.iter().all(|item| item.is_string() || item.is_null()) => {
                items.iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
            }
            other => vec![text(other).map_err(failed)?],
        };
        let prefix = mapping.prefix.as_deref().unwrap_or_default();
        return Ok(groups.into_iter().map(|group| format!("{prefix}{group}")).collect());
    }
    let Some(expression) = &rules.groups else { return Ok(Vec::new()) };
    let failed = |why: String| format!("oidc: error evaluating group claim expression: {why}");
    let value = expression.evaluate(data).map_err(failed)?;
    texts(&value).map_err(failed)
}

fn uid(claims: &Claims, data: &Data, claim: &str, rules: &Rules) -> Result<String, String> {
    if !claim.is_empty() {
        let found = claims.get(claim).ok_or_else(|| "claim not present".to_owned()).and_then(text);
        return found.map_err(|why| format!("oidc: parse uid claim {claim:?}: {why}"));
    }
    let Some(expression) = &rules.uid else { return Ok(String::new()) };
    let failed = |why: String| format!("oidc: error evaluating uid claim expression: {why}");
    let value = expression.evaluate(data).map_err(failed)?;
    let uid = value.as_str().map(str::to_owned);
    uid.ok_or_else(|| failed("uid claim expression must return a string".to_owned()))
}

fn extra(claims: &Claims, data: &Data, rules: &Rules) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut extra = BTreeMap::new();
    if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
        extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={id}")]);
    }
    for (key, expression) in &rules.extra {
        let value = expression.evaluate(data)?;
        let values = texts(&value).map_err(|why| {
            format!("oidc: error evaluating extra claim expression: {}: {why}", expression.text())
        })?;
        if !values.is_empty() {
            extra.insert(key.clone(), values);
        }
    }
    Ok(extra)
}

fn all_hold(rules: &[(Expression, String)], data: &Data) -> Result<(), String> {
    let values =
        rules.iter().map(|(expression, message)| Ok((expression, message, expression.evaluate(data)?)));
    for (expression, message, value) in values.collect::<Result<Vec<_>, String>>()? {
        match value.as_bool() {
            Some(true) => {}
            Some(false) => {
                return Err(format!("validation expression '{}' failed: {message}", expression.text()));
            }
            None => return Err("validation expression must return a boolean".to_owned()),
        }
    }
    Ok(())
}

/// A claim that is text; null is the empty one, as Go has it.
fn text(claim: &Value) -> Result<String, String> {
    match claim {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        other => Err(mismatch(other, "string")),
    }
}

fn mismatch(found: &Value, wanted: &str) -> String {
    let kind = api::codec::json::kind_of(found);
    format!("json: cannot unmarshal {kind} into Go value of type {wanted}")
}

#[cfg(test)]
mod tests;
