//! The mounts of one container.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use proto::cri;

use super::{Error, MountInfo, subpath};
use crate::env::expand_strict;
use crate::layout::Layout;

/// What `container` mounts of its pod's volumes. `env` serves `subPathExpr`.
pub async fn container_mounts(
    pod: &Pod,
    container: &Container,
    mounts: &HashMap<String, MountInfo>,
    env: &[(String, String)],
    layout: &Layout,
) -> Result<Vec<cri::Mount>, Error> {
    let images = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .filter(|volume| volume.image.is_some());
    let images: Vec<&str> = images.map(|volume| volume.name.as_str()).collect();
    let mut result = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        if images.contains(&mount.name.as_str()) {
            continue;
        }
        let Some(volume) = mounts.get(&mount.name) else {
            return Err(Error::Container(format!(
                "cannot find volume {:?} to mount into container {:?}",
                mount.name, container.name
            )));
        };
        let host_path = match sub_path(mount, env)? {
            None => volume.host_path.clone(),
            Some(sub) => {
                let target = subpath::Target {
                    layout: layout.clone(),
                    pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
                    volume: mount.name.clone(),
                    container: container.name.clone(),
                    index,
                };
                let volume_path = volume.host_path.clone();
                let prepared =
                    tokio::task::spawn_blocking(move || subpath::prepare(&volume_path, &sub, &target)).await;
                // The cause stays in the log: it could tell about the node's files.
                prepared.map_err(std::io::Error::other).flatten().map_err(|error| {
                    tracing::warn!(object = %client::ObjectKey::of(pod), container = container.name, volume = mount.name, %error, "sub path");
                    Error::Container(format!(
                        "failed to prepare subPath for volumeMount {:?} of container {:?}",
                        mount.name, container.name
                    ))
                })?
            }
        };
        result.push(cri::Mount {
            container_path: absolute(&mount.mount_path),
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: mount.read_only == Some(true) || volume.read_only,
            propagation: propagation(mount)? as i32,
            recursive_read_only: recursive_read_only(mount)?,
            ..cri::Mount::default()
        });
    }
    Ok(result)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, Error> {
    let sub = match mount.sub_path_expr.as_deref() {
        Some(expression) if !expression.is_empty() => {
            expand_strict(expression, env).map_err(Error::Container)?
        }
        _ => mount.sub_path.clone().unwrap_or_default(),
    };
    if sub.is_empty() {
        return Ok(None);
    }
    if sub.starts_with('/') {
        return Err(Error::Container(format!("error SubPath `{sub}` must not be an absolute path")));
    }
    if sub.split('/').any(|part| part == "..") {
        return Err(Error::Container(format!("unable to provision SubPath `{sub}`: must not contain '..'")));
    }
    Ok(Some(sub))
}

fn propagation(mount: &VolumeMount) -> Result<cri::MountPropagation, Error> {
    match mount.mount_propagation.as_deref() {
        None | Some("" | "None") => Ok(cri::MountPropagation::PropagationPrivate),
        Some("HostToContainer") => Ok(cri::MountPropagation::PropagationHostToContainer),
        Some("Bidirectional") => Ok(cri::MountPropagation::PropagationBidirectional),
        Some(other) => Err(Error::Container(format!("invalid MountPropagation mode: {other:?}"))),
    }
}

/// `IfPossible` is granted where the runtime is known to do it, which none here is; `Enabled` then fails as upstream's does.
fn recursive_read_only(mount: &VolumeMount) -> Result<bool, Error> {
    match mount.recursive_read_only.as_deref() {
        Some("Enabled") => Err(Error::Container(
            "failed to resolve recursive read-only mode: recursive read-only mount is not supported by the runtime".to_owned(),
        )),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn mounts_carry_paths_flags_and_propagation() {
        let pod = Pod::default();
        let layout = Layout::new("/k", "/l", "/c");
        let mounts = HashMap::from([
            ("rw".to_owned(), MountInfo { host_path: "/v/rw".into(), read_only: false, block: false }),
            ("ro".to_owned(), MountInfo { host_path: "/v/ro".into(), read_only: true, block: false }),
        ]);
        for (mount, want) in [
            (serde_json::json!({"name": "rw", "mountPath": "data"}), Ok("/data=/v/rw ro=false 0")),
            (
                serde_json::json!({"name": "rw", "mountPath": "/d", "readOnly": true, "mountPropagation": "Bidirectional"}),
                Ok("/d=/v/rw ro=true 2"),
            ),
            (
                serde_json::json!({"name": "ro", "mountPath": "/d", "mountPropagation": "HostToContainer"}),
                Ok("/d=/v/ro ro=true 1"),
            ),
            (
                serde_json::json!({"name": "no", "mountPath": "/d"}),
                Err("cannot find volume \"no\" to mount into container \"c\""),
            ),
            (
                serde_json::json!({"name": "rw", "mountPath": "/d", "subPath": "a/../b"}),
                Err("unable to provision SubPath `a/../b`: must not contain '..'"),
            ),
            (
                serde_json::json!({"name": "rw", "mountPath": "/d", "subPath": "/b"}),
                Err("error SubPath `/b` must not be an absolute path"),
            ),
        ] {
            let container: Container =
                serde_json::from_value(serde_json::json!({"name": "c", "volumeMounts": [mount]})).unwrap();
            let got = container_mounts(&pod, &container, &mounts, &[], &layout).await;
            let got = got.map(|m| {
                format!(
                    "{}={} ro={} {}",
                    m[0].container_path, m[0].host_path, m[0].readonly, m[0].propagation
                )
            });
            assert_eq!(
                got.map_err(|error| error.to_string()),
                want.map(str::to_owned).map_err(str::to_owned)
            );
        }
    }
}
