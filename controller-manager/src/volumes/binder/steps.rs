//! What the binder wants written, in order, and the pure pieces of which a binding consists.
//!
//! A binding is four writes: the volume, its phase, the claim, its phase. After each of them a restart finds a state
//! from which the rest follows, so nothing has to be remembered.

use super::super::claims::{
    self, BETA_STORAGE_PROVISIONER, BIND_COMPLETED, BOUND_BY_CONTROLLER, MIGRATED_TO, PRE_RESIZE_CAPACITY,
    PROVISIONED_BY, STORAGE_PROVISIONER, annotate,
};
use super::super::in_tree;
use super::super::matching::is_bound_to;
use crate::common::meta;
use client::events::reference;
use client::{EventType, ObjectKey};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

const IN_TREE_FINALIZER: &str = "kubernetes.io/pv-controller";
const EXTERNAL_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write the volume.
    Volume(Box<PersistentVolume>),
    /// Write the status of the volume.
    VolumeStatus(Box<PersistentVolume>),
    /// Write the claim.
    Claim(Box<PersistentVolumeClaim>),
    /// Write the status of the claim.
    ClaimStatus(Box<PersistentVolumeClaim>),
    /// Say something about the claim.
    ClaimEvent(EventType, &'static str, String),
    /// Say something about the volume.
    VolumeEvent(EventType, &'static str, String),
}

/// What is left to do after the steps.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing.
    Done,
    /// Empty or delete the volume.
    Reclaim,
    /// Look at this claim.
    Claim(ObjectKey),
    /// Try again later; why.
    Fail(String),
}

/// What is to be done about one object.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// After them.
    pub next: Next,
}

impl Plan {
    /// Just these steps.
    pub fn of(steps: Vec<Step>) -> Self {
        Self { steps, next: Next::Done }
    }
}

/// Binds the two to each other, as far as they are not.
pub fn bind(volume: PersistentVolume, claim: PersistentVolumeClaim) -> Vec<Step> {
    let mut steps = Vec::new();
    let volume = bind_volume(volume, &claim, &mut steps);
    let volume = set_volume_phase(volume, "Bound", "", &mut steps);
    let claim = bind_claim(claim, &volume, &mut steps);
    set_claim_status(claim, "Bound", Some(&volume), &mut steps);
    steps
}

fn bind_volume(
    mut volume: PersistentVolume,
    claim: &PersistentVolumeClaim,
    steps: &mut Vec<Step>,
) -> PersistentVolume {
    let ours = !is_bound_to(&volume, claim);
    let exact = claims::claim_ref(&volume).is_some_and(|held| {
        claims::key_of(held) == meta::key(&claim.metadata)
            && claims::uid_of(held) == meta::uid(&claim.metadata)
    });
    let unmarked = meta::annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_none();
    if !exact {
        volume.spec.get_or_insert_default().claim_ref = Some(reference(claim));
    }
    if ours && unmarked {
        annotate(&mut volume.metadata, BOUND_BY_CONTROLLER, "yes");
    }
    if !exact || (ours && unmarked) {
        steps.push(Step::Volume(Box::new(volume.clone())));
    }
    volume
}

fn bind_claim(
    mut claim: PersistentVolumeClaim,
    volume: &PersistentVolume,
    steps: &mut Vec<Step>,
) -> PersistentVolumeClaim {
    let name = meta::name(&volume.metadata);
    let mut dirty = false;
    if claims::volume_name(&claim) != name {
        claim.spec.get_or_insert_default().volume_name = Some(name.to_owned());
        if meta::annotation(&claim.metadata, BOUND_BY_CONTROLLER).is_none() {
            annotate(&mut claim.metadata, BOUND_BY_CONTROLLER, "yes");
        }
        dirty = true;
    }
    if meta::annotation(&claim.metadata, BIND_COMPLETED).is_none() {
        annotate(&mut claim.metadata, BIND_COMPLETED, "yes");
        dirty = true;
    }
    if dirty {
        steps.push(Step::Claim(Box::new(claim.clone())));
    }
    claim
}

/// Takes a volume back from the claim: all of the reference if the controller made it, else only the UID.
pub fn unbind(mut volume: PersistentVolume, steps: &mut Vec<Step>) {
    let by_controller = meta::annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some();
    let spec = volume.spec.get_or_insert_default();
    if by_controller {
        spec.claim_ref = None;
        let annotations = volume.metadata.annotations.get_or_insert_default();
        annotations.remove(BOUND_BY_CONTROLLER);
        if annotations.is_empty() {
            volume.metadata.annotations = None;
        }
    } else if let Some(reference) = spec.claim_ref.as_mut() {
        reference.uid = None;
    }
    steps.push(Step::Volume(Box::new(volume.clone())));
    set_volume_phase(volume, "Available", "", steps);
}

/// Gives a volume a phase, if it has another.
pub fn set_volume_phase(
    mut volume: PersistentVolume,
    phase: &str,
    message: &str,
    steps: &mut Vec<Step>,
) -> PersistentVolume {
    if claims::volume_phase(&volume) != phase {
        let status = volume.status.get_or_insert_default();
        status.phase = Some(phase.to_owned());
        status.message = (!message.is_empty()).then(|| message.to_owned());
        steps.push(Step::VolumeStatus(Box::new(volume.clone())));
    }
    volume
}

/// Marks a volume as failed and says why, once.
pub fn fail_volume(volume: PersistentVolume, reason: &'static str, message: &str, steps: &mut Vec<Step>) {
    if claims::volume_phase(&volume) != "Failed" {
        set_volume_phase(volume, "Failed", message, steps);
        steps.push(Step::VolumeEvent(EventType::Warning, reason, message.to_owned()));
    }
}

/// Gives a claim a phase and what it has from its volume.
pub fn set_claim_status(
    claim: PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
    steps: &mut Vec<Step>,
) {
    let old = claim.status.clone().unwrap_or_default();
    let mut new = old.clone();
    let enters = old.phase.as_deref() != Some(phase);
    new.phase = Some(phase.to_owned());
    if let Some(spec) = volume.map(|volume| volume.spec.clone().unwrap_or_default()) {
        new.access_modes = spec.access_modes;
        if enters {
            let held = claims::storage(old.capacity.as_ref());
            let pre_resize =
                volume.and_then(|volume| meta::annotation(&volume.metadata, PRE_RESIZE_CAPACITY));
            let amount = pre_resize.and_then(|text| api::quantity::Quantity::parse(text).ok());
            if let Some(amount) = amount {
                let amount = k8s_openapi::apimachinery::pkg::api::resource::Quantity(amount.to_string());
                new.capacity.get_or_insert_default().insert("storage".to_owned(), amount);
            } else if held != claims::storage(spec.capacity.as_ref()) || pre_resize.is_some() {
                new.capacity = spec.capacity;
            }
            if old.phase.as_deref() == Some("Pending") && phase == "Bound" {
                new.current_volume_attributes_class_name = spec.volume_attributes_class_name;
            }
        }
    } else {
        new.access_modes = None;
        new.capacity = None;
        new.current_volume_attributes_class_name = None;
    }
    if new != old {
        let claim = PersistentVolumeClaim { status: Some(new), ..claim };
        steps.push(Step::ClaimStatus(Box::new(claim)));
    }
}

/// Marks a claim as lost and says why, once.
pub fn lose_claim(claim: PersistentVolumeClaim, reason: &'static str, message: &str) -> Plan {
    let mut steps = Vec::new();
    if claims::claim_phase(&claim) != "Lost" {
        set_claim_status(claim, "Lost", None, &mut steps);
        steps.push(Step::ClaimEvent(EventType::Warning, reason, message.to_owned()));
    }
    Plan::of(steps)
}

/// Says on an object of which driver it is by now, or no longer says so. Whether that changes anything.
fn migrate(metadata: &mut ObjectMeta, provisioner: Option<&str>) -> bool {
    let Some(provisioner) = provisioner else { return false };
    let wanted = in_tree::driver_for(provisioner);
    let held = meta::annotation(metadata, MIGRATED_TO).filter(|driver| !driver.is_empty());
    if held == wanted {
        return false;
    }
    let annotations: &mut BTreeMap<_, _> = metadata.annotations.get_or_insert_default();
    match wanted {
        Some(driver) => annotations.insert(MIGRATED_TO.to_owned(), driver.to_owned()),
        None => annotations.remove(MIGRATED_TO),
    };
    true
}

/// The claim with the right word about its driver.
pub fn migrate_claim(mut claim: PersistentVolumeClaim, steps: &mut Vec<Step>) -> PersistentVolumeClaim {
    let annotation = |key| meta::annotation(&claim.metadata, key);
    let provisioner = annotation(STORAGE_PROVISIONER).or_else(|| annotation(BETA_STORAGE_PROVISIONER));
    let provisioner = provisioner.map(str::to_owned);
    if migrate(&mut claim.metadata, provisioner.as_deref()) {
        steps.push(Step::Claim(Box::new(claim.clone())));
    }
    claim
}

/// The volume with the right word about its driver, and with the finalizer of who deletes it.
pub fn migrate_volume(mut volume: PersistentVolume, steps: &mut Vec<Step>) -> PersistentVolume {
    let provisioner = meta::annotation(&volume.metadata, PROVISIONED_BY).map(str::to_owned);
    let migrated = migrate(&mut volume.metadata, provisioner.as_deref());
    let finalizers = finalizers(&volume, provisioner.as_deref());
    let changed = finalizers != meta::finalizers(&volume.metadata);
    if changed {
        volume.metadata.finalizers = Some(finalizers);
    }
    if migrated || changed {
        steps.push(Step::Volume(Box::new(volume.clone())));
    }
    volume
}

/// The finalizers that a volume should have. As upstream's modifyDeletionFinalizers.
fn finalizers(volume: &PersistentVolume, provisioner: Option<&str>) -> Vec<String> {
    let mut finalizers = meta::finalizers(&volume.metadata).to_vec();
    let Some(provisioner) = provisioner else { return finalizers };
    let ours = finalizers.iter().any(|held| held == IN_TREE_FINALIZER);
    if in_tree::driver_for(provisioner).is_some() {
        finalizers.retain(|held| held != IN_TREE_FINALIZER);
    } else if in_tree::is_reserved(provisioner) {
        match claims::reclaim_policy(volume) {
            "Delete" if !ours => finalizers.push(IN_TREE_FINALIZER.to_owned()),
            "Retain" | "Recycle" => finalizers.retain(|held| held != IN_TREE_FINALIZER),
            _ => {}
        }
        finalizers.retain(|held| held != EXTERNAL_FINALIZER);
    }
    finalizers
}

/// The volume without the finalizer that kept it until its data was deleted; `None` if it has none.
pub fn without_finalizer(volume: &PersistentVolume) -> Option<PersistentVolume> {
    let mut volume = volume.clone();
    let finalizers = volume.metadata.finalizers.as_mut()?;
    let before = finalizers.len();
    finalizers.retain(|held| held != IN_TREE_FINALIZER);
    (finalizers.len() < before).then_some(volume)
}
