//! How a machine that has nothing but a token finds out whom it may trust, as kubeadm does it.
//!
//! The ConfigMap `cluster-info` of `kube-public` may be read by anybody. It says where the API server is and which CA
//! to believe, and is signed with each token: who knows the token's secret has written it. The hash of the CA's key
//! guards against others who know the token too.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use client::kube::Config;
use client::{Api, Client};
use k8s_openapi::api::core::v1::ConfigMap;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::token::Token;

/// Namespace and name of the ConfigMap.
pub const CLUSTER_INFO: (&str, &str) = ("kube-public", "cluster-info");
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(500);

/// The cluster that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// URL of its API server.
    pub server: String,
    /// Its CA certificates, as PEM.
    pub authority: String,
}

/// The kubeconfig in `cluster-info`: a cluster without a name, and nobody.
#[must_use]
pub fn cluster_info(server: &str, authority: &str) -> String {
    let authority = base64::engine::general_purpose::STANDARD.encode(authority);
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {authority}\n    server: {server}\n  \
         name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {{}}\nusers: null\n"
    )
}

/// Asks the API server at `server` (host and port), and believes it if the token signed what it says and, if hashes
/// are given, one of them is that of its CA, which it then shows that it has.
///
/// # Errors
/// It does not answer, or cannot be believed.
pub async fn discover(server: &str, token: &Token, hashes: &[String]) -> Result<Found> {
    let url: http::Uri =
        format!("https://{server}").parse().with_context(|| format!("{server:?} is no host and port"))?;
    let mut config = Config::new(url.clone());
    config.accept_invalid_certs = true;
    let text = checked(&fetch(config, token).await?, token)?;
    let found = read(&text)?;
    if hashes.is_empty() {
        return Ok(found);
    }
    let authorities = certificates(&found.authority)?;
    check_hashes(&authorities, hashes)?;
    let mut config = Config::new(url);
    config.root_cert = Some(authorities.iter().map(|der| der.to_vec()).collect());
    let again = checked(&fetch(config, token).await?, token)?;
    ensure!(again == text, "the API server said something else when it had to show its certificate");
    Ok(found)
}

/// Waits for the ConfigMap to be there and to be signed with the token.
async fn fetch(config: Config, token: &Token) -> Result<ConfigMap> {
    let client = Client::try_from(config).context("set up a client")?;
    let maps: Api<ConfigMap> = Api::namespaced(client, CLUSTER_INFO.0);
    let began = Instant::now();
    loop {
        let answer = maps.get(CLUSTER_INFO.1).await.context("read the ConfigMap cluster-info");
        match answer {
            Ok(map) if signature(&map, token).is_some() => return Ok(map),
            Ok(_) if began.elapsed() > PATIENCE => bail!(
                "the token {:?} is not one of this cluster, or has expired: coxswain token create makes a new one",
                token.id
            ),
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

fn signature<'a>(map: &'a ConfigMap, token: &Token) -> Option<&'a String> {
    map.data.as_ref()?.get(&format!("jws-kubeconfig-{}", token.id))
}

/// The kubeconfig, if the token signed it.
fn checked(map: &ConfigMap, token: &Token) -> Result<String> {
    let text = map.data.as_ref().and_then(|data| data.get("kubeconfig")).cloned();
    let text = text.context("the ConfigMap cluster-info has no kubeconfig")?;
    let signed =
        signature(map, token).is_some_and(|signature| token.sign(&text).is_ok_and(|own| own == *signature));
    ensure!(
        signed,
        "failed to verify JWS signature of received cluster info object, can't trust this API Server"
    );
    Ok(text)
}

fn read(kubeconfig: &str) -> Result<Found> {
    let config: Value = serde_saphyr::from_str(kubeconfig).context("read the kubeconfig of cluster-info")?;
    let cluster = &config["clusters"][0]["cluster"];
    let server = cluster["server"].as_str().context("cluster-info names no server")?;
    let data = cluster["certificate-authority-data"].as_str().context("cluster-info has no CA")?;
    let authority =
        base64::engine::general_purpose::STANDARD.decode(data).context("read the CA of cluster-info")?;
    Ok(Found {
        server: server.to_owned(),
        authority: String::from_utf8(authority).context("the CA is no PEM")?,
    })
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .context("read the CA of cluster-info")
}

/// `sha256:` and the hash of the certificate's public key.
///
/// # Errors
/// It is no certificate.
pub fn key_hash(certificate: &[u8]) -> Result<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).context("read a certificate")?;
    let hash = Sha256::digest(certificate.public_key().raw);
    Ok(hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

/// The hash of the first certificate of a PEM text.
///
/// # Errors
/// It has none.
pub fn key_hash_of_pem(pem: &str) -> Result<String> {
    key_hash(certificates(pem)?.first().context("no certificate")?)
}

fn check_hashes(authorities: &[CertificateDer<'_>], hashes: &[String]) -> Result<()> {
    for hash in hashes {
        ensure!(
            hash.strip_prefix("sha256:").is_some_and(|h| h.len() == 64),
            "invalid hash {hash:?}, expected \"format:hex-value\", for example sha256:0123…"
        );
    }
    for authority in authorities {
        let own = key_hash(authority)?;
        if hashes.iter().any(|hash| hash.eq_ignore_ascii_case(&own)) {
            return Ok(());
        }
    }
    bail!("cluster CA found in cluster-info ConfigMap is invalid: none of the public keys are pinned")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        "abcdef.0123456789abcdef".parse().expect("a token")
    }

    fn authority() -> String {
        rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).expect("a certificate").cert.pem()
    }

    fn map(text: &str, signature: &str) -> ConfigMap {
        let data = [("kubeconfig", text), ("jws-kubeconfig-abcdef", signature)];
        let data = data.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        ConfigMap { data: Some(data), ..ConfigMap::default() }
    }

    #[test]
    fn only_what_the_token_signed_is_believed() {
        let text = cluster_info("https://192.0.2.1:6443", &authority());
        let signature = token().sign(&text).expect("signed");
        assert_eq!(checked(&map(&text, &signature), &token()).expect("signed"), text);
        let other = text.replace("192.0.2.1", "192.0.2.2");
        assert!(checked(&map(&other, &signature), &token()).is_err());
        let stranger: Token = "abcdef.fedcba9876543210".parse().expect("a token");
        assert!(checked(&map(&text, &signature), &stranger).is_err());
        assert!(checked(&ConfigMap::default(), &token()).is_err());
    }

    #[test]
    fn what_is_written_is_read() {
        let authority = authority();
        let found = read(&cluster_info("https://192.0.2.1:6443", &authority)).expect("a cluster");
        assert_eq!(found, Found { server: "https://192.0.2.1:6443".into(), authority });
    }

    #[test]
    fn one_pinned_key_will_do() {
        let (own, other) = (authority(), authority());
        let (own_hash, other_hash) =
            (key_hash_of_pem(&own).expect("a hash"), key_hash_of_pem(&other).expect("a hash"));
        let chain = certificates(&own).expect("a certificate");
        assert!(
            check_hashes(&chain, &[other_hash.clone(), own_hash.to_uppercase().replace("SHA256", "sha256")])
                .is_ok()
        );
        assert!(check_hashes(&chain, &[other_hash]).is_err());
        assert!(check_hashes(&chain, &[own_hash.replace("sha256:", "md5:")]).is_err());
    }
}
