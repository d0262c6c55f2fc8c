//! Which volume suits a claim. As upstream's component-helpers/storage/volume and persistentvolume/index.go.

use super::claims::{
    access_modes, capacity, claim_ref, class_of_claim, class_of_volume, key_of, requested, uid_of,
    volume_phase,
};
use crate::common::{Selector, meta};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whether a volume is bound to a claim or kept for it, by name and, if it says so, by UID.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| {
        key_of(reference) == meta::key(&claim.metadata)
            && (uid_of(reference).is_empty() || uid_of(reference) == meta::uid(&claim.metadata))
    })
}

/// Whether one is a file system and the other a block device.
pub fn modes_differ(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    let of_claim = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    of_volume.unwrap_or("Filesystem") != of_claim.unwrap_or("Filesystem")
}

fn attributes_differ(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let of_claim = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    of_volume.unwrap_or_default() != of_claim.unwrap_or_default()
}

/// Whether a volume can be used in all ways that a claim asks for.
fn allows_access(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    wanted.iter().all(|mode| access_modes(volume).contains(mode))
}

/// Why a claim cannot have the volume it names. As upstream's checkVolumeSatisfyClaim.
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    if meta::is_deleting(&volume.metadata) {
        return Some(format!("the volume is marked for deletion \"{}\"", meta::name(&volume.metadata)));
    }
    let wrong = if capacity(volume).value() < requested(claim).value() {
        "requested PV is too small"
    } else if class_of_volume(volume) != class_of_claim(claim) {
        "storageClassName does not match"
    } else if attributes_differ(volume, claim) {
        "volumeAttributesClassName does not match"
    } else if modes_differ(volume, claim) {
        "incompatible volumeMode"
    } else if !allows_access(volume, claim) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(wrong.to_owned())
}

/// The best volume for a claim that names none: among volumes with the fewest ways of access that are enough, one
/// that is kept for the claim, else the smallest. Of a claim whose binding waits, only one that is kept for it.
/// The error is a selector that cannot be read.
pub fn best_match(
    claim: &PersistentVolumeClaim,
    volumes: Vec<Arc<PersistentVolume>>,
    waits: bool,
) -> Result<Option<Arc<PersistentVolume>>, String> {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = selector.map(|selector| Selector::from_meta(Some(selector))).transpose()?;
    let mut by_modes: BTreeMap<(usize, Vec<String>), Vec<Arc<PersistentVolume>>> = BTreeMap::new();
    for volume in volumes.into_iter().filter(|volume| allows_access(volume, claim)) {
        let mut modes = access_modes(&volume).to_vec();
        modes.sort();
        modes.dedup();
        by_modes.entry((modes.len(), modes)).or_default().push(volume);
    }
    let smallest = |volumes: Vec<Arc<PersistentVolume>>| {
        let mut best: Option<Arc<PersistentVolume>> = None;
        for volume in volumes.into_iter().filter(|volume| could_hold(volume, claim)) {
            if is_bound_to(&volume, claim) {
                return Some(volume);
            }
            let smaller = best.as_ref().is_none_or(|best| capacity(&volume) < capacity(best));
            if !waits && smaller && is_free_for(&volume, claim, selector.as_ref()) {
                best = Some(volume);
            }
        }
        best
    };
    Ok(by_modes.into_values().find_map(smallest))
}

/// Whether a volume could hold the claim, as far as that does not depend on whether it is kept for it.
fn could_hold(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    (claim_ref(volume).is_none() || is_bound_to(volume, claim))
        && capacity(volume) >= requested(claim)
        && !modes_differ(volume, claim)
        && !attributes_differ(volume, claim)
        && !meta::is_deleting(&volume.metadata)
}

fn is_free_for(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
    selector: Option<&Selector>,
) -> bool {
    volume_phase(volume) == "Available"
        && selector.is_none_or(|selector| selector.matches(meta::labels(&volume.metadata)))
        && class_of_volume(volume) == class_of_claim(claim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn volume(name: &str, size: &str, modes: &[&str], more: Value) -> Arc<PersistentVolume> {
        let mut volume = json!({
            "metadata": { "name": name },
            "spec": { "capacity": { "storage": size }, "accessModes": modes },
            "status": { "phase": "Available" },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            volume["spec"][key] = value.clone();
        }
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    fn claim(size: &str, modes: &[&str], more: Value) -> PersistentVolumeClaim {
        let mut claim = json!({
            "metadata": { "name": "c", "namespace": "ns", "uid": "u" },
            "spec": { "resources": { "requests": { "storage": size } }, "accessModes": modes },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            claim["spec"][key] = value.clone();
        }
        serde_json::from_value(claim).unwrap()
    }

    fn all() -> Vec<Arc<PersistentVolume>> {
        let (once, many, read) = ("ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany");
        let kept = |uid: &str| json!({ "claimRef": { "name": "c", "namespace": "ns", "uid": uid } });
        vec![
            volume("once-8", "8G", &[once, read], json!({})),
            volume("once-5", "5G", &[once, read], json!({})),
            volume("once-10", "10G", &[once, read], json!({})),
            volume("many-1", "1G", &[once, many, read], json!({})),
            volume("many-3", "3G", &[once, many, read], json!({})),
            volume("block", "1G", &[once], json!({ "volumeMode": "Block" })),
            volume("gold", "1G", &[once], json!({ "storageClassName": "gold" })),
            volume("kept", "20G", &[once, read], kept("u")),
            volume("others", "1G", &[once], kept("other")),
        ]
    }

    #[test]
    fn smallest_with_the_fewest_modes_that_are_enough() {
        let without = |name: &'static str| {
            let keep = move |volume: &Arc<PersistentVolume>| meta::name(&volume.metadata) != name;
            all().into_iter().filter(keep).collect::<Vec<_>>()
        };
        let once = &["ReadWriteOnce"][..];
        for (volumes, claim, waits, expected) in [
            (without("kept"), claim("4G", once, json!({})), false, Some("once-5")),
            (without("kept"), claim("6G", once, json!({})), false, Some("once-8")),
            (without("kept"), claim("1G", &["ReadWriteMany"], json!({})), false, Some("many-1")),
            (without("kept"), claim("2G", &["ReadWriteMany"], json!({})), false, Some("many-3")),
            (without("kept"), claim("11G", once, json!({})), false, None),
            (without("kept"), claim("1G", &["ReadWriteOncePod"], json!({})), false, None),
            (without("kept"), claim("1G", once, json!({ "volumeMode": "Block" })), false, Some("block")),
            (without("kept"), claim("1G", once, json!({ "storageClassName": "gold" })), false, Some("gold")),
            (without("kept"), claim("1G", once, json!({})), true, None),
            (all(), claim("1G", once, json!({})), false, Some("kept")),
            (all(), claim("1G", once, json!({})), true, Some("kept")),
            (all(), claim("1G", once, json!({ "volumeAttributesClassName": "fast" })), false, None),
        ] {
            let best = best_match(&claim, volumes, waits).unwrap();
            let name = best.as_ref().map(|volume| meta::name(&volume.metadata));
            assert_eq!(name, expected, "{:?}", claim.spec);
        }
    }

    #[test]
    fn a_named_volume_has_to_fit() {
        let claim = claim("2G", &["ReadWriteOnce"], json!({}));
        let once = &["ReadWriteOnce"][..];
        for (volume, expected) in [
            (volume("v", "2G", once, json!({})), None),
            (volume("v", "1G", once, json!({})), Some("requested PV is too small")),
            (
                volume("v", "2G", once, json!({ "storageClassName": "a" })),
                Some("storageClassName does not match"),
            ),
            (
                volume("v", "2G", once, json!({ "volumeAttributesClassName": "a" })),
                Some("volumeAttributesClassName does not match"),
            ),
            (volume("v", "2G", once, json!({ "volumeMode": "Block" })), Some("incompatible volumeMode")),
            (volume("v", "2G", &["ReadOnlyMany"], json!({})), Some("incompatible accessMode")),
        ] {
            assert_eq!(mismatch(&volume, &claim).as_deref(), expected);
        }
    }
}
