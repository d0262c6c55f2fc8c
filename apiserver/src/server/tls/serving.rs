//! The certificates that the server shows: one for each name that clients ask for, or the default one (upstream
//! `dynamiccertificates/named_certificates.go`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use client::tls::provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::read_certificates;

/// A certificate for names that clients ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SniCert {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The names, perhaps with `*` for parts; those of the certificate if there are none.
    pub names: Vec<String>,
}

impl std::str::FromStr for SniCert {
    type Err = String;

    /// `certificate,key` or `certificate,key:name,name`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (files, names) = text.split_once(':').map_or((text, None), |(files, names)| (files, Some(names)));
        let names = match names.map(str::trim) {
            Some("") => return Err("empty names list is not allowed".to_owned()),
            Some(names) => names.split(',').map(|name| name.trim().to_owned()).collect(),
            None => Vec::new(),
        };
        match files.split(',').map(str::trim).collect::<Vec<_>>().as_slice() {
            [cert, key] => Ok(Self { cert: cert.into(), key: key.into(), names }),
            _ => Err("expected comma separated certificate and key file paths".to_owned()),
        }
    }
}

/// Certificates by name, and the one for all other names.
#[derive(Debug)]
pub(super) struct Certificates {
    usual: Arc<CertifiedKey>,
    named: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    pub(super) fn read(usual: &(PathBuf, PathBuf), sni: &[SniCert]) -> anyhow::Result<Self> {
        let mut named = HashMap::new();
        // Of two for one name the first one counts.
        for certificate in sni.iter().rev() {
            let read =
                read(&certificate.cert, &certificate.key).context("failed to load SNI cert and key")?;
            let names = match certificate.names.as_slice() {
                [] => names_of(&read),
                given => given.to_vec(),
            };
            named.extend(names.into_iter().map(|name| (name.to_lowercase(), Arc::clone(&read))));
        }
        Ok(Self { usual: read(&usual.0, &usual.1)?, named })
    }

    /// The one for a name: as it is, or with `*` for its first part, for its first two, and so on.
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.trim_end_matches('.').to_lowercase();
        if let Some(found) = self.named.get(&name) {
            return Some(found);
        }
        let mut parts: Vec<&str> = name.split('.').collect();
        (0..parts.len()).find_map(|i| {
            parts[i] = "*";
            self.named.get(&parts.join("."))
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.find(name));
        Some(Arc::clone(named.unwrap_or(&self.usual)))
    }
}

fn read(cert: &Path, key: &Path) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = read_certificates(cert)?;
    let key_der =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("read private key {}", key.display()))?;
    let certified = CertifiedKey::from_der(chain, key_der, &provider());
    Ok(Arc::new(certified.context("the serving certificate and its key do not fit")?))
}

/// The names in a certificate: its common name, and the alternatives.
fn names_of(certified: &CertifiedKey) -> Vec<String> {
    let Some(Ok((_, certificate))) = certified.cert.first().map(|leaf| X509Certificate::from_der(leaf))
    else {
        return Vec::new();
    };
    let subject = certificate.subject();
    let mut names: Vec<String> =
        subject.iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        names.extend(alternatives.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        }));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_name_files_and_names() {
        let parsed = |text: &str| text.parse::<SniCert>();
        let one = parsed("a.crt, a.key : x.y, *.z").expect("valid");
        assert_eq!(
            (one.cert.as_path(), one.names),
            (Path::new("a.crt"), vec!["x.y".to_owned(), "*.z".to_owned()])
        );
        assert_eq!(parsed("a,b").expect("valid").names, [""; 0]);
        assert_eq!(parsed("a,b:"), Err("empty names list is not allowed".to_owned()));
        for text in ["a", "a,b,c", "", ":x"] {
            let why = "expected comma separated certificate and key file paths";
            assert_eq!(parsed(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn names_are_found_with_and_without_stars() {
        let folder = tempfile::tempdir().expect("a folder");
        let make = |name: &str, names: &[&str]| {
            let alternatives: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(alternatives).expect("a certificate");
            let (cert, key) =
                (folder.path().join(format!("{name}.crt")), folder.path().join(format!("{name}.key")));
            std::fs::write(&cert, made.cert.pem()).expect("written");
            std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
            (cert, key)
        };
        let usual = make("usual", &["usual"]);
        let sni = |name: &str, own: &[&str], given: &[&str]| {
            let (cert, key) = make(name, own);
            SniCert { cert, key, names: given.iter().map(|name| (*name).to_owned()).collect() }
        };
        let all =
            [sni("a", &["a.example", "*.b.example"], &[]), sni("c", &["c"], &["a.example", "*.*.d.example"])];
        let certificates = Certificates::read(&usual, &all).expect("readable");
        let first = read(&all[0].cert, &all[0].key).expect("readable").cert[0].clone();
        let shown = |name: &str| certificates.find(name).map(|found| found.cert[0] == first);
        for (name, expected) in [
            ("a.example", Some(true)),
            ("A.Example.", Some(true)),
            ("x.b.example", Some(true)),
            ("x.y.d.example", Some(false)),
            ("y.d.example", None),
            ("other", None),
        ] {
            assert_eq!(shown(name), expected, "{name}");
        }
    }
}
