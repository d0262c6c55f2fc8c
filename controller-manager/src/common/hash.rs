//! Hashes that name things: FNV-1a over 32 bits, written with letters that spell no words.
//!
//! Upstream hashes Go's dump of the struct; here the object's JSON is hashed, whose field order is fixed. The values
//! differ from upstream's, which nothing depends on: hashes are compared only with hashes of the same maker, and
//! collisions are resolved by counting.

use serde::Serialize;

const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a, 32 bits.
pub fn fnv32a(bytes: &[u8]) -> u32 {
    fnv32a_continue(0x811c_9dc5, bytes)
}

fn fnv32a_continue(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Writes a string with the letters that generated names use, so that no bad words arise.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()] as char).collect()
}

/// The hash of a pod template (or any other part of a spec), made different by `collision_count`.
pub fn template_hash(template: &impl Serialize, collision_count: Option<i32>) -> String {
    let json = serde_json::to_vec(template).expect("API types always encode");
    let mut hash = fnv32a(&json);
    if let Some(count) = collision_count {
        hash = fnv32a_continue(hash, &count.to_le_bytes());
    }
    safe_encode(&hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_has_the_published_values() {
        for (text, hash) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(fnv32a(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn collision_count_changes_the_hash_and_nothing_else_does() {
        let template = serde_json::json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(template_hash(&template, None), template_hash(&template.clone(), None));
        assert_ne!(template_hash(&template, None), template_hash(&template, Some(0)));
        assert_ne!(template_hash(&template, Some(1)), template_hash(&template, Some(2)));
        assert!(template_hash(&template, None).bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
