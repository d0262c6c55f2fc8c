//! Fingerprints of containers and of the state that a backoff belongs to.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::types;

/// FNV-1a, 64 bits: stable over versions of this program, unlike the standard library's hashers.
fn fnv(parts: &[&[u8]]) -> u64 {
    parts
        .iter()
        .flat_map(|p| p.iter().chain(std::iter::once(&0)))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Fingerprint of what makes a container another container. As upstream's `pickFieldsToHash`: name and image only,
/// so that fields defaulted by a newer API restart nothing.
#[must_use]
pub fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    format!("{:x}", fnv(&[container.name.as_bytes(), image.as_bytes()]))
}

/// What a container's backoff is kept under; changes when its image or limits do.
#[must_use]
pub fn backoff_key(pod: &Pod, container: &Container) -> String {
    let resources = serde_json::to_vec(&container.resources).unwrap_or_default();
    let hash = fnv(&[
        types::name(pod).as_bytes(),
        types::namespace(pod).as_bytes(),
        types::uid(pod).as_bytes(),
        container.name.as_bytes(),
        container.image.as_deref().unwrap_or_default().as_bytes(),
        &resources,
    ]);
    format!("{hash:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_and_image_make_another_container() {
        let base = Container { name: "a".into(), image: Some("i".into()), ..Default::default() };
        let same = Container { tty: Some(true), ..base.clone() };
        let other = Container { image: Some("j".into()), ..base.clone() };
        let shifted = Container { name: "ai".into(), image: Some(String::new()), ..base.clone() };
        assert_eq!(container_hash(&base), container_hash(&same));
        assert_ne!(container_hash(&base), container_hash(&other));
        assert_ne!(container_hash(&base), container_hash(&shifted));
    }
}
