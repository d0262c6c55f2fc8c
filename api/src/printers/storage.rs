//! Persistent volumes, claims and the storage group.

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

use super::core::default_name;
use super::{AGE, Column, Doc, NAME, Table, age, deleted, name, or};

const PV_SPEC: &str = "io.k8s.api.core.v1.PersistentVolumeSpec";
const PV_STATUS: &str = "io.k8s.api.core.v1.PersistentVolumeStatus";
const PVC_SPEC: &str = "io.k8s.api.core.v1.PersistentVolumeClaimSpec";
const PVC_STATUS: &str = "io.k8s.api.core.v1.PersistentVolumeClaimStatus";
const CLASS: &str = "io.k8s.api.storage.v1.StorageClass";
const ATTACHMENT: &str = "io.k8s.api.storage.v1.VolumeAttachmentSpec";
const DRIVER: &str = "io.k8s.api.storage.v1.CSIDriverSpec";

/// Access modes in upstream's order and short form, each once.
fn access_modes(object: &Object) -> String {
    let modes = object.list("accessModes");
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let present = short.iter().filter(|(mode, _)| modes.iter().any(|m| m == mode));
    present.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn pointer<'a>(object: &'a Object, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or("<unset>")
}

/// The class, by annotation or field.
fn class<'a>(object: &'a Object, spec: &'a Object) -> &'a str {
    let annotations = object.object("metadata").and_then(|m| m.object("annotations"));
    let annotation = annotations.and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"));
    annotation.and_then(Value::as_str).unwrap_or_else(|| spec.text("storageClassName"))
}

fn amount<'a>(object: &'a Object, key: &str) -> &'a str {
    or(object.object(key).map(|c| c.text("storage")).unwrap_or_default(), "0")
}

fn phase<'a>(object: &'a Object, status: &'a Object) -> &'a str {
    if deleted(object) { "Terminating" } else { status.text("phase") }
}

pub(crate) static PERSISTENT_VOLUME: Table = Table::new(
    &[
        NAME,
        Column::string("Capacity", Doc::Field(PV_SPEC, "capacity")),
        Column::string("Access Modes", Doc::Field(PV_SPEC, "accessModes")),
        Column::string("Reclaim Policy", Doc::Field(PV_SPEC, "persistentVolumeReclaimPolicy")),
        Column::string("Status", Doc::Field(PV_STATUS, "phase")),
        Column::string("Claim", Doc::Field(PV_SPEC, "claimRef")),
        Column::string("StorageClass", Doc::Text("StorageClass of the pv")),
        Column::string("VolumeAttributesClass", Doc::Text("VolumeAttributesClass of the pv")),
        Column::string("Reason", Doc::Field(PV_STATUS, "reason")),
        AGE,
        Column::string("VolumeMode", Doc::Field(PV_SPEC, "volumeMode")).wide(),
    ],
    |object, now| {
        let empty = Object::new();
        let (spec, status) =
            (object.object("spec").unwrap_or(&empty), object.object("status").unwrap_or(&empty));
        let claim = spec.object("claimRef").map(|c| format!("{}/{}", c.text("namespace"), c.text("name")));
        vec![
            name(object),
            json!(amount(spec, "capacity")),
            json!(access_modes(spec)),
            json!(spec.text("persistentVolumeReclaimPolicy")),
            json!(phase(object, status)),
            json!(claim.unwrap_or_default()),
            json!(class(object, spec)),
            json!(pointer(spec, "volumeAttributesClassName")),
            json!(status.text("reason")),
            age(object, now),
            json!(pointer(spec, "volumeMode")),
        ]
    },
);

pub(crate) static CLAIM: Table = Table::new(
    &[
        NAME,
        Column::string("Status", Doc::Field(PVC_STATUS, "phase")),
        Column::string("Volume", Doc::Field(PVC_SPEC, "volumeName")),
        Column::string("Capacity", Doc::Field(PVC_STATUS, "capacity")),
        Column::string("Access Modes", Doc::Field(PVC_STATUS, "accessModes")),
        Column::string("StorageClass", Doc::Text("StorageClass of the pvc")),
        Column::string("VolumeAttributesClass", Doc::Text("VolumeAttributesClass of the pvc")),
        AGE,
        Column::string("VolumeMode", Doc::Field(PVC_SPEC, "volumeMode")).wide(),
    ],
    |object, now| {
        let empty = Object::new();
        let (spec, status) =
            (object.object("spec").unwrap_or(&empty), object.object("status").unwrap_or(&empty));
        let bound = !spec.text("volumeName").is_empty();
        let (capacity, modes) =
            if bound { (amount(status, "capacity"), access_modes(status)) } else { ("", String::new()) };
        vec![
            name(object),
            json!(phase(object, status)),
            json!(spec.text("volumeName")),
            json!(capacity),
            json!(modes),
            json!(class(object, spec)),
            json!(pointer(spec, "volumeAttributesClassName")),
            age(object, now),
            json!(pointer(spec, "volumeMode")),
        ]
    },
);

pub(crate) static STORAGE_CLASS: Table = Table::new(
    &[
        NAME,
        Column::string("Provisioner", Doc::Field(CLASS, "provisioner")),
        Column::string("ReclaimPolicy", Doc::Field(CLASS, "reclaimPolicy")),
        Column::string("VolumeBindingMode", Doc::Field(CLASS, "volumeBindingMode")),
        Column::string("AllowVolumeExpansion", Doc::Field(CLASS, "allowVolumeExpansion")),
        AGE,
    ],
    |object, now| {
        let annotations = object.object("metadata").and_then(|m| m.object("annotations"));
        let beta = "storageclass.beta.kubernetes.io/is-default-class";
        let is_beta = annotations.is_some_and(|a| a.text(beta) == "true");
        let annotation = if is_beta { beta } else { "storageclass.kubernetes.io/is-default-class" };
        vec![
            json!(default_name(object, annotation)),
            json!(object.text("provisioner")),
            json!(or(object.text("reclaimPolicy"), "Delete")),
            json!(or(object.text("volumeBindingMode"), "Immediate")),
            json!(object.flag("allowVolumeExpansion")),
            age(object, now),
        ]
    },
);

pub(crate) static VOLUME_ATTRIBUTES_CLASS: Table = Table::new(
    &[
        NAME,
        Column::string("DriverName", Doc::Field("io.k8s.api.storage.v1.VolumeAttributesClass", "driverName")),
        AGE,
    ],
    |object, now| vec![name(object), json!(object.text("driverName")), age(object, now)],
);

pub(crate) static VOLUME_ATTACHMENT: Table = Table::new(
    &[
        NAME,
        Column::string("Attacher", Doc::Field(ATTACHMENT, "attacher")).format("name"),
        Column::string(
            "PV",
            Doc::Field("io.k8s.api.storage.v1.VolumeAttachmentSource", "persistentVolumeName"),
        ),
        Column::string("Node", Doc::Field(ATTACHMENT, "nodeName")),
        Column::boolean("Attached", Doc::Field("io.k8s.api.storage.v1.VolumeAttachmentStatus", "attached")),
        AGE,
    ],
    |object, now| {
        let empty = Object::new();
        let spec = object.object("spec").unwrap_or(&empty);
        let volume = spec.object("source").map(|s| s.text("persistentVolumeName")).unwrap_or_default();
        let attached = object.object("status").is_some_and(|s| s.flag("attached"));
        vec![
            name(object),
            json!(spec.text("attacher")),
            json!(volume),
            json!(spec.text("nodeName")),
            json!(attached),
            age(object, now),
        ]
    },
);

pub(crate) static CSI_NODE: Table = Table::new(
    &[
        NAME,
        Column::integer(
            "Drivers",
            Doc::Text("Drivers indicates the number of CSI drivers registered on the node"),
        ),
        AGE,
    ],
    |object, now| {
        let drivers = object.object("spec").map_or(0, |s| s.list("drivers").len());
        vec![name(object), json!(drivers), age(object, now)]
    },
);

pub(crate) static CSI_DRIVER: Table = Table::new(
    &[
        NAME,
        Column::boolean("AttachRequired", Doc::Field(DRIVER, "attachRequired")),
        Column::boolean("PodInfoOnMount", Doc::Field(DRIVER, "podInfoOnMount")),
        Column::boolean("StorageCapacity", Doc::Field(DRIVER, "storageCapacity")),
        Column::string("TokenRequests", Doc::Field(DRIVER, "tokenRequests")),
        Column::boolean("RequiresRepublish", Doc::Field(DRIVER, "requiresRepublish")),
        Column::string("Modes", Doc::Field(DRIVER, "volumeLifecycleModes")),
        AGE,
    ],
    |object, now| {
        let empty = Object::new();
        let spec = object.object("spec").unwrap_or(&empty);
        let tokens: Vec<_> = spec.each("tokenRequests").map(|t| t.text("audience")).collect();
        let tokens = if spec.is_unset("tokenRequests") { "<unset>".to_owned() } else { tokens.join(",") };
        let modes: Vec<_> = spec.list("volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
        vec![
            name(object),
            json!(spec.get("attachRequired").and_then(Value::as_bool).unwrap_or(true)),
            json!(spec.flag("podInfoOnMount")),
            json!(spec.flag("storageCapacity")),
            json!(tokens),
            json!(spec.flag("requiresRepublish")),
            json!(or(&modes.join(","), "<none>")),
            age(object, now),
        ]
    },
);
