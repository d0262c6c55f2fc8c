//! The mounts of one container.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod, VolumeDevice, VolumeMount};
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
    images: &HashMap<String, cri::ImageSpec>,
    layout: &Layout,
) -> Result<Vec<cri::Mount>, Error> {
    let mut result = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        if let Some(image) = images.get(&mount.name) {
            result.push(cri::Mount {
                container_path: absolute(&mount.mount_path),
                image: Some(image.clone()),
                image_sub_path: sub_path(mount, env)?.unwrap_or_default(),
                // Nobody writes to an image.
                readonly: true,
                propagation: propagation(mount)? as i32,
                recursive_read_only: recursive_read_only(mount)?,
                ..cri::Mount::default()
            });
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

/// What `container` uses of its pod's volumes as devices.
pub fn container_devices(
    container: &Container,
    mounts: &HashMap<String, MountInfo>,
) -> Result<Vec<cri::Device>, Error> {
    let device = |wanted: &VolumeDevice| {
        let Some(volume) = mounts.get(&wanted.name).filter(|volume| volume.block) else {
            return Err(Error::Container(format!(
                "cannot find volume {:?} to pass into container {:?}",
                wanted.name, container.name
            )));
        };
        // The runtime wants the device itself, not what leads to it.
        let path = std::fs::canonicalize(&volume.host_path).unwrap_or_else(|_| volume.host_path.clone());
        Ok(cri::Device {
            container_path: wanted.device_path.clone(),
            host_path: path.to_string_lossy().into_owned(),
            permissions: if volume.read_only { "r" } else { "mrw" }.to_owned(),
        })
    };
    container.volume_devices.iter().flatten().map(device).collect()
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

    #[test]
    fn devices_are_block_volumes() {
        let mounts = HashMap::from([
            (
                "disk".to_owned(),
                MountInfo { host_path: "/nowhere/disk".into(), read_only: false, block: true },
            ),
            ("files".to_owned(), MountInfo { host_path: "/v".into(), read_only: false, block: false }),
        ]);
        let of = |name: &str| {
            let container: Container = serde_json::from_value(
                serde_json::json!({"name": "c", "volumeDevices": [{"name": name, "devicePath": "/dev/x"}]}),
            )
            .expect("valid");
            container_devices(&container, &mounts).map_err(|e| e.to_string())
        };
        let device = of("disk").expect("a device").remove(0);
        assert_eq!(
            (device.container_path.as_str(), device.host_path.as_str(), device.permissions.as_str()),
            ("/dev/x", "/nowhere/disk", "mrw")
        );
        for name in ["files", "none"] {
            assert_eq!(of(name), Err(format!("cannot find volume {name:?} to pass into container \"c\"")));
        }
    }

    #[tokio::test]
    async fn mounts_carry_paths_flags_and_propagation() {
        let pod = Pod::default();
        let layout = Layout::new("/k", "/l", "/c");
        let image = cri::ImageSpec { image: "sha256:x".to_owned(), ..cri::ImageSpec::default() };
        let images = HashMap::from([("img".to_owned(), image)]);
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
                serde_json::json!({"name": "img", "mountPath": "/d", "subPath": "a"}),
                Ok("/d=sha256:x:a ro=true 0"),
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
            let got = container_mounts(&pod, &container, &mounts, &[], &images, &layout).await;
            let got = got.map(|m| {
                let image = m[0].image.as_ref().map(|i| format!("{}:{}", i.image, m[0].image_sub_path));
                let source = image.unwrap_or_else(|| m[0].host_path.clone());
                format!("{}={source} ro={} {}", m[0].container_path, m[0].readonly, m[0].propagation)
            });
            assert_eq!(
                got.map_err(|error| error.to_string()),
                want.map(str::to_owned).map_err(str::to_owned)
            );
        }
    }
}
