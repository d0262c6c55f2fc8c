//! An authority in files that may be replaced while this runs.

use super::authority::Authority;
use crate::options::Pair;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;

/// An authority as its files have it.
pub struct Files {
    pair: Pair,
    held: Mutex<Held>,
}

struct Held {
    certificate: String,
    key: String,
    authority: Arc<Authority>,
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

impl Held {
    fn read(pair: &Pair) -> Result<Self, String> {
        let (certificate, key) = (read(&pair.certificate)?, read(&pair.key)?);
        let authority = Authority::new(&certificate, &key)
            .map_err(|error| format!("{}: {error}", pair.certificate.display()))?;
        Ok(Self { certificate, key, authority: Arc::new(authority) })
    }
}

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// They are no authority.
    pub fn new(pair: &Pair) -> Result<Self, String> {
        Ok(Self { held: Mutex::new(Held::read(pair)?), pair: pair.clone() })
    }

    /// What they are now; what they were if they are no authority any more, as while they are replaced one after the
    /// other. Requests are few, so that there is no need to watch the files.
    pub fn current(&self) -> Arc<Authority> {
        let mut held = self.held.lock();
        let same = |path: &Path, text: &str| std::fs::read_to_string(path).is_ok_and(|now| now == text);
        if !same(&self.pair.certificate, &held.certificate) || !same(&self.pair.key, &held.key) {
            match Held::read(&self.pair) {
                Ok(new) => *held = new,
                Err(error) => tracing::warn!(error, "signing with the authority that was there before"),
            }
        }
        held.authority.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

    fn write(pair: &Pair, name: &str) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("self-signed").pem();
        std::fs::write(&pair.certificate, certificate).expect("written");
        std::fs::write(&pair.key, key.serialize_pem()).expect("written");
    }

    #[test]
    fn authority_is_what_the_files_are() {
        let directory = std::env::temp_dir().join(format!("signing-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).expect("a directory");
        let pair = Pair { certificate: directory.join("ca.crt"), key: directory.join("ca.key") };
        assert!(Files::new(&pair).is_err_and(|error| error.contains("ca.crt cannot be read")));
        write(&pair, "one");
        let files = Files::new(&pair).expect("an authority");
        let one = files.current();
        assert!(Arc::ptr_eq(&one, &files.current()), "it is read again only when it changes");
        std::fs::write(&pair.certificate, "half a file").expect("written");
        assert!(Arc::ptr_eq(&one, &files.current()), "what is broken is not taken");
        write(&pair, "two");
        assert!(!Arc::ptr_eq(&one, &files.current()));
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
