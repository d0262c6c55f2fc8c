//! Hashes that name things: FNV over 32 bits, written with letters that spell no words.
//!
//! The hashes are upstream's, so that what either has made is known to the other: of a StatefulSet's revision the JSON
//! is hashed, of the pod templates of Deployments and DaemonSets what Go prints of the struct (`dump`).

use super::dump;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;
use std::fmt;

const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a, 32 bits, of what is written to it.
struct Fnv32a(u32);

impl Fnv32a {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    }
}

impl fmt::Write for Fnv32a {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.update(text.as_bytes());
        Ok(())
    }
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

/// The hash of a pod template, made different by `collision_count` (upstream `ComputeHash`).
pub fn template_hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    let mut hash = Fnv32a::new();
    dump::template(template, &mut hash).expect("a hash takes everything");
    if let Some(count) = collision_count {
        // As upstream writes it: four bytes of a buffer of eight.
        hash.update(&count.to_le_bytes());
        hash.update(&[0; 4]);
    }
    safe_encode(&hash.0.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_has_the_published_values() {
        for (text, hash) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            let mut state = Fnv32a::new();
            state.update(text.as_bytes());
            assert_eq!(state.0, hash, "{text}");
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
}
