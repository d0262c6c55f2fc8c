//! Which certificates and keys requests are signed with. As upstream's CSRSigningControllerOptions.

use client::leader::parse_duration;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The signer of certificates that kubelets serve with.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// The signer of certificates that kubelets are clients with.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// The signer of certificates that anybody else is a client with.
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// The signer that promises nothing.
pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// Flags of the controller that signs.
#[derive(Clone, Debug, clap::Args)]
pub struct Signing {
    /// The authority's certificate (PEM), for all signers that have none of their own.
    #[arg(long)]
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// The authority's key (PEM), for all signers that have none of their own.
    #[arg(long)]
    pub cluster_signing_key_file: Option<PathBuf>,
    /// The certificate for kubernetes.io/kubelet-serving.
    #[arg(long)]
    pub cluster_signing_kubelet_serving_cert_file: Option<PathBuf>,
    /// The key for kubernetes.io/kubelet-serving.
    #[arg(long)]
    pub cluster_signing_kubelet_serving_key_file: Option<PathBuf>,
    /// The certificate for kubernetes.io/kube-apiserver-client-kubelet.
    #[arg(long)]
    pub cluster_signing_kubelet_client_cert_file: Option<PathBuf>,
    /// The key for kubernetes.io/kube-apiserver-client-kubelet.
    #[arg(long)]
    pub cluster_signing_kubelet_client_key_file: Option<PathBuf>,
    /// The certificate for kubernetes.io/kube-apiserver-client.
    #[arg(long)]
    pub cluster_signing_kube_apiserver_client_cert_file: Option<PathBuf>,
    /// The key for kubernetes.io/kube-apiserver-client.
    #[arg(long)]
    pub cluster_signing_kube_apiserver_client_key_file: Option<PathBuf>,
    /// The certificate for kubernetes.io/legacy-unknown.
    #[arg(long)]
    pub cluster_signing_legacy_unknown_cert_file: Option<PathBuf>,
    /// The key for kubernetes.io/legacy-unknown.
    #[arg(long)]
    pub cluster_signing_legacy_unknown_key_file: Option<PathBuf>,
    /// The longest validity of a signed certificate.
    #[arg(long, value_parser = parse_duration, default_value = "8760h")]
    pub cluster_signing_duration: Duration,
}

/// A certificate and its key, in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Signing {
    /// What each signer signs with; those that are not there do not sign.
    ///
    /// # Errors
    /// The flags contradict each other; in upstream's words.
    pub fn pairs(&self) -> Result<BTreeMap<&'static str, Pair>, String> {
        let shared = (&self.cluster_signing_cert_file, &self.cluster_signing_key_file);
        // The names of two are not those of their flags, as upstream's.
        let own = [
            (
                KUBELET_SERVING,
                "cluster-signing-kubelet-serving",
                &self.cluster_signing_kubelet_serving_cert_file,
                &self.cluster_signing_kubelet_serving_key_file,
            ),
            (
                KUBELET_CLIENT,
                "cluster-signing-kube-apiserver-client",
                &self.cluster_signing_kubelet_client_cert_file,
                &self.cluster_signing_kubelet_client_key_file,
            ),
            (
                CLIENT,
                "cluster-signing-kube-apiserver",
                &self.cluster_signing_kube_apiserver_client_cert_file,
                &self.cluster_signing_kube_apiserver_client_key_file,
            ),
            (
                LEGACY_UNKNOWN,
                "cluster-signing-legacy-unknown",
                &self.cluster_signing_legacy_unknown_cert_file,
                &self.cluster_signing_legacy_unknown_key_file,
            ),
        ];
        let mut pairs = BTreeMap::new();
        for (signer, flag, certificate, key) in own {
            match (certificate, key) {
                (None, None) => {}
                (Some(certificate), Some(key)) => {
                    pairs.insert(signer, Pair { certificate: certificate.clone(), key: key.clone() });
                }
                (None, Some(_)) => return Err(format!("\"{flag}\": cannot specify key without cert")),
                (Some(_), None) => return Err(format!("\"{flag}\": cannot specify cert without key")),
            }
        }
        match shared {
            (None, None) => {}
            _ if !pairs.is_empty() => {
                return Err("cannot specify --cluster-signing-{cert,key}-file and other \
                            --cluster-signing-*-file flags at the same time"
                    .to_owned());
            }
            (Some(certificate), Some(key)) => {
                let pair = Pair { certificate: certificate.clone(), key: key.clone() };
                pairs.extend(own.map(|(signer, ..)| (signer, pair.clone())));
            }
            // Half a pair signs nothing, and is no mistake to upstream.
            _ => {}
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        signing: Signing,
    }

    /// `signer=certificate+key` for each that signs.
    fn pairs(flags: &[&str]) -> Result<String, String> {
        let only = Only::try_parse_from([&["test"], flags].concat()).expect("flags are known");
        let pairs = only.signing.pairs()?;
        let text = pairs.iter().map(|(signer, pair)| {
            let signer = signer.trim_start_matches("kubernetes.io/");
            format!("{signer}={}+{}", pair.certificate.display(), pair.key.display())
        });
        Ok(text.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_signer_has_its_own_or_all_have_the_same() {
        for (flags, expected) in [
            (&[][..], Ok("")),
            (
                &["--cluster-signing-cert-file=c", "--cluster-signing-key-file=k"],
                Ok(
                    "kube-apiserver-client=c+k kube-apiserver-client-kubelet=c+k kubelet-serving=c+k legacy-unknown=c+k",
                ),
            ),
            (&["--cluster-signing-cert-file=c"], Ok("")),
            (
                &[
                    "--cluster-signing-kubelet-serving-cert-file=sc",
                    "--cluster-signing-kubelet-serving-key-file=sk",
                    "--cluster-signing-kubelet-client-cert-file=kc",
                    "--cluster-signing-kubelet-client-key-file=kk",
                ],
                Ok("kube-apiserver-client-kubelet=kc+kk kubelet-serving=sc+sk"),
            ),
            (
                &[
                    "--cluster-signing-kube-apiserver-client-cert-file=ac",
                    "--cluster-signing-kube-apiserver-client-key-file=ak",
                    "--cluster-signing-legacy-unknown-cert-file=lc",
                    "--cluster-signing-legacy-unknown-key-file=lk",
                ],
                Ok("kube-apiserver-client=ac+ak legacy-unknown=lc+lk"),
            ),
            (
                &["--cluster-signing-kubelet-serving-key-file=k"],
                Err("\"cluster-signing-kubelet-serving\": cannot specify key without cert"),
            ),
            (
                &["--cluster-signing-kubelet-client-cert-file=c"],
                Err("\"cluster-signing-kube-apiserver-client\": cannot specify cert without key"),
            ),
            (
                &["--cluster-signing-kube-apiserver-client-cert-file=c"],
                Err("\"cluster-signing-kube-apiserver\": cannot specify cert without key"),
            ),
            (
                &["--cluster-signing-legacy-unknown-key-file=k"],
                Err("\"cluster-signing-legacy-unknown\": cannot specify key without cert"),
            ),
            (
                &[
                    "--cluster-signing-key-file=k",
                    "--cluster-signing-legacy-unknown-cert-file=c",
                    "--cluster-signing-legacy-unknown-key-file=k",
                ],
                Err(
                    "cannot specify --cluster-signing-{cert,key}-file and other --cluster-signing-*-file flags at \
                     the same time",
                ),
            ),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(pairs(flags), expected, "{flags:?}");
        }
    }
}
