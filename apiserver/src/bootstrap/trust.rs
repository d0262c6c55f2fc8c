//! Tells extension servers whom to believe: the ConfigMap `extension-apiserver-authentication` (upstream
//! `controller/clusterauthenticationtrust`). The files are read each time, as authorities may be exchanged while the
//! server runs; what other servers have written stays, but for certificates that have expired.

use std::collections::BTreeMap;
use std::path::Path;

use api::status::ApiError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::Client;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use x509_parser::pem::Pem;

use super::objects::named;
use crate::authz::from_client;
use crate::config::AuthenticationConfig;

const NAME: &str = "extension-apiserver-authentication";
/// Certificates are believed a little longer than they are good, as clocks differ.
const GRACE: SignedDuration = SignedDuration::from_mins(5);

type Data = BTreeMap<String, String>;

/// Writes what is missing in the ConfigMap.
pub(super) async fn publish(client: &Client, config: &AuthenticationConfig) -> Result<(), ApiError> {
    let own = data(config).await?;
    if own.is_empty() {
        return Ok(());
    }
    let api = Api::<ConfigMap>::namespaced(client.clone(), "kube-system");
    let existing = api.get_opt(NAME).await.map_err(from_client)?;
    let known = existing.as_ref().and_then(|map| map.data.clone()).unwrap_or_default();
    let data = combined(&known, &own, Timestamp::now())?;
    let written = match existing {
        Some(_) if known == data => return Ok(()),
        Some(existing) => {
            let object = ConfigMap { data: Some(data), ..existing };
            api.replace(NAME, &PostParams::default(), &object).await
        }
        None => {
            let object = ConfigMap { metadata: named(NAME), data: Some(data), ..ConfigMap::default() };
            api.create(&PostParams::default(), &object).await
        }
    };
    written.map(drop).map_err(from_client).or_else(super::done_by_others)
}

/// What this server believes.
async fn data(config: &AuthenticationConfig) -> Result<Data, ApiError> {
    let mut data = Data::new();
    if let Some(path) = &config.client_ca_file {
        data.insert("client-ca-file".to_owned(), read(path).await?);
    }
    let proxy = &config.request_header;
    if let Some(path) = &proxy.client_ca_file {
        data.insert("requestheader-client-ca-file".to_owned(), read(path).await?);
        for (key, list) in [
            ("requestheader-allowed-names", &proxy.allowed_names),
            ("requestheader-username-headers", &proxy.username_headers),
            ("requestheader-uid-headers", &proxy.uid_headers),
            ("requestheader-group-headers", &proxy.group_headers),
            ("requestheader-extra-headers-prefix", &proxy.extra_headers_prefix),
        ] {
            data.insert(key.to_owned(), json!(list).to_string());
        }
    }
    Ok(data)
}

async fn read(path: &Path) -> Result<String, ApiError> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|error| ApiError::internal(format!("read {}: {error}", path.display())))
}

/// What is written already and what this server adds: certificates and names, each once, the old ones first.
fn combined(known: &Data, own: &Data, now: Timestamp) -> Result<Data, ApiError> {
    let mut all = known.clone();
    for (key, value) in own {
        let before = known.get(key).map(String::as_str).unwrap_or_default();
        let together = if key.ends_with("-ca-file") {
            bundle(&[before, value], now)?
        } else {
            let mut names: Vec<String> = list(key, before)?;
            for name in list(key, value)? {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            json!(names).to_string()
        };
        all.insert(key.clone(), together);
    }
    Ok(all)
}

fn list(key: &str, text: &str) -> Result<Vec<String>, ApiError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).map_err(|error| ApiError::internal(format!("{key} of {NAME}: {error}")))
}

/// The certificates of all texts that have not expired.
fn bundle(texts: &[&str], now: Timestamp) -> Result<String, ApiError> {
    let broken = |why: String| ApiError::internal(format!("certificates of {NAME}: {why}"));
    let mut found: Vec<Vec<u8>> = Vec::new();
    for text in texts {
        for pem in Pem::iter_from_buffer(text.as_bytes()) {
            let pem = pem.map_err(|error| broken(error.to_string()))?;
            if pem.label != "CERTIFICATE" {
                continue;
            }
            let until = pem.parse_x509().map_err(|error| broken(error.to_string()))?.validity().not_after;
            let expired = until.timestamp() <= (now - GRACE).as_second();
            if !expired && !found.contains(&pem.contents) {
                found.push(pem.contents);
            }
        }
    }
    Ok(found.iter().map(|der| encoded(der)).collect())
}

fn encoded(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let base64 = STANDARD.encode(der);
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn authority(name: &str, years: i32) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2000 + years, 1, 1);
        params.self_signed(&KeyPair::generate().expect("a key")).expect("signed").pem().replace("\r\n", "\n")
    }

    fn data(pairs: &[(&str, &str)]) -> Data {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn servers_add_to_what_others_have_written() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let (old, new, gone) = (authority("old", 90), authority("new", 90), authority("gone", 20));
        let known = data(&[
            ("client-ca-file", &format!("{gone}{old}")),
            ("requestheader-allowed-names", r#"["a","b"]"#),
            ("other", "stays"),
        ]);
        let own = data(&[
            ("client-ca-file", &format!("{new}{old}")),
            ("requestheader-allowed-names", r#"["b","c"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
        ]);
        let expected = data(&[
            ("client-ca-file", &format!("{old}{new}")),
            ("requestheader-allowed-names", r#"["a","b","c"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            ("other", "stays"),
        ]);
        let all = combined(&known, &own, now).expect("combined");
        assert_eq!(all, expected);
        assert_eq!(combined(&all, &own, now).expect("combined"), all, "nothing is left to do");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let own = data(&[("requestheader-allowed-names", "[]")]);
        let known = data(&[("requestheader-allowed-names", "no list")]);
        let error = combined(&known, &own, Timestamp::now()).expect_err("broken");
        assert!(error.message().contains("requestheader-allowed-names"), "{}", error.message());
    }

    #[tokio::test]
    async fn only_what_is_configured_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("ca.crt");
        std::fs::write(&file, "PEM").expect("written");
        let config = AuthenticationConfig { client_ca_file: Some(file), ..AuthenticationConfig::default() };
        assert_eq!(super::data(&config).await.expect("read"), data(&[("client-ca-file", "PEM")]));
    }
}
