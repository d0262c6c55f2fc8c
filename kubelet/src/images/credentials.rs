//! Registry credentials from pull secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use proto::cri;
use serde::Deserialize;

use super::name;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerAuth {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

/// The credentials in `secrets` that are meant for the registry of `image`, the most specific first.
#[must_use]
pub fn for_image(image: &str, secrets: &[Arc<Secret>]) -> Vec<cri::AuthConfig> {
    let repository = name::full_repository(image);
    let mut found: Vec<(usize, cri::AuthConfig)> = secrets
        .iter()
        .flat_map(|secret| entries(secret))
        .filter_map(|(registry, auth)| {
            is_for(&registry, &repository).then(|| (normalize(&registry).len(), auth_config(auth)))
        })
        .collect();
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> BTreeMap<String, DockerAuth> {
    let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice());
    let parsed = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => data(".dockerconfigjson")
            .and_then(|text| serde_json::from_slice::<DockerConfig>(text).ok())
            .map(|config| config.auths),
        Some("kubernetes.io/dockercfg") => {
            data(".dockercfg").and_then(|text| serde_json::from_slice(text).ok())
        }
        _ => None,
    };
    parsed.unwrap_or_default()
}

fn auth_config(auth: DockerAuth) -> cri::AuthConfig {
    let (mut username, mut password) = (auth.username, auth.password);
    let decoded =
        STANDARD.decode(auth.auth.trim_end_matches('\0')).ok().and_then(|b| String::from_utf8(b).ok());
    if let Some((user, pass)) = decoded.as_deref().and_then(|text| text.split_once(':')) {
        username = user.to_owned();
        password = pass.trim_end_matches('\0').to_owned();
    }
    cri::AuthConfig { username, password, identity_token: auth.identitytoken, ..Default::default() }
}

/// Whether credentials for `registry` are meant for a repository.
pub(super) fn is_for(registry: &str, repository: &str) -> bool {
    matches(&normalize(registry), repository)
}

/// Without scheme, version path and trailing slash; Docker's old index is `docker.io`.
fn normalize(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    match bare.strip_prefix("index.docker.io").or_else(|| bare.strip_prefix("registry-1.docker.io")) {
        Some(rest) => format!("docker.io{rest}"),
        None => bare.to_owned(),
    }
}

/// Host labels may be `*` patterns; a path must be a prefix of the repository's.
fn matches(pattern: &str, repository: &str) -> bool {
    let (host, path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let (image_host, image_path) = repository.split_once('/').unwrap_or((repository, ""));
    let (host, port) = host.split_once(':').unwrap_or((host, ""));
    let (image_host, image_port) = image_host.split_once(':').unwrap_or((image_host, ""));
    let (labels, image_labels): (Vec<_>, Vec<_>) =
        (host.split('.').collect(), image_host.split('.').collect());
    port == image_port
        && labels.len() == image_labels.len()
        && labels.iter().zip(&image_labels).all(|(p, l)| glob(p, l))
        && (path.is_empty() || image_path == path || image_path.starts_with(&format!("{path}/")))
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            text.starts_with(before) && {
                let rest = &text[before.len()..];
                (0..=rest.len()).any(|i| rest.is_char_boundary(i) && glob(after, &rest[i..]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(config: &str) -> Arc<Secret> {
        let data = STANDARD.encode(config);
        Arc::new(
            serde_saphyr::from_str(&format!(
                "type: kubernetes.io/dockerconfigjson\ndata: {{.dockerconfigjson: {data}}}"
            ))
            .expect("valid"),
        )
    }

    #[test]
    fn credentials_are_chosen_by_registry() {
        let secrets = [secret(
            r#"{"auths":{"https://index.docker.io/v1/":{"username":"hub","password":"h"},
                "ghcr.io":{"auth":"Z2g6cHc="},"ghcr.io/team":{"username":"team","password":"t"},
                "*.example.com":{"username":"wild","password":"w"}}}"#,
        )];
        let cases: [(&str, &[&str]); 6] = [
            ("busybox", &["hub"]),
            ("ghcr.io/other/app:1", &["gh"]),
            ("ghcr.io/team/app", &["team", "gh"]),
            ("ghcr.io/teamster/app", &["gh"]),
            ("a.example.com/x", &["wild"]),
            ("a.b.example.com/x", &[]),
        ];
        for (image, users) in cases {
            let found: Vec<_> = for_image(image, &secrets).into_iter().map(|a| a.username).collect();
            assert_eq!(found, users, "{image}");
        }
        assert_eq!(for_image("ghcr.io/a/b", &secrets)[0].password, "pw");
    }
}
