//! `AuthenticationConfiguration`: who may sign tokens of users, and what in them says who the user is (upstream
//! `apiserver/pkg/apis/apiserver`).

mod validation;

use serde::Deserialize;

pub use validation::{Rules, validate};

use crate::config_file;

/// What is configured about authentication in a file, or by flags that say the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    /// Who signs tokens.
    pub jwt: Vec<JwtAuthenticator>,
    /// Whether requests without credentials pass.
    pub anonymous: Option<Anonymous>,
}

/// Whether requests without credentials pass, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Anonymous {
    /// Whether they do.
    pub enabled: bool,
    /// Where they do; everywhere if there are none.
    pub conditions: Vec<AnonymousCondition>,
}

/// One place where requests without credentials pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AnonymousCondition {
    /// The path of the URL.
    pub path: String,
}

/// Tokens of one issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct JwtAuthenticator {
    /// Who signs them.
    pub issuer: Issuer,
    /// What their claims must be.
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    /// What makes a user of them.
    pub claim_mappings: ClaimMappings,
    /// What users must be.
    pub user_validation_rules: Vec<UserValidationRule>,
}

/// Who signs tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Issuer {
    /// The `iss` of the tokens, and where to find the discovery document.
    pub url: String,
    /// Where the discovery document is, if it is elsewhere.
    #[serde(rename = "discoveryURL")]
    pub discovery_url: String,
    /// Authorities (PEM) for connections to the issuer; those of the system if empty.
    pub certificate_authority: String,
    /// Audiences of which tokens must have one.
    pub audiences: Vec<String>,
    /// How audiences are compared; the only way is `MatchAny`.
    pub audience_match_policy: String,
    /// By which network the issuer is reached.
    pub egress_selector_type: String,
}

/// What one claim, or all of them, must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClaimValidationRule {
    /// A claim ...
    pub claim: String,
    /// ... and its value.
    pub required_value: String,
    /// Or what holds of the claims ...
    pub expression: String,
    /// ... and what is said if it does not.
    pub message: String,
}

/// What makes a user of claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClaimMappings {
    /// The name.
    pub username: PrefixedClaimOrExpression,
    /// The groups.
    pub groups: PrefixedClaimOrExpression,
    /// The uid.
    pub uid: ClaimOrExpression,
    /// What else is known of the user.
    pub extra: Vec<ExtraMapping>,
}

/// A claim with a prefix, or an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PrefixedClaimOrExpression {
    /// The claim.
    pub claim: String,
    /// What is put before it.
    pub prefix: Option<String>,
    /// The expression.
    pub expression: String,
}

/// A claim or an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClaimOrExpression {
    /// The claim.
    pub claim: String,
    /// The expression.
    pub expression: String,
}

/// One more thing that is known of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExtraMapping {
    /// Its key, a path below a domain.
    pub key: String,
    /// What evaluates to its values.
    pub value_expression: String,
}

/// What a user must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UserValidationRule {
    /// What holds of the user.
    pub expression: String,
    /// What is said if it does not.
    pub message: String,
}

impl AuthenticationConfiguration {
    /// Reads a file's text. Whether its values make sense is for [`validate`] to say.
    ///
    /// # Errors
    /// When it is no such configuration.
    pub fn parse(text: &[u8]) -> Result<Self, config_file::Error> {
        let versions = ["v1", "v1beta1", "v1alpha1"];
        config_file::decode(text, "AuthenticationConfiguration", &versions).map(|(_, read)| read)
    }
}

/// The issuer that the `--oidc-*` flags name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OidcFlags {
    /// Its URL.
    pub issuer_url: String,
    /// The audience.
    pub client_id: String,
    /// Authorities (PEM) for connections to it.
    pub certificate_authority: String,
    /// The claim with the name.
    pub username_claim: String,
    /// What is put before the name; `-` for nothing.
    pub username_prefix: String,
    /// The claim with the groups.
    pub groups_claim: String,
    /// What is put before groups.
    pub groups_prefix: String,
    /// Claims and their values.
    pub required_claims: Vec<(String, String)>,
    /// Algorithms that tokens may be signed with.
    pub signing_algorithms: Vec<String>,
}

impl OidcFlags {
    /// The same as a configuration. Names that are not addresses of mail are told from those of other issuers by the
    /// issuer's URL, unless a prefix is given.
    #[must_use]
    pub fn authenticator(&self) -> JwtAuthenticator {
        let prefix = match self.username_prefix.as_str() {
            "" if self.username_claim != "email" => format!("{}#", self.issuer_url),
            "-" => String::new(),
            given => given.to_owned(),
        };
        let claim = |claim: &str, prefix: String| PrefixedClaimOrExpression {
            claim: claim.to_owned(),
            prefix: Some(prefix),
            expression: String::new(),
        };
        let groups = match self.groups_claim.as_str() {
            "" => PrefixedClaimOrExpression::default(),
            name => claim(name, self.groups_prefix.clone()),
        };
        let rule = |(claim, value): &(String, String)| ClaimValidationRule {
            claim: claim.clone(),
            required_value: value.clone(),
            ..ClaimValidationRule::default()
        };
        JwtAuthenticator {
            issuer: Issuer {
                url: self.issuer_url.clone(),
                audiences: vec![self.client_id.clone()],
                certificate_authority: self.certificate_authority.clone(),
                ..Issuer::default()
            },
            claim_mappings: ClaimMappings {
                username: claim(&self.username_claim, prefix),
                groups,
                ..ClaimMappings::default()
            },
            claim_validation_rules: self.required_claims.iter().map(rule).collect(),
            user_validation_rules: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_in_all_versions() {
        for version in ["v1", "v1beta1", "v1alpha1"] {
            let text = format!(
                "apiVersion: apiserver.config.k8s.io/{version}\nkind: AuthenticationConfiguration\n\
                 anonymous: {{enabled: true, conditions: [{{path: /livez}}]}}\n\
                 jwt:\n- issuer: {{url: https://a.example, discoveryURL: https://b.example, audiences: [x]}}\n  \
                 claimMappings: {{username: {{claim: sub, prefix: ''}}}}\n"
            );
            let read = AuthenticationConfiguration::parse(text.as_bytes()).expect("a configuration");
            assert_eq!(read.jwt[0].issuer.discovery_url, "https://b.example");
            assert_eq!(read.jwt[0].claim_mappings.username.prefix.as_deref(), Some(""));
            assert_eq!(read.anonymous.expect("given").conditions[0].path, "/livez");
        }
        let text = b"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwtt: []";
        assert!(AuthenticationConfiguration::parse(text).is_err());
    }

    // After upstream's TestToAuthenticationConfig_OIDC.
    #[test]
    fn flags_say_the_same_as_a_file() {
        let flags = |claim: &str, prefix: &str| OidcFlags {
            issuer_url: "https://issuer".to_owned(),
            client_id: "id".to_owned(),
            username_claim: claim.to_owned(),
            username_prefix: prefix.to_owned(),
            ..OidcFlags::default()
        };
        for (claim, prefix, expected) in [
            ("sub", "", "https://issuer#"),
            ("sub", "-", ""),
            ("sub", "p-", "p-"),
            ("email", "", ""),
            ("email", "-", ""),
            ("email", "p-", "p-"),
        ] {
            let made = flags(claim, prefix).authenticator();
            assert_eq!(made.claim_mappings.username.prefix.as_deref(), Some(expected), "{claim} {prefix}");
            assert_eq!(made.claim_mappings.groups, PrefixedClaimOrExpression::default());
        }
    }
}
