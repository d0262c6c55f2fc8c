//! Volumes that a controller attaches to the node before they can be used.

use client::{Api, Client};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};

use super::Csi;
use super::disk::{attachment_name, unique_name};
use crate::volumes::Reason;

/// What the driver is to be told of an attachment.
pub(super) type PublishContext = std::collections::HashMap<String, String>;

/// Whether volumes of a driver are attached; as long as nothing is known of the driver, they are.
pub(super) fn is_required(driver: Option<&CSIDriver>) -> bool {
    driver.and_then(|d| d.spec.attach_required) != Some(false)
}

impl Csi {
    /// Waits (by failing for now) until a volume is attached.
    pub(super) async fn attached(
        &self,
        client: &Client,
        uid: &str,
        (driver, handle): (&str, &str),
    ) -> Result<PublishContext, Reason> {
        let deps = &self.inner.deps;
        let volume = unique_name(driver, handle);
        if self.inner.awaited.lock().entry(uid.to_owned()).or_default().insert(volume.clone()) {
            deps.poke.notify_one();
        }
        ready(&volume, (deps.node)().as_deref())?;
        let api: Api<VolumeAttachment> = Api::all(client.clone());
        let name = attachment_name(handle, driver, &deps.node_name);
        let attachment = api.get(&name).await.map_err(|error| Reason::Text(client::chain(&error)))?;
        verified(&attachment)
    }

    /// The pod waits for no volumes any more.
    pub(super) fn await_no_more(&self, uid: &str) {
        if self.inner.awaited.lock().remove(uid).is_some() {
            self.inner.deps.poke.notify_one();
        }
    }
}

/// The node's status says both that the volume is in use, which keeps it attached, and that it is attached.
fn ready(volume: &str, node: Option<&Node>) -> Result<(), Reason> {
    let status = node.and_then(|n| n.status.as_ref());
    if !status.is_some_and(|s| s.volumes_in_use.iter().flatten().any(|v| v == volume)) {
        let text = "Volume has not been added to the list of VolumesInUse in the node's volume status";
        return Err(Reason::NotYet(text.to_owned()));
    }
    if !status.is_some_and(|s| s.volumes_attached.iter().flatten().any(|v| v.name == volume)) {
        return Err(Reason::NotYet(format!("volume {volume} is not yet in node's status")));
    }
    Ok(())
}

fn verified(attachment: &VolumeAttachment) -> Result<PublishContext, Reason> {
    if attachment.metadata.deletion_timestamp.is_some() {
        return Err(Reason::Text("volume attachment is being deleted".to_owned()));
    }
    let status = attachment.status.clone().unwrap_or_default();
    if status.attached {
        return Ok(status.attachment_metadata.unwrap_or_default().into_iter().collect());
    }
    match status.attach_error.and_then(|e| e.message) {
        Some(message) => Err(Reason::Text(message)),
        None => Err(Reason::NotYet("volume attachment is not attached yet".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_used_when_node_and_attachment_say_so() {
        let node =
            |status: &str| -> Node { serde_saphyr::from_str(&format!("status: {status}")).expect("valid") };
        let cases = [
            ("{}", Some("Volume has not been added")),
            ("{volumesInUse: [v]}", Some("volume v is not yet in node's status")),
            (
                "{volumesInUse: [v], volumesAttached: [{name: w, devicePath: ''}]}",
                Some("volume v is not yet"),
            ),
            ("{volumesInUse: [v], volumesAttached: [{name: v, devicePath: ''}]}", None),
        ];
        for (status, refusal) in cases {
            let result = ready("v", Some(&node(status))).err().map(|e| e.to_string());
            assert_eq!(result.is_some(), refusal.is_some(), "{status}");
            assert!(result.unwrap_or_default().starts_with(refusal.unwrap_or_default()), "{status}");
        }
        let attachment = |more: &str| -> VolumeAttachment {
            serde_saphyr::from_str(&format!(
                "metadata: {{}}\nspec: {{attacher: a, nodeName: n, source: {{}}}}\n{more}"
            ))
            .expect("valid")
        };
        let context = verified(&attachment("status: {attached: true, attachmentMetadata: {device: x}}"))
            .expect("attached");
        assert_eq!(context["device"], "x");
        let failed = verified(&attachment("status: {attached: false, attachError: {message: no room}}"));
        assert_eq!(failed.expect_err("failed").to_string(), "no room");
        assert!(matches!(verified(&attachment("status: {attached: false}")), Err(Reason::NotYet(_))));
    }
}
