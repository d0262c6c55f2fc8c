//! A volume of a driver that a pod wants, and what its source says of it.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, CSIVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod,
};

use super::disk::{self, VolumeData};
use crate::types;

/// Namespace and name of a secret.
pub(super) type SecretName = (String, String);

/// Where a volume comes from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// A persistent volume.
    Persistent(&'a PersistentVolume, &'a CSIPersistentVolumeSource),
    /// The pod's own.
    Inline(&'a str, &'a CSIVolumeSource),
}

/// A volume that a pod wants.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Where it comes from.
    pub source: Source<'a>,
    /// The claim it is bound to.
    pub claim: Option<&'a PersistentVolumeClaim>,
    /// Nobody may write to it.
    pub read_only: bool,
    /// Group that gets it.
    pub group: Option<u32>,
    /// A volume whose root is right already is trusted to be right as a whole.
    pub on_root_mismatch: bool,
}

impl Wanted<'_> {
    pub(super) fn driver(&self) -> &str {
        match self.source {
            Source::Persistent(_, csi) => &csi.driver,
            Source::Inline(_, csi) => &csi.driver,
        }
    }

    pub(super) fn fs_type(&self) -> &str {
        let found = match self.source {
            Source::Persistent(_, csi) => csi.fs_type.as_deref(),
            Source::Inline(_, csi) => csi.fs_type.as_deref(),
        };
        found.unwrap_or_default()
    }

    pub(super) fn modes(&self) -> &[String] {
        match self.source {
            Source::Persistent(pv, _) => {
                pv.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default()
            }
            Source::Inline(..) => &[],
        }
    }

    pub(super) fn mode(&self) -> &str {
        self.modes().first().map_or("ReadWriteOnce", String::as_str)
    }

    pub(super) fn options(&self) -> Vec<String> {
        match self.source {
            Source::Persistent(pv, _) => {
                pv.spec.as_ref().and_then(|s| s.mount_options.clone()).unwrap_or_default()
            }
            Source::Inline(..) => Vec::new(),
        }
    }

    pub(super) fn attributes(&self) -> HashMap<String, String> {
        let found = match self.source {
            Source::Persistent(_, csi) => csi.volume_attributes.clone(),
            Source::Inline(_, csi) => csi.volume_attributes.clone(),
        };
        found.unwrap_or_default().into_iter().collect()
    }

    /// Secrets for staging and for publishing: namespace and name.
    pub(super) fn secrets(&self) -> (Option<SecretName>, Option<SecretName>) {
        match self.source {
            Source::Persistent(_, csi) => {
                let of = |r: &Option<k8s_openapi::api::core::v1::SecretReference>| {
                    r.as_ref().map(|r| {
                        (r.namespace.clone().unwrap_or_default(), r.name.clone().unwrap_or_default())
                    })
                };
                (of(&csi.node_stage_secret_ref), of(&csi.node_publish_secret_ref))
            }
            Source::Inline(_, csi) => {
                let own = csi.node_publish_secret_ref.as_ref();
                (None, own.map(|r| (types::namespace(self.pod).to_owned(), r.name.clone())))
            }
        }
    }

    /// The secret for letting it grow.
    pub(super) fn expand_secret(&self) -> Option<SecretName> {
        let Source::Persistent(_, csi) = self.source else { return None };
        let secret = csi.node_expand_secret_ref.as_ref()?;
        Some((secret.namespace.clone().unwrap_or_default(), secret.name.clone().unwrap_or_default()))
    }

    pub(super) fn is_block(&self) -> bool {
        matches!(self.source, Source::Persistent(pv, _)
            if pv.spec.as_ref().and_then(|s| s.volume_mode.as_deref()) == Some("Block"))
    }

    pub(super) fn data(&self, node: &str, attached: bool) -> VolumeData {
        let (name, handle, ephemeral) = match self.source {
            Source::Persistent(pv, csi) => {
                (pv.metadata.name.clone().unwrap_or_default(), csi.volume_handle.clone(), false)
            }
            Source::Inline(volume, _) => {
                (volume.to_owned(), disk::ephemeral_handle(types::uid(self.pod), volume), true)
            }
        };
        let attachment = attached.then(|| disk::attachment_name(&handle, self.driver(), node));
        VolumeData {
            driver: self.driver().to_owned(),
            handle,
            name,
            node: node.to_owned(),
            attachment,
            ephemeral,
        }
    }
}
