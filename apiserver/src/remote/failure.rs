//! What went wrong on the way to another server, in the words of Go's `net`, `crypto/tls` and `net/http`: these end up
//! in messages that users see and search for.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use rustls::CertificateError;
use rustls::pki_types::ServerName;

use super::resolve::Unresolved;

/// Why no connection was opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The Service leads nowhere.
    #[error("{0}")]
    Resolve(Unresolved),
    /// There is no such host.
    #[error("look up {host}")]
    Lookup {
        /// Its name.
        host: String,
    },
    /// Nobody answers there.
    #[error("connect to {address}")]
    Connect {
        /// Address and port.
        address: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Nobody listens at the socket of a proxy.
    #[error("connect to {path}")]
    Unix {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The proxy is not believed, or does not believe.
    #[error("speak TLS to the proxy")]
    Tls(#[source] io::Error),
    /// The proxy leads nowhere.
    #[error("{0}")]
    Proxy(String),
}

impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        let kind = match &error {
            DialError::Connect { source, .. } | DialError::Unix { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl DialError {
    /// An address at which nobody answers.
    #[must_use]
    pub fn connect(address: String, source: io::Error) -> Self {
        Self::Connect { address, source }
    }

    fn describe(&self) -> String {
        match self {
            Self::Resolve(why) => why.to_string(),
            Self::Lookup { host } => format!("dial tcp: lookup {host}: no such host"),
            Self::Connect { address, source } => format!("dial tcp {address}: {}", connect_failure(source)),
            Self::Unix { path, source } => {
                format!("dial unix {}: {}", path.display(), connect_failure(source))
            }
            Self::Tls(source) => describe(source),
            Self::Proxy(why) => why.clone(),
        }
    }
}

fn connect_failure(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::NotFound => "connect: no such file or directory".to_owned(),
        _ => format!("connect: {error}"),
    }
}

/// What went wrong with a request.
#[must_use]
pub fn describe(error: &(dyn StdError + 'static)) -> String {
    let mut next = Some(error);
    while let Some(cause) = next {
        next = cause.source();
        if let Some(dial) = cause.downcast_ref::<DialError>() {
            return dial.describe();
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return tls_failure(tls);
        }
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return "EOF".to_owned();
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            match (io.get_ref(), io.kind()) {
                // What an I/O error wraps is not among its sources.
                (Some(inner), _) => next = Some(inner),
                (_, io::ErrorKind::UnexpectedEof) => return "EOF".to_owned(),
                (_, io::ErrorKind::ConnectionReset) => return "read: connection reset by peer".to_owned(),
                _ => {}
            }
        }
    }
    client::chain(error)
}

fn tls_failure(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => {
            format!("tls: failed to verify certificate: x509: {}", certificate_failure(error))
        }
        rustls::Error::InvalidMessage(_) => "http: server gave HTTP response to HTTPS client".to_owned(),
        rustls::Error::AlertReceived(alert) => format!("remote error: tls: {}", alert_text(*alert)),
        other => format!("tls: {other}"),
    }
}

fn alert_text(alert: rustls::AlertDescription) -> String {
    match alert {
        rustls::AlertDescription::HandshakeFailure => "handshake failure".to_owned(),
        rustls::AlertDescription::BadCertificate => "bad certificate".to_owned(),
        rustls::AlertDescription::CertificateRequired => "certificate required".to_owned(),
        rustls::AlertDescription::UnknownCA => "unknown certificate authority".to_owned(),
        rustls::AlertDescription::UnrecognisedName => "unrecognized name".to_owned(),
        rustls::AlertDescription::InternalError => "internal error".to_owned(),
        other => format!("{other:?}"),
    }
}

fn certificate_failure(error: &CertificateError) -> String {
    match error {
        // An authority of the same name, but with another key, is unknown, too.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired
        | CertificateError::NotValidYet
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYetContext { .. } => {
            format!("certificate has expired or is not yet valid{}", time_failure(error))
        }
        CertificateError::NotValidForNameContext { expected, presented } => name_failure(expected, presented),
        CertificateError::NotValidForName => "certificate is not valid for this name".to_owned(),
        other => other.to_string(),
    }
}

fn time_failure(error: &CertificateError) -> String {
    let shown = |time: &rustls::pki_types::UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    };
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            format!(": current time {} is after {}", shown(time), shown(not_after))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!(": current time {} is before {}", shown(time), shown(not_before))
        }
        _ => String::new(),
    }
}

/// As Go's `x509.HostnameError`.
fn name_failure(expected: &ServerName<'_>, presented: &[String]) -> String {
    let of_kind = |kind: &str| -> Vec<&str> {
        let found = presented.iter().filter_map(|name| name.strip_prefix(kind));
        found.map(|text| text.trim_matches(['(', ')', '"'])).collect()
    };
    let (wanted, valid, is_address) = match expected {
        ServerName::IpAddress(address) => {
            (std::net::IpAddr::from(*address).to_string(), of_kind("IpAddress"), true)
        }
        other => (other.to_str().into_owned(), of_kind("DnsName"), false),
    };
    match (valid.is_empty(), is_address) {
        (true, true) => {
            format!("cannot validate certificate for {wanted} because it doesn't contain any IP SANs")
        }
        (true, false) => format!("certificate is not valid for any names, but wanted to match {wanted}"),
        _ => format!("certificate is valid for {}, not {wanted}", valid.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_gos_words() {
        let name = ServerName::try_from("hook.ns.svc").expect("a name");
        let address = ServerName::try_from("10.0.0.1").expect("an address");
        let invalid = |expected: &ServerName<'static>, presented: &[&str]| {
            let presented = presented.iter().map(|name| (*name).to_owned()).collect();
            let expected = expected.clone();
            rustls::Error::from(CertificateError::NotValidForNameContext { expected, presented })
        };
        for (error, expected) in [
            (
                invalid(&name, &["DnsName(\"a.b\")", "DnsName(\"c\")", "IpAddress(10.0.0.1)"]),
                "certificate is valid for a.b, c, not hook.ns.svc",
            ),
            (invalid(&name, &[]), "certificate is not valid for any names, but wanted to match hook.ns.svc"),
            (
                invalid(&address, &["DnsName(\"a\")"]),
                "cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs",
            ),
            (CertificateError::UnknownIssuer.into(), "certificate signed by unknown authority"),
            (CertificateError::BadSignature.into(), "certificate signed by unknown authority"),
        ] {
            let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
            let expected = format!("tls: failed to verify certificate: x509: {expected}");
            assert_eq!(describe(&wrapped), expected);
        }
        let refused = DialError::connect("[fd00::1]:443".to_owned(), io::Error::from_raw_os_error(111));
        assert_eq!(describe(&refused), "dial tcp [fd00::1]:443: connect: connection refused");
        let unknown = DialError::Lookup { host: "x".to_owned() };
        assert_eq!(describe(&unknown), "dial tcp: lookup x: no such host");
    }
}
