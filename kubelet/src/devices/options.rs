//! What a container needs to use all its devices together. Pure; as upstream's `deviceRunContainerOptions`.

use std::collections::BTreeMap;

use proto::cri;

use super::pods::ByResource;

/// What a container needs to use its devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceOptions {
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Mounts.
    pub mounts: Vec<cri::Mount>,
    /// Devices of the node.
    pub devices: Vec<cri::Device>,
    /// Annotations for the runtime.
    pub annotations: BTreeMap<String, String>,
    /// Qualified CDI names, each once.
    pub cdi_devices: Vec<String>,
}

impl DeviceOptions {
    /// Of all allocations of a container. Where two say something of the same, the first counts.
    pub(super) fn of(resources: &ByResource) -> Self {
        let mut options = Self::default();
        for allocation in resources.values() {
            let response = &allocation.response;
            let mut env: Vec<_> = response.envs.iter().collect();
            env.sort();
            for (name, value) in env {
                if is_new(
                    "environment variable",
                    options.env.iter().find(|(n, _)| n == name).map(|(_, v)| v),
                    value,
                ) {
                    options.env.push((name.clone(), value.clone()));
                }
            }
            for device in &response.devices {
                let known = options.devices.iter().find(|d| d.container_path == device.container_path);
                if is_new("device", known.map(|d| &d.host_path), &device.host_path) {
                    options.devices.push(cri::Device {
                        container_path: device.container_path.clone(),
                        host_path: device.host_path.clone(),
                        permissions: device.permissions.clone(),
                    });
                }
            }
            for mount in &response.mounts {
                let known = options.mounts.iter().find(|m| m.container_path == mount.container_path);
                if is_new("mount", known.map(|m| &m.host_path), &mount.host_path) {
                    options.mounts.push(cri::Mount {
                        container_path: mount.container_path.clone(),
                        host_path: mount.host_path.clone(),
                        readonly: mount.read_only,
                        ..Default::default()
                    });
                }
            }
            for (name, value) in &response.annotations {
                if is_new("annotation", options.annotations.get(name), value) {
                    options.annotations.insert(name.clone(), value.clone());
                }
            }
            for device in &response.cdi_devices {
                if !options.cdi_devices.contains(&device.name) {
                    options.cdi_devices.push(device.name.clone());
                }
            }
        }
        options
    }
}

fn is_new(what: &str, known: Option<&String>, value: &String) -> bool {
    if let Some(known) = known.filter(|known| *known != value) {
        tracing::error!(what, known, value, "devices of a container contradict each other");
    }
    known.is_none()
}

#[cfg(test)]
mod tests {
    use proto::device_plugin::{CdiDevice, ContainerAllocateResponse, DeviceSpec, Mount};

    use super::*;
    use crate::devices::pods::Allocation;

    #[test]
    fn the_first_word_counts() {
        let response = |value: &str| ContainerAllocateResponse {
            envs: [("A".to_owned(), value.to_owned())].into(),
            mounts: vec![Mount {
                container_path: "/m".into(),
                host_path: format!("/{value}"),
                read_only: true,
            }],
            devices: vec![
                DeviceSpec {
                    container_path: "/dev/d".into(),
                    host_path: "/dev/d".into(),
                    permissions: "rw".into(),
                },
                DeviceSpec {
                    container_path: format!("/dev/{value}"),
                    host_path: "/dev/x".into(),
                    permissions: "mrw".into(),
                },
            ],
            annotations: [("a/b".to_owned(), value.to_owned())].into(),
            cdi_devices: vec![CdiDevice { name: "v/c=1".into() }, CdiDevice { name: format!("v/c={value}") }],
        };
        let allocation = |value: &str| Allocation { ids: BTreeMap::new(), response: response(value) };
        let resources =
            ByResource::from([("r1".into(), allocation("one")), ("r2".into(), allocation("two"))]);
        let options = DeviceOptions::of(&resources);
        assert_eq!(options.env, [("A".to_owned(), "one".to_owned())]);
        let paths: Vec<_> = options.devices.iter().map(|d| d.container_path.as_str()).collect();
        assert_eq!(paths, ["/dev/d", "/dev/one", "/dev/two"]);
        assert_eq!((options.mounts.len(), options.mounts[0].host_path.as_str()), (1, "/one"));
        assert!(options.mounts[0].readonly);
        assert_eq!(options.annotations["a/b"], "one");
        assert_eq!(options.cdi_devices, ["v/c=1", "v/c=one", "v/c=two"]);
    }
}
