//! Who has which CPUs, and the file of it: `cpu_manager_state`, in upstream's form.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::set::CpuSet;
use crate::checkpoint::{self, Error, go_map};

/// Name of the file.
pub(super) const FILE: &str = "cpu_manager_state";

/// CPUs by UID of the pod and name of the container.
pub type Assignments = BTreeMap<String, BTreeMap<String, CpuSet>>;

/// Who has which CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// CPUs of one container alone.
    pub(super) assignments: Assignments,
    /// CPUs of all others.
    pub(super) shared: CpuSet,
}

impl State {
    /// The CPUs of a container alone.
    pub(super) fn get(&self, uid: &str, container: &str) -> Option<&CpuSet> {
        self.assignments.get(uid)?.get(container)
    }

    /// All CPUs that belong to one container alone.
    pub(super) fn exclusive(&self) -> CpuSet {
        self.assignments.values().flat_map(BTreeMap::values).flat_map(CpuSet::iter).collect()
    }

    /// Takes back what a container had, but for what others of its pod have too.
    pub(super) fn remove(&mut self, uid: &str, container: &str) -> bool {
        let Some(pod) = self.assignments.get_mut(uid) else { return false };
        let Some(released) = pod.remove(container) else { return false };
        let kept: CpuSet = pod.values().flat_map(CpuSet::iter).collect();
        if pod.is_empty() {
            self.assignments.remove(uid);
        }
        self.shared = self.shared.union(&released.difference(&kept));
        true
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    #[serde(rename = "policyName")]
    policy: String,
    // Upstream's reader takes any case.
    #[serde(rename = "defaultCpuSet", alias = "defaultCPUSet")]
    shared: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<String, BTreeMap<String, String>>,
    checksum: u64,
}

impl File {
    /// As Go's deep printer shows it.
    fn shown(&self) -> String {
        let containers =
            |pod: &BTreeMap<String, String>| go_map(pod.iter().map(|(c, set)| (c.clone(), set.clone())));
        let entries = go_map(self.entries.iter().map(|(uid, pod)| (uid.clone(), containers(pod))));
        format!(
            "(*state.CPUManagerCheckpoint){{PolicyName:(string){} DefaultCPUSet:(string){} \
             Entries:(map[string]map[string]string){entries} Checksum:(checksum.Checksum)0}}",
            self.policy, self.shared
        )
    }
}

/// What the file says; `None` when there is none. A file of another policy is refused.
pub(super) fn read(path: &Path, policy: &str) -> Result<Option<State>, Error> {
    let Some(file) = checkpoint::read::<File>(path)? else { return Ok(None) };
    checkpoint::verify(file.checksum, &file.shown())?;
    if file.policy != policy {
        return Err(Error::Nonsense(format!(
            "configured policy {policy:?} differs from state checkpoint policy {:?}",
            file.policy
        )));
    }
    let nonsense = |what: String, error| Error::Nonsense(format!("could not parse {what}: {error}"));
    let shared =
        file.shared.parse().map_err(|e| nonsense(format!("default cpu set {:?}", file.shared), e))?;
    let mut state = State { shared, ..State::default() };
    for (uid, containers) in file.entries {
        for (container, text) in containers {
            let set = text.parse().map_err(|e| {
                nonsense(format!("cpuset {text:?} for container {container:?} in pod {uid:?}"), e)
            })?;
            state.assignments.entry(uid.clone()).or_default().insert(container, set);
        }
    }
    Ok(Some(state))
}

/// Writes who has which CPUs.
pub(super) fn write(path: &Path, policy: &str, state: &State) -> Result<(), Error> {
    let text =
        |pod: &BTreeMap<String, CpuSet>| pod.iter().map(|(c, set)| (c.clone(), set.to_string())).collect();
    let mut file = File {
        policy: policy.to_owned(),
        shared: state.shared.to_string(),
        entries: state.assignments.iter().map(|(uid, pod)| (uid.clone(), text(pod))).collect(),
        checksum: 0,
    };
    file.checksum = checkpoint::checksum(&file.shown());
    checkpoint::write(path, &file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::Scratch;

    #[test]
    fn upstreams_files_are_read() {
        let scratch = Scratch::new();
        let path = scratch.path().join(FILE);
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            read(&path, "none").map_err(|error| error.to_string()).map(|state| state.expect("there"))
        };
        let state = read(r#"{"policyName":"none","defaultCPUSet":"4-6","entries":{},"checksum":354655845}"#);
        assert_eq!(state.expect("valid").shared.to_string(), "4-6");
        let whole = r#"{"policyName":"none","defaultCPUSet":"1-3",
            "entries":{"pod":{"container1":"4-6","container2":"1-3"}},"checksum":3610638499}"#;
        let state = read(whole).expect("valid");
        assert_eq!(state.get("pod", "container1").map(ToString::to_string).as_deref(), Some("4-6"));
        let refused = [
            (r#"{"policyName":"none","defaultCPUSet":"4-6","checksum":1337}"#, "checkpoint is corrupted"),
            ("{", "checkpoint format"),
            (
                r#"{"policyName":"other","defaultCPUSet":"1-3","entries":{},"checksum":1394507217}"#,
                "configured policy \"none\" differs from state checkpoint policy \"other\"",
            ),
            (
                r#"{"policyName":"none","defaultCPUSet":"1.3","entries":{},"checksum":3021697696}"#,
                "could not parse default cpu set \"1.3\": strconv.Atoi: parsing \"1.3\": invalid syntax",
            ),
            (
                r#"{"policyName":"none","defaultCPUSet":"1-3","entries":{"pod":{"container1":"4-6","container2":"asd"}},
                    "checksum":962272150}"#,
                "could not parse cpuset \"asd\" for container \"container2\" in pod \"pod\": strconv.Atoi: parsing \
                 \"asd\": invalid syntax",
            ),
        ];
        for (text, message) in refused {
            assert_eq!(read(text).expect_err(message), message);
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let scratch = Scratch::new();
        let path = scratch.path().join(FILE);
        assert_eq!(read(&path, "static").expect("none"), None);
        let mut state = State { shared: "0-1".parse().expect("valid"), ..State::default() };
        state.assignments.entry("u".into()).or_default().insert("c".into(), "2-3".parse().expect("valid"));
        write(&path, "static", &state).expect("written");
        assert_eq!(read(&path, "static").expect("valid"), Some(state.clone()));
        assert!(state.remove("u", "c"));
        assert_eq!((state.shared.to_string().as_str(), state.assignments.len()), ("0-3", 0));
        assert!(!state.remove("u", "c"));
    }
}
