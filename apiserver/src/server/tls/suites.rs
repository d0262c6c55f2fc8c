//! Versions and suites of TLS under Go's names (upstream `component-base/cli/flag/ciphersuites_flag.go`).

use std::sync::Arc;

use client::tls::provider;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2; older ones are not spoken at all.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    pub(super) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            Self::Tls12 => &BOTH,
            Self::Tls13 => &BOTH[..1],
        }
    }
}

impl std::str::FromStr for Version {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => Ok(Self::Tls12),
            "VersionTLS13" => Ok(Self::Tls13),
            _ => Err(format!("unknown tls version {name:?}")),
        }
    }
}

/// The suites that are spoken: of TLS 1.2 those that are named, or all if none is; of TLS 1.3 all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suites(Vec<String>);

/// Those that there are.
const KNOWN: [(&str, SupportedCipherSuite); 8] = [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Those of TLS 1.3, which are always spoken.
const ALWAYS: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Those that upstream has, but that are too weak to be spoken here.
const WEAK: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

impl Suites {
    /// Those with these names.
    ///
    /// # Errors
    /// When one of them is not known.
    pub fn named(names: Vec<String>) -> Result<Self, String> {
        let known = |name: &str| KNOWN.iter().any(|(known, _)| *known == name) || ALWAYS.contains(&name);
        for name in names.iter().filter(|name| !known(name)) {
            if !WEAK.contains(&name.as_str()) {
                return Err(format!("Cipher suite {name} not supported or doesn't exist"));
            }
            tracing::warn!(suite = name, "a cipher suite is too weak, it is left out");
        }
        Ok(Self(names))
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        let whole = provider();
        if self.0.is_empty() {
            return whole;
        }
        let named = |one: &SupportedCipherSuite| {
            KNOWN.iter().any(|(name, known)| known == one && self.0.iter().any(|own| own == name))
        };
        let mut provider = CryptoProvider::clone(&whole);
        provider.cipher_suites.retain(|one| one.tls13().is_some() || named(one));
        Arc::new(provider)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_named_as_go_does() {
        let names = |names: &[&str]| Suites::named(names.iter().map(|name| (*name).to_owned()).collect());
        let spoken = |suites: &Suites| suites.provider().cipher_suites.len();
        let all = spoken(&Suites::default());
        let one =
            names(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_RC4_128_SHA"]).expect("known");
        assert_eq!((spoken(&one), all), (4, 9));
        let same =
            names(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"]);
        assert_eq!(spoken(&same.expect("known")), 4);
        assert_eq!(spoken(&names(&["TLS_AES_128_GCM_SHA256"]).expect("known")), 3);
        assert_eq!(names(&["foo"]), Err("Cipher suite foo not supported or doesn't exist".to_owned()));
        assert_eq!("VersionTLS13".parse(), Ok(Version::Tls13));
        assert_eq!("VersionTLS10".parse(), Ok(Version::Tls12));
        assert_eq!("TLS13".parse::<Version>(), Err("unknown tls version \"TLS13\"".to_owned()));
    }
}
