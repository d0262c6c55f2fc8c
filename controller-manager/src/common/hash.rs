//! Hashes that name things: FNV over 32 bits, written with letters that spell no words.
//!
//! Of what a ControllerRevision of a StatefulSet holds, the hash is upstream's. Of templates upstream hashes Go's dump of
//! the struct; here the object's JSON is hashed, whose field order is fixed. Those values differ from upstream's, which
//! nothing depends on: hashes are compared only with hashes of the same maker, and collisions are resolved by counting.

use serde::Serialize;
use serde_json::Value;

const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a, 32 bits.
pub fn fnv32a(bytes: &[u8]) -> u32 {
    fnv32a_continue(0x811c_9dc5, bytes)
}

fn fnv32a_continue(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// FNV-1, 32 bits.
fn fnv32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte))
}

/// The hash of what a revision holds, made different by `collision_count` (upstream `HashControllerRevision`).
pub fn revision_hash(data: &Value, collision_count: i32) -> String {
    let mut text = String::new();
    write_as_go(data, &mut text);
    text.push_str(&collision_count.to_string());
    safe_encode(&fnv32(text.as_bytes()).to_string())
}

/// JSON as Go writes maps: keys in order, and nothing in texts that HTML would read.
fn write_as_go(value: &Value, out: &mut String) {
    const ESCAPED: [(char, &str); 5] = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    let separate = |at: usize, out: &mut String| {
        if at > 0 {
            out.push(',');
        }
    };
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                separate(at, out);
                write_as_go(&Value::from(key.as_str()), out);
                out.push(':');
                write_as_go(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                separate(at, out);
                write_as_go(item, out);
            }
            out.push(']');
        }
        Value::String(_) => {
            let text = value.to_string();
            for letter in text.chars() {
                match ESCAPED.iter().find(|(escaped, _)| *escaped == letter) {
                    Some((_, written)) => out.push_str(written),
                    None => out.push(letter),
                }
            }
        }
        other => out.push_str(&other.to_string()),
    }
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

    /// As upstream's v1.36 names the revisions of this StatefulSet.
    #[test]
    fn revisions_are_named_as_upstream_names_them() {
        let template = |image: &str| {
            serde_json::json!({"spec": {"template": {"spec": {"securityContext": {}, "terminationGracePeriodSeconds": 30,
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "containers": [{"name": "c", "image": image, "resources": {}, "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePolicy": "File", "terminationMessagePath": "/dev/termination-log"}]},
                "metadata": {"labels": {"app": "db"}}, "$patch": "replace"}}})
        };
        assert_eq!(revision_hash(&template("db:1"), 0), "76c49477cf");
        assert_eq!(revision_hash(&template("db:2"), 0), "6644cc7754");
        let mut text = String::new();
        write_as_go(&serde_json::json!({"b": ["<&>", 1.5, null], "a": true}), &mut text);
        assert_eq!(text, r#"{"a":true,"b":["\u003c\u0026\u003e",1.5,null]}"#);
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
