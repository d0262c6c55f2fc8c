//! What pods leave on a machine while they are there, and must not when they are gone.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::cluster::Cluster;

/// Everything of pods on a cluster's own node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Containers and sandboxes that the runtime knows.
    pub containers: BTreeSet<String>,
    /// Mounts below the node's folders.
    pub mounts: BTreeSet<String>,
    /// Ends of the wires that lead to pods.
    pub wires: BTreeSet<String>,
    /// Addresses that were given to pods.
    pub addresses: BTreeSet<String>,
    /// Control groups of pods.
    pub groups: BTreeSet<String>,
    /// Folders of pods.
    pub folders: BTreeSet<String>,
}

impl Inventory {
    /// Looks.
    ///
    /// # Errors
    /// Something cannot be looked at.
    pub async fn take(cluster: &Cluster) -> Result<Self> {
        let (layout, bridge) = (&cluster.layout, &cluster.settings.bridge);
        let socket = layout.containerd_socket().display().to_string();
        let containers =
            said("ctr", &["--address", &socket, "--namespace", "k8s.io", "containers", "ls", "-q"]).await?;
        let mut words = cluster.enter();
        words.extend(["ip", "-o", "link", "show", "master", bridge].map(str::to_owned));
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let wires = said(words[0], &words[1..]).await?;
        let own = [layout.data.display().to_string(), layout.run.display().to_string()];
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mounts")?;
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        Ok(Self {
            containers: lines(&containers),
            mounts: mounts
                .filter(|mount| own.iter().any(|own| mount.starts_with(own)))
                .map(str::to_owned)
                .collect(),
            // "7: veth12ab@if2: <BROADCAST,…"
            wires: wires
                .lines()
                .filter_map(|line| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned()))
                .collect(),
            addresses: names(&layout.run.join("ipam/coxswain"))
                .into_iter()
                .filter(|name| name.parse::<std::net::IpAddr>().is_ok())
                .collect(),
            groups: groups(&cluster.settings.cgroup_root),
            folders: names(&layout.kubelet().join("pods")),
        })
    }

    /// What was not there before. What was and is no more does not count: containers that ended are collected now and
    /// then.
    #[must_use]
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let mut lines = vec![];
        for ((what, now), (_, then)) in self.parts().into_iter().zip(before.parts()) {
            lines.extend(now.difference(then).map(|one| format!("{what} {one}")));
        }
        lines
    }

    fn parts(&self) -> [(&'static str, &BTreeSet<String>); 6] {
        [
            ("container", &self.containers),
            ("mount", &self.mounts),
            ("wire", &self.wires),
            ("address", &self.addresses),
            ("group", &self.groups),
            ("folder", &self.folders),
        ]
    }
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self.parts().iter().map(|(what, all)| format!("{what} {}", all.len())).collect();
        f.write_str(&counts.join(", "))
    }
}

async fn said(program: &str, words: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(words).output().await.with_context(|| format!("run {program}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    // The bridge is made with the first pod.
    let no_bridge = error.contains("does not exist");
    ensure!(output.status.success() || no_bridge, "{program} {words:?}: {}", error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The groups of pods below the cluster's own, in all hierarchies, by their last names.
fn groups(root: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        let top = hierarchy.join(root.trim_start_matches('/')).join("kubepods");
        for class in [top.clone(), top.join("burstable"), top.join("besteffort")] {
            found.extend(names(&class).into_iter().filter(|name| name.starts_with("pod")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_is_left() {
        let with = |containers: &[&str], wires: &[&str]| Inventory {
            containers: containers.iter().map(|&name| name.to_owned()).collect(),
            wires: wires.iter().map(|&name| name.to_owned()).collect(),
            ..Inventory::default()
        };
        let before = with(&["ended", "runs"], &["veth1"]);
        assert!(with(&["runs"], &["veth1"]).beyond(&before).is_empty(), "what ended was collected");
        let later = with(&["runs", "new"], &["veth1", "veth2"]);
        assert_eq!(later.beyond(&before), ["container new", "wire veth2"]);
    }
}
