//! Decides what a claim and what a volume need. Pure: everything known comes through [`View`].

use super::super::claims::{
    self, BETA_STORAGE_PROVISIONER, BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY, SELECTED_NODE,
    STORAGE_PROVISIONER,
};
use super::super::in_tree;
use super::super::matching::{best_match, is_bound_to, mismatch, modes_differ};
use super::steps::{
    Next, Plan, Step, bind, lose_claim, migrate_claim, migrate_volume, set_claim_status, set_volume_phase,
    unbind,
};
use crate::common::meta;
use client::EventType::{Normal, Warning};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use std::sync::Arc;

/// What the binder knows of the cluster.
pub trait View {
    /// A volume by its name.
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
    /// Volumes that the claim might get: free ones of its class, and those kept for it.
    fn candidates(&self, claim: &PersistentVolumeClaim) -> Vec<Arc<PersistentVolume>>;
    /// A class by its name.
    fn class(&self, name: &str) -> Option<Arc<StorageClass>>;
    /// The class of claims that name none.
    fn default_class(&self) -> Option<Arc<StorageClass>>;
    /// The names of pods that name the claim and have no node.
    fn unscheduled_pods(&self, claim: &PersistentVolumeClaim) -> Vec<String>;
    /// Whether volumes may be made for claims.
    fn provisions(&self) -> bool;
}

/// What a claim needs.
pub fn claim(claim: &PersistentVolumeClaim, view: &impl View) -> Plan {
    let mut steps = Vec::new();
    let claim = migrate_claim(claim.clone(), &mut steps);
    let rest = if meta::annotation(&claim.metadata, BIND_COMPLETED).is_some() {
        bound_claim(claim, view)
    } else if claims::volume_name(&claim).is_empty() {
        unbound_claim(claim, view)
    } else {
        prebound_claim(claim, view)
    };
    steps.extend(rest.steps);
    Plan { steps, next: rest.next }
}

/// A claim that names no volume.
fn unbound_claim(claim: PersistentVolumeClaim, view: &impl View) -> Plan {
    let class = Some(claims::class_of_claim(&claim)).filter(|name| !name.is_empty());
    let class = class.and_then(|name| view.class(name));
    let waits = class.as_ref().is_some_and(|class| claims::waits_for_consumer(class));
    match best_match(&claim, view.candidates(&claim), waits) {
        Err(error) => {
            let next =
                Next::Fail(format!("error finding PV for claim \"{}\": {error}", meta::key(&claim.metadata)));
            return Plan { steps: Vec::new(), next };
        }
        Ok(Some(volume)) => return Plan::of(bind(volume.as_ref().clone(), claim)),
        Ok(None) => {}
    }
    if !claims::has_class(&claim)
        && let Some(default) = view.default_class()
    {
        let mut claim = claim;
        claim.spec.get_or_insert_default().storage_class_name = default.metadata.name.clone();
        return Plan::of(vec![Step::Claim(Box::new(claim))]);
    }
    let mut steps = Vec::new();
    if waits && meta::annotation(&claim.metadata, SELECTED_NODE).is_none() {
        steps.push(waiting(&view.unscheduled_pods(&claim)));
    } else if claims::class_of_claim(&claim).is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        steps.push(Step::ClaimEvent(Normal, "FailedBinding", message.to_owned()));
    } else if view.provisions() {
        return provision(claim, class.as_deref());
    } else {
        return Plan::of(steps);
    }
    set_claim_status(claim, "Pending", None, &mut steps);
    Plan::of(steps)
}

fn waiting(pods: &[String]) -> Step {
    let (reason, message) = match pods {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        many => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", many.join(","))),
    };
    Step::ClaimEvent(Normal, reason, message)
}

/// Asks whoever makes volumes of the class for one.
fn provision(mut claim: PersistentVolumeClaim, class: Option<&StorageClass>) -> Plan {
    let failed = |message: String| Step::ClaimEvent(Warning, "ProvisioningFailed", message);
    let Some(class) = class else {
        let name = claims::class_of_claim(&claim);
        return Plan::of(vec![failed(format!("storageclass.storage.k8s.io \"{name}\" not found"))]);
    };
    let plugin = class.provisioner.as_str();
    let migrated = in_tree::driver_for(plugin);
    let provisioner = migrated.unwrap_or(plugin);
    if in_tree::is_reserved(plugin) && migrated.is_none() && plugin != in_tree::HOST_PATH {
        return Plan::of(vec![failed(format!("no volume plugin matched name: {plugin}"))]);
    }
    let mut steps = Vec::new();
    if meta::annotation(&claim.metadata, STORAGE_PROVISIONER) != Some(provisioner) {
        claims::annotate(&mut claim.metadata, BETA_STORAGE_PROVISIONER, provisioner);
        claims::annotate(&mut claim.metadata, STORAGE_PROVISIONER, provisioner);
        steps.push(Step::Claim(Box::new(claim)));
    }
    steps.push(if plugin == in_tree::HOST_PATH {
        failed(format!("Failed to create provisioner: provisioning in volume plugin \"{plugin}\" is disabled"))
    } else {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually \
             by the system administrator. If volume creation is delayed, please verify that the provisioner is \
             running and correctly registered."
        );
        Step::ClaimEvent(Normal, "ExternalProvisioning", message)
    });
    Plan::of(steps)
}

/// A claim that names a volume and is not bound to it.
fn prebound_claim(claim: PersistentVolumeClaim, view: &impl View) -> Plan {
    let mut steps = Vec::new();
    let name = claims::volume_name(&claim).to_owned();
    let Some(volume) = view.volume(&name) else {
        set_claim_status(claim, "Pending", None, &mut steps);
        return Plan::of(steps);
    };
    if claims::claim_ref(&volume).is_none() {
        let Some(wrong) = mismatch(&volume, &claim) else {
            return Plan::of(bind(volume.as_ref().clone(), claim));
        };
        let message = format!("Cannot bind to requested volume \"{name}\": {wrong}");
        steps.push(Step::ClaimEvent(Warning, "VolumeMismatch", message));
        set_claim_status(claim, "Pending", None, &mut steps);
        return Plan::of(steps);
    }
    if is_bound_to(&volume, &claim) {
        return Plan::of(bind(volume.as_ref().clone(), claim));
    }
    let message = format!("volume \"{name}\" already bound to a different claim.");
    steps.push(Step::ClaimEvent(Warning, "FailedBinding", message));
    if meta::annotation(&claim.metadata, BOUND_BY_CONTROLLER).is_some() {
        let holder = claims::claim_ref(&volume).map(claims::key_of);
        let holder = holder.map(|key| key.to_string()).unwrap_or_default();
        let claim = meta::key(&claim.metadata);
        let next = Next::Fail(format!(
            "invalid binding of claim \"{claim}\" to volume \"{name}\": volume already claimed by \"{holder}\""
        ));
        return Plan { steps, next };
    }
    set_claim_status(claim, "Pending", None, &mut steps);
    Plan::of(steps)
}

/// A claim whose binding was completed once.
fn bound_claim(claim: PersistentVolumeClaim, view: &impl View) -> Plan {
    let name = claims::volume_name(&claim);
    if name.is_empty() {
        let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lose_claim(claim, "ClaimLost", message);
    }
    let Some(volume) = view.volume(name) else {
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return lose_claim(claim, "ClaimLost", message);
    };
    match claims::claim_ref(&volume) {
        Some(reference) if claims::uid_of(reference) != meta::uid(&claim.metadata) => {
            let message = "Two claims are bound to the same volume, this one is bound incorrectly";
            lose_claim(claim, "ClaimMisbound", message)
        }
        _ => Plan::of(bind(volume.as_ref().clone(), claim)),
    }
}

/// What a volume needs. `claim` is the claim that it is bound to, if that exists.
pub fn volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Plan {
    let mut steps = Vec::new();
    let volume = migrate_volume(volume.clone(), &mut steps);
    if claims::claim_ref(&volume).is_none_or(|reference| claims::uid_of(reference).is_empty()) {
        set_volume_phase(volume, "Available", "", &mut steps);
        return Plan::of(steps);
    }
    let Some(claim) = claim else { return release(volume, steps) };
    let wanted = claims::volume_name(claim);
    if wanted.is_empty() {
        return half_bound(&volume, claim, steps);
    }
    if wanted == meta::name(&volume.metadata) {
        set_volume_phase(volume, "Bound", "", &mut steps);
        return Plan::of(steps);
    }
    // The claim has another volume: one that was made for it is of no use, any other is free again.
    let made = meta::annotation(&volume.metadata, PROVISIONED_BY).is_some();
    if made && claims::reclaim_policy(&volume) == "Delete" {
        return release(volume, steps);
    }
    unbind(volume, &mut steps);
    Plan::of(steps)
}

fn release(volume: PersistentVolume, mut steps: Vec<Step>) -> Plan {
    if !matches!(claims::volume_phase(&volume), "Released" | "Failed") {
        set_volume_phase(volume, "Released", "", &mut steps);
    }
    Plan { steps, next: Next::Reclaim }
}

/// The volume is bound to a claim that does not say so yet.
fn half_bound(volume: &PersistentVolume, claim: &PersistentVolumeClaim, mut steps: Vec<Step>) -> Plan {
    if !modes_differ(volume, claim) {
        return Plan { steps, next: Next::Claim(meta::key(&claim.metadata)) };
    }
    let (of_volume, of_claim) = (meta::name(&volume.metadata), meta::name(&claim.metadata));
    let message = format!(
        "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"{of_claim}\" due to incompatible \
         volumeMode."
    );
    steps.push(Step::VolumeEvent(Warning, "VolumeMismatch", message));
    let message = format!(
        "Cannot bind PersistentVolume \"{of_volume}\" to requested PersistentVolumeClaim due to incompatible \
         volumeMode."
    );
    steps.push(Step::ClaimEvent(Warning, "VolumeMismatch", message));
    Plan::of(steps)
}
