//! The ciphers that values are stored with, in the very form that upstream stores them (`storage/value/encrypt`).

use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand;
use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};

/// Why a value could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is shorter than what every value has.
    #[error("the stored data was shorter than the required size")]
    TooShort,
    /// It was not written with this key, not for this place, or it was changed since.
    #[error("message authentication failed")]
    Refused,
    /// There is no randomness, or the key is no key.
    #[error("the value could not be encrypted")]
    Failed,
}

/// Bytes of an initialization vector, and of a block, of AES.
const BLOCK: usize = 16;
const SECRETBOX_NONCE: usize = 24;
const SECRETBOX_TAG: usize = 16;
/// The length of seeds, of what is mixed into them, and of keys made of them.
pub const SEED: usize = 32;

/// A cipher with its key.
pub enum Cipher {
    /// Galois counter mode; the place of the value is authenticated.
    Gcm(Gcm),
    /// Cipher block chaining, which finds out changes only by chance.
    Cbc(Box<Cbc>),
    /// NaCl's secret box.
    Secretbox(Box<XSalsa20Poly1305>),
}

impl Cipher {
    /// Makes what is stored of `plain` at `path`.
    pub fn seal(&self, plain: &[u8], path: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Self::Gcm(gcm) => gcm.seal(plain, path),
            Self::Cbc(cbc) => cbc.seal(plain),
            Self::Secretbox(secretbox) => seal_box(secretbox, plain),
        }
    }

    /// Reads what is stored at `path`.
    pub fn open(&self, stored: &[u8], path: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Self::Gcm(gcm) => gcm.open(stored, path),
            Self::Cbc(cbc) => cbc.open(stored),
            Self::Secretbox(secretbox) => open_box(secretbox, stored),
        }
    }

    /// A secret box with this key of 32 bytes.
    #[must_use]
    pub fn secretbox(key: &[u8]) -> Option<Self> {
        let key: [u8; 32] = key.try_into().ok()?;
        Some(Self::Secretbox(Box::new(XSalsa20Poly1305::new(&key.into()))))
    }
}

/// AES-GCM.
pub struct Gcm(LessSafeKey);

impl Gcm {
    /// With a key of 16, 24 or 32 bytes.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Self> {
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        Some(Self(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?)))
    }

    /// A nonce, then what is encrypted, then its tag.
    pub fn seal(&self, plain: &[u8], path: &[u8]) -> Result<Vec<u8>, Error> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = plain.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(path), &mut sealed)
            .map_err(|_| Error::Failed)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Reads what [`Gcm::seal`] has made.
    pub fn open(&self, stored: &[u8], path: &[u8]) -> Result<Vec<u8>, Error> {
        let (nonce, sealed) = stored.split_first_chunk::<NONCE_LEN>().ok_or(Error::TooShort)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length =
            self.0.open_in_place(nonce, Aad::from(path), &mut opened).map_err(|_| Error::Refused)?.len();
        opened.truncate(length);
        Ok(opened)
    }
}

/// AES-CBC with padding.
pub struct Cbc {
    seal: PaddedBlockEncryptingKey,
    open: PaddedBlockDecryptingKey,
}

impl Cbc {
    /// With a key of 16, 24 or 32 bytes.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Self> {
        let algorithm = match key.len() {
            16 => &AES_128,
            24 => &AES_192,
            32 => &AES_256,
            _ => return None,
        };
        let unbound = || UnboundCipherKey::new(algorithm, key).ok();
        let seal = PaddedBlockEncryptingKey::cbc_pkcs7(unbound()?).ok()?;
        Some(Self { seal, open: PaddedBlockDecryptingKey::cbc_pkcs7(unbound()?).ok()? })
    }

    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let vector: [u8; BLOCK] = random()?;
        let mut sealed = plain.to_vec();
        let context = EncryptionContext::Iv128(FixedLength::from(vector));
        self.seal.less_safe_encrypt(&mut sealed, context).map_err(|_| Error::Failed)?;
        Ok([&vector[..], &sealed].concat())
    }

    fn open(&self, stored: &[u8]) -> Result<Vec<u8>, Error> {
        let (vector, sealed) = stored.split_first_chunk::<BLOCK>().ok_or(Error::TooShort)?;
        let mut opened = sealed.to_vec();
        let context = DecryptionContext::Iv128(FixedLength::from(*vector));
        let length = self.open.decrypt(&mut opened, context).map_err(|_| Error::Refused)?.len();
        opened.truncate(length);
        Ok(opened)
    }
}

fn seal_box(secretbox: &XSalsa20Poly1305, plain: &[u8]) -> Result<Vec<u8>, Error> {
    let nonce: [u8; SECRETBOX_NONCE] = random()?;
    let mut sealed = plain.to_vec();
    let tag =
        secretbox.encrypt_in_place_detached(&nonce.into(), &[], &mut sealed).map_err(|_| Error::Failed)?;
    Ok([&nonce[..], tag.as_slice(), &sealed].concat())
}

fn open_box(secretbox: &XSalsa20Poly1305, stored: &[u8]) -> Result<Vec<u8>, Error> {
    let (nonce, rest) = stored.split_first_chunk::<SECRETBOX_NONCE>().ok_or(Error::TooShort)?;
    let (tag, sealed) = rest.split_first_chunk::<SECRETBOX_TAG>().ok_or(Error::TooShort)?;
    let mut opened = sealed.to_vec();
    secretbox
        .decrypt_in_place_detached(&(*nonce).into(), &[], &mut opened, &(*tag).into())
        .map_err(|_| Error::Refused)?;
    Ok(opened)
}

/// A seed that each value gets a key of its own from (upstream `NewHKDFExtendedNonceGCMTransformer`): what the key is
/// made with is put before the value.
pub struct Seed([u8; SEED]);

impl Seed {
    /// A new one.
    pub fn random() -> Result<Self, Error> {
        Ok(Self(random()?))
    }

    /// One that was made before; `None` if it has not the length that all seeds have.
    #[must_use]
    pub fn new(seed: &[u8]) -> Option<Self> {
        Some(Self(seed.try_into().ok()?))
    }

    /// For whoever is to encrypt it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes what is stored of `plain` at `path`.
    pub fn seal(&self, plain: &[u8], path: &[u8]) -> Result<Vec<u8>, Error> {
        let info: [u8; SEED] = random()?;
        let sealed = self.key(&info)?.seal(plain, path)?;
        Ok([&info[..], &sealed].concat())
    }

    /// Reads what is stored at `path`.
    pub fn open(&self, stored: &[u8], path: &[u8]) -> Result<Vec<u8>, Error> {
        let (info, sealed) = stored.split_first_chunk::<SEED>().ok_or(Error::TooShort)?;
        self.key(info)?.open(sealed, path)
    }

    fn key(&self, info: &[u8; SEED]) -> Result<Gcm, Error> {
        let mut key = [0; SEED];
        let seed = Prk::new_less_safe(HKDF_SHA256, &self.0);
        let info = [&info[..]];
        seed.expand(&info, HKDF_SHA256).and_then(|made| made.fill(&mut key)).map_err(|_| Error::Failed)?;
        Gcm::new(&key).ok_or(Error::Failed)
    }
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Error::Failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(key: &[u8]) -> Vec<(&'static str, Cipher)> {
        let mut all = vec![
            ("aesgcm", Cipher::Gcm(Gcm::new(key).expect("a key"))),
            ("aescbc", Cipher::Cbc(Box::new(Cbc::new(key).expect("a key")))),
        ];
        all.extend(Cipher::secretbox(key).map(|cipher| ("secretbox", cipher)));
        all
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        for size in [16, 24, 32] {
            for (name, cipher) in all(&vec![7; size]) {
                for length in [0, 1, 15, 16, 17, 4096] {
                    let plain = vec![b'x'; length];
                    let stored = cipher.seal(&plain, b"/registry/secrets/a/b").expect("encrypted");
                    assert_eq!(cipher.open(&stored, b"/registry/secrets/a/b"), Ok(plain), "{name} {length}");
                }
            }
        }
        assert!(Gcm::new(&[1; 17]).is_none() && Cbc::new(&[1; 17]).is_none());
        assert!(Cipher::secretbox(&[1; 16]).is_none());
    }

    #[test]
    fn what_was_changed_or_moved_is_refused() {
        for (name, cipher) in all(&[3; 32]) {
            let stored = cipher.seal(b"a secret", b"here").expect("encrypted");
            let binds = name == "aesgcm";
            assert_eq!(cipher.open(&stored, b"there").is_err(), binds, "{name} binds the place");
            if name != "aescbc" {
                for i in 0..stored.len() {
                    let mut changed = stored.clone();
                    changed[i] ^= 1;
                    assert_eq!(cipher.open(&changed, b"here"), Err(Error::Refused), "{name} at {i}");
                }
            }
            assert!(cipher.open(&stored[..5], b"here").is_err(), "{name}");
            let other = all(&[4; 32]).into_iter().find(|(other, _)| *other == name).expect("the same").1;
            assert!(other.open(&stored, b"here").is_err(), "{name} with another key");
        }
    }

    #[test]
    fn each_value_has_a_key_of_its_own() {
        let seed = Seed::random().expect("a seed");
        let (a, b) = (seed.seal(b"v", b"p").expect("encrypted"), seed.seal(b"v", b"p").expect("encrypted"));
        assert_ne!(a[..SEED], b[..SEED]);
        let again = Seed::new(seed.bytes()).expect("a seed");
        assert_eq!(again.open(&a, b"p"), Ok(b"v".to_vec()));
        assert_eq!(again.open(&a, b"q"), Err(Error::Refused));
        let mut mixed = a.clone();
        mixed[..SEED].copy_from_slice(&b[..SEED]);
        assert_eq!(again.open(&mixed, b"p"), Err(Error::Refused));
    }

    // Test vector 1 of RFC 5869 from its pseudorandom key on: the same keys come of the same seeds as elsewhere.
    #[test]
    fn keys_are_derived_as_everywhere() {
        let prk = "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5";
        let mut made = [0; 32];
        let seed = Prk::new_less_safe(HKDF_SHA256, &bytes(prk));
        let info = bytes("f0f1f2f3f4f5f6f7f8f9");
        seed.expand(&[info.as_slice()], HKDF_SHA256).and_then(|key| key.fill(&mut made)).expect("a key");
        let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf";
        assert_eq!(made.to_vec(), bytes(expected));
    }

    // The example of NaCl's own tests.
    #[test]
    fn boxes_are_those_of_nacl() {
        let key = bytes("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
        let plain = "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c6129\
            6cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977\
            eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705";
        let stored = "69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f4868\
            1273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe227\
            0d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e\
            88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5";
        let secretbox = Cipher::secretbox(&key).expect("a key");
        assert_eq!(secretbox.open(&bytes(stored), b"anywhere"), Ok(bytes(plain)));
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect()
    }
}
