//! Claims that pods of this node use, with the devices their drivers prepared, and the file of them: `dra_manager_state`, in
//! upstream's form. Values and the file; nobody is called here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use k8s_openapi::api::resource::v1::ResourceClaim;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, Error};

/// Name of the file.
pub(super) const FILE: &str = "dra_manager_state";

const KIND: &str = "DRACheckpoint";
const API_VERSION: &str = "checkpoint.dra.kubelet.k8s.io/v1";

/// A device that a driver prepared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Device {
    /// Its pool.
    pub pool_name: String,
    /// Its name in the pool.
    pub device_name: String,
    /// Which share of it.
    #[serde(rename = "ShareID", default)]
    pub share_id: Option<String>,
    /// Requests it is for; none for all of them.
    #[serde(default)]
    pub request_names: Option<Vec<String>>,
    /// Its qualified CDI names.
    #[serde(rename = "CDIDeviceIDs", default)]
    pub cdi_device_ids: Option<Vec<String>>,
}

impl Device {
    /// Whether it is for a request; an empty name asks for all of the claim.
    #[must_use]
    pub fn serves(&self, request: &str) -> bool {
        let names = self.request_names.as_deref().unwrap_or_default();
        request.is_empty() || names.is_empty() || names.iter().any(|name| name == request)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DriverState {
    #[serde(default)]
    pub(super) devices: Option<Vec<Device>>,
}

/// One claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Claim {
    #[serde(rename = "ClaimUID")]
    pub(super) uid: String,
    #[serde(rename = "ClaimName")]
    pub(super) name: String,
    pub(super) namespace: String,
    /// Pods that use it; as Go writes sets.
    #[serde(rename = "PodUIDs", with = "set")]
    pub(super) pods: BTreeSet<String>,
    /// Drivers that have devices of it.
    #[serde(rename = "DriverState")]
    pub(super) drivers: BTreeMap<String, DriverState>,
    /// Its drivers prepared it since the kubelet started.
    #[serde(skip)]
    pub(super) prepared: bool,
}

impl Claim {
    /// As the API has it; one without devices cannot be used.
    pub(super) fn of(claim: &ResourceClaim) -> Result<Self, String> {
        let allocation = claim.status.as_ref().and_then(|s| s.allocation.as_ref()).ok_or("not allocated")?;
        let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        let metadata = claim.metadata.clone();
        Ok(Self {
            uid: metadata.uid.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            namespace: metadata.namespace.unwrap_or_default(),
            drivers: results.map(|result| (result.driver.clone(), DriverState::default())).collect(),
            ..Self::default()
        })
    }

    /// All devices for a request, with their drivers.
    pub(super) fn devices<'a>(&'a self, request: &'a str) -> impl Iterator<Item = (&'a str, &'a Device)> {
        let all = self.drivers.iter().flat_map(|(driver, state)| {
            state.devices.iter().flatten().map(move |device| (driver.as_str(), device))
        });
        all.filter(move |(_, device)| device.serves(request))
    }
}

/// Sets, written as maps to nothing.
mod set {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Nothing {}

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, to: S) -> Result<S::Ok, S::Error> {
        set.iter().map(|item| (item, Nothing {})).collect::<BTreeMap<_, _>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<String>, D::Error> {
        let map = Option::<BTreeMap<String, Nothing>>::deserialize(from)?;
        Ok(map.into_iter().flatten().map(|(item, _)| item).collect())
    }
}

/// Claims by namespace and name.
pub(super) type Claims = BTreeMap<(String, String), Claim>;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: String,
    checksum: u32,
}

#[derive(Serialize, Deserialize)]
struct Data {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: String,
    #[serde(rename = "ClaimInfoStateList")]
    claims: Option<Vec<Claim>>,
}

/// What the file says; nothing when there is none.
pub(super) fn read(path: &Path) -> Result<Claims, Error> {
    let Some(file) = checkpoint::read::<File>(path)? else { return Ok(Claims::new()) };
    if file.checksum != crc32fast::hash(file.data.as_bytes()) {
        return Err(Error::Corrupt);
    }
    let data: Data = serde_json::from_str(&file.data)?;
    let claims = data.claims.into_iter().flatten();
    Ok(claims.map(|claim| ((claim.namespace.clone(), claim.name.clone()), claim)).collect())
}

/// Writes all claims.
pub(super) fn write(path: &Path, claims: &Claims) -> Result<(), Error> {
    let data = Data {
        kind: KIND.to_owned(),
        api_version: API_VERSION.to_owned(),
        claims: Some(claims.values().cloned().collect()),
    };
    let data = serde_json::to_string(&data)?;
    checkpoint::write(path, &File { checksum: crc32fast::hash(data.as_bytes()), data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::Scratch;

    /// Upstream's, with devices of two drivers' requests.
    const FILE_TEXT: &str = r#"{"Data":"{\"kind\":\"DRACheckpoint\",\"apiVersion\":\"checkpoint.dra.kubelet.k8s.io/v1\",\"ClaimInfoStateList\":[{\"ClaimUID\":\"067798be-454e-4be4-9047-1aa06aea63f7\",\"ClaimName\":\"example\",\"Namespace\":\"default\",\"PodUIDs\":{\"139cdb46-f989-4f17-9561-ca10cfb509a6\":{}},\"DriverState\":{\"test-driver.cdi.k8s.io\":{\"Devices\":[{\"PoolName\":\"worker-1\",\"DeviceName\":\"dev-1\",\"ShareID\":\"aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa\",\"RequestNames\":[\"test request\"],\"CDIDeviceIDs\":[\"example.com/example=cdi-example\"]}]}}}]}","Checksum":736302156}"#;

    #[test]
    fn upstreams_files_are_read_and_written_alike() {
        let scratch = Scratch::new();
        let path = scratch.path().join(FILE);
        assert!(read(&path).expect("none").is_empty());
        std::fs::write(&path, FILE_TEXT).expect("written");
        let claims = read(&path).expect("valid");
        let claim = &claims[&("default".to_owned(), "example".to_owned())];
        assert!(claim.pods.contains("139cdb46-f989-4f17-9561-ca10cfb509a6"));
        let devices: Vec<_> = claim.devices("test request").collect();
        assert_eq!(devices[0].0, "test-driver.cdi.k8s.io");
        assert_eq!(
            devices[0].1.cdi_device_ids.as_deref(),
            Some(&["example.com/example=cdi-example".to_owned()][..])
        );
        assert_eq!((claim.devices("other").count(), claim.devices("").count()), (0, 1));
        write(&path, &claims).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), FILE_TEXT);
        std::fs::write(&path, FILE_TEXT.replace("dev-1", "dev-2")).expect("written");
        assert!(matches!(read(&path), Err(Error::Corrupt)));
    }
}
