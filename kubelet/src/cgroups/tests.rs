//! Names, limits and files, over trees made of plain directories.

use super::*;
use std::path::PathBuf;

/// A directory that goes away with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("cgroups-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pod(uid: &str, requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Pod {
    let list = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), serde_json::json!(v))).collect::<serde_json::Map<_, _>>()
    };
    serde_json::from_value(serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"uid": uid, "name": "p"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": list(requests), "limits": list(limits)}}]}
    }))
    .unwrap()
}

#[test]
fn groups_are_named_for_both_drivers() {
    let uid = "1c5a-22";
    for (pod, cgroupfs, systemd) in [
        (
            pod(uid, &[], &[]),
            "/kubepods/besteffort/pod1c5a-22",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1c5a_22.slice",
        ),
        (
            pod(uid, &[("cpu", "1")], &[]),
            "/kubepods/burstable/pod1c5a-22",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1c5a_22.slice",
        ),
        (
            pod(uid, &[("cpu", "1"), ("memory", "1Mi")], &[("cpu", "1"), ("memory", "1Mi")]),
            "/kubepods/pod1c5a-22",
            "/kubepods.slice/kubepods-pod1c5a_22.slice",
        ),
    ] {
        for (driver, want) in [(Driver::Cgroupfs, cgroupfs), (Driver::Systemd, systemd)] {
            let hierarchy = Hierarchy::parse("1 0 0:1 / /nowhere rw - cgroup2 cgroup2 rw").unwrap();
            let cgroups = Cgroups::over(Settings { driver, ..Settings::default() }, hierarchy);
            assert_eq!(cgroups.pod_parent(&pod), want);
        }
    }
    let class = CgroupName::root("/").child("kubepods").child("burstable");
    assert_eq!(class.child_named("kubepods-burstable-pod1c5a_22.slice").unwrap(), "pod1c5a-22");
    assert_eq!(class.child_named("other.slice"), None);
}

#[test]
fn mounts_tell_the_version() {
    let hybrid = "30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n32 24 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
    let hybrid = Hierarchy::parse(hybrid).unwrap();
    assert_eq!(hybrid.version(), Version::V1);
    assert_eq!(hybrid.dir("cpuacct", "/a/b").unwrap(), PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/a/b"));
    let unified = Hierarchy::parse("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw").unwrap();
    assert_eq!(unified.version(), Version::V2);
    assert_eq!(unified.dir("memory", "/a").unwrap(), PathBuf::from("/sys/fs/cgroup/a"));
    assert!(Hierarchy::parse("1 0 0:1 / / rw - ext4 /dev/sda rw").is_none());
}

#[test]
fn limits_follow_the_class() {
    let none = Limits::default();
    for (pod, want) in [
        (pod("u", &[], &[]), Limits { shares: Some(2), ..none.clone() }),
        (pod("u", &[("cpu", "500m")], &[]), Limits { shares: Some(512), ..none.clone() }),
        (
            pod("u", &[("cpu", "500m")], &[("cpu", "1"), ("memory", "64Mi")]),
            Limits {
                shares: Some(512),
                quota: Some(100_000),
                period: Some(100_000),
                memory: Some(64 << 20),
                pids: None,
            },
        ),
        (
            pod("u", &[("cpu", "100m"), ("memory", "64Mi")], &[("cpu", "100m"), ("memory", "64Mi")]),
            Limits {
                shares: Some(102),
                quota: Some(10_000),
                period: Some(100_000),
                memory: Some(64 << 20),
                pids: None,
            },
        ),
    ] {
        assert_eq!(plan_pod(&pod, true, 100_000), want);
    }
    assert_eq!((milli_cpu_to_quota(1, 100_000), milli_cpu_to_quota(0, 100_000)), (1000, 0));
    assert_eq!((cpu_weight(2), cpu_weight(1024), cpu_weight(262_144)), (1, 39, 10_000));
}

/// Makes the files of a control group version 1 that the kernel would make.
fn kernel_files(tree: &std::path::Path, group: &str, files: &[(&str, &str)]) {
    let dir = tree.join(group);
    std::fs::create_dir_all(&dir).unwrap();
    for (file, content) in files {
        std::fs::write(dir.join(file), content).unwrap();
    }
}

#[test]
fn pod_group_is_made_read_and_removed() {
    let scratch = Scratch::new();
    let tree = scratch.0.clone();
    let mounts = format!(
        "1 0 0:1 / {0}/cpu rw - cgroup c rw,cpu,cpuacct\n2 0 0:2 / {0}/memory rw - cgroup c rw,memory",
        tree.display()
    );
    let cgroups = Cgroups::over(Settings::default(), Hierarchy::parse(&mounts).unwrap());
    let pod = pod("u1", &[("cpu", "500m")], &[]);
    kernel_files(
        &tree.join("cpu"),
        "kubepods/burstable/podu1",
        &[("cpu.shares", "1024"), ("cpuacct.usage", "77\n")],
    );
    kernel_files(
        &tree.join("memory"),
        "kubepods/burstable/podu1",
        &[("memory.usage_in_bytes", "1000\n"), ("memory.stat", "total_rss 10\ntotal_inactive_file 300\n")],
    );
    cgroups.ensure_pod(&pod, false).unwrap();
    assert_eq!(std::fs::read_to_string(tree.join("cpu/kubepods/burstable/podu1/cpu.shares")).unwrap(), "512");
    let stats = cgroups.pod_stats(&pod).unwrap();
    assert_eq!((stats.cpu_usage_nanos, stats.memory_working_set, stats.memory_rss), (77, 700, 10));
    assert_eq!(cgroups.pod_uids_on_disk(), ["u1"]);
    for file in [
        "cpu/kubepods/burstable/podu1/cpu.shares",
        "cpu/kubepods/burstable/podu1/cpuacct.usage",
        "memory/kubepods/burstable/podu1/memory.stat",
        "memory/kubepods/burstable/podu1/memory.usage_in_bytes",
    ] {
        std::fs::remove_file(tree.join(file)).unwrap();
    }
    assert!(cgroups.pod_exists("u1"));
    cgroups.remove_pod("u1").unwrap();
    assert!(!cgroups.pod_exists("u1"));
}
