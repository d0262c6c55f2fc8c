//! Resizes from the wish to the runtime and the control group, over trees made of plain directories.

use std::path::Path;

use super::*;
use crate::cgroups::Hierarchy;

/// Groups of version 1 below `root`.
pub(super) fn groups(root: &Path) -> Cgroups {
    let tree = |n: u8, name: &str, options: &str| {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).expect("create");
        format!("{n} 1 0:{n} / {} rw - cgroup cgroup rw,{options}\n", dir.display())
    };
    let mounts = format!("{}{}", tree(30, "cpu", "cpu,cpuacct"), tree(31, "memory", "memory"));
    let hierarchy = Hierarchy::parse(&mounts).expect("mounted");
    Cgroups::over(cgroups::Settings::default(), hierarchy)
}

struct Story {
    fake: FakeRuntime,
    house: House,
    groups: PathBuf,
}

impl Story {
    async fn new() -> Self {
        let fake = FakeRuntime::start(&["here:1"]).await;
        let root = std::env::temp_dir().join(format!("groups-{}", uuid::Uuid::new_v4()));
        let house = house_with(&fake, groups(&root), Record::in_memory());
        drop(house.agent.start_workers(Intervals::default(), &house.tasks));
        house.agent.inner.admission.lock().complete = true;
        Self { fake, house, groups: root }
    }

    fn group(&self, uid: &str) -> PathBuf {
        PathBuf::from(format!("kubepods/pod{uid}"))
    }

    /// The kernel's files, which plain directories do not have.
    fn give_files(&self, uid: &str, shares: u64, quota: i64, memory: i64) {
        let (cpu, memory_dir) =
            (self.groups.join("cpu").join(self.group(uid)), self.groups.join("memory").join(self.group(uid)));
        std::fs::write(cpu.join("cpu.shares"), shares.to_string()).expect("write");
        std::fs::write(cpu.join("cpu.cfs_quota_us"), quota.to_string()).expect("write");
        std::fs::write(cpu.join("cpu.cfs_period_us"), "100000").expect("write");
        std::fs::write(memory_dir.join("memory.limit_in_bytes"), memory.to_string()).expect("write");
        std::fs::write(memory_dir.join("memory.usage_in_bytes"), "1000").expect("write");
        std::fs::write(cpu.join("cpuacct.usage"), "0").expect("write");
    }

    fn files(&self, uid: &str) -> String {
        let read = |tree: &str, file: &str| {
            std::fs::read_to_string(self.groups.join(tree).join(self.group(uid)).join(file))
                .expect("is there")
        };
        let cpu = format!("{} {}", read("cpu", "cpu.shares"), read("cpu", "cpu.cfs_quota_us"));
        format!("{cpu} {}", read("memory", "memory.limit_in_bytes"))
    }

    fn resizes(&self, uid: &str) -> String {
        let all = self.house.agent.parts().resizes.of(uid);
        let words = all.iter().map(|c| format!("{} {}", c.type_, c.reason.clone().unwrap_or_default()));
        words.collect::<Vec<_>>().join("; ")
    }

    /// What the status shows of container `a`: CPU requested as allocated, and as in force.
    fn cpu(&self, uid: &str) -> (String, String) {
        let status = self.house.agent.parts().status.pod_status(uid).expect("reported");
        let a = status.container_statuses.iter().flatten().next().cloned().expect("a container");
        let of = |list: Option<
            &std::collections::BTreeMap<_, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
        >| { list.and_then(|l| l.get("cpu")).map(|q| q.0.clone()).unwrap_or_default() };
        (of(a.allocated_resources.as_ref()), of(a.resources.as_ref().and_then(|r| r.requests.as_ref())))
    }

    fn events(&self) -> Vec<String> {
        let lines = self.house.events.lines().into_iter().filter(|l| l.starts_with("Resize"));
        lines.map(|l| l.split(": {").next().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.groups));
    }
}

fn sized(uid: &str, generation: i64, cpu: &str, memory: &str) -> Arc<Pod> {
    let mut made = (*pod(&format!(
        "  containers: [{{name: a, image: 'here:1', resources: {{requests: {{cpu: {cpu}, memory: {memory}}}, \
         limits: {{cpu: {cpu}, memory: {memory}}}}}}}]\n"
    )))
    .clone();
    made.metadata.uid = Some(uid.to_owned());
    made.metadata.name = Some(uid.to_owned());
    made.metadata.generation = Some(generation);
    Arc::new(made)
}

/// What workers would do by themselves, done here one by one.
async fn settle(story: &Story, pod: &Arc<Pod>) -> Result<Synced, crate::pod_workers::SyncError> {
    story.house.agent.parts().pods.upsert(pod.clone());
    story.house.sync(pod).await
}

/// Takes a pod in without starting its worker.
fn take_in(story: &Story, pod: &Arc<Pod>) {
    let parts = story.house.agent.parts();
    parts.pods.upsert(pod.clone());
    if !parts.allocated.differs(pod) && parts.allocated.get(types::uid(pod)).is_none() {
        parts.allocated.set(pod);
    }
    story.house.agent.resize_wanted(pod);
}

#[tokio::test]
async fn a_wish_is_allocated_done_and_told() {
    let story = Story::new().await;
    let before = sized("u", 1, "100m", "100Mi");
    take_in(&story, &before);
    settle(&story, &before).await.expect("synced");
    story.give_files("u", 102, 10_000, 100 << 20);
    story.fake.calls();
    assert_eq!(story.cpu("u"), ("100m".into(), "100m".into()));

    let grown = sized("u", 2, "200m", "200Mi");
    take_in(&story, &grown);
    assert_eq!(story.resizes("u"), "PodResizeInProgress ");
    settle(&story, &grown).await.expect("synced");
    assert_eq!(
        story.fake.calls(),
        ["UpdateContainerResources a 102 10000 209715200", "UpdateContainerResources a 204 20000 209715200"]
    );
    assert_eq!(story.files("u"), "204 20000 209715200");
    assert_eq!((story.resizes("u").as_str(), story.cpu("u")), ("", ("200m".into(), "200m".into())));
    assert_eq!(
        story.events(),
        ["ResizeStarted: Pod resize started", "ResizeCompleted: Pod resize completed"]
    );
    assert!(settle(&story, &grown).await.is_ok() && story.fake.calls().is_empty(), "nothing is told twice");
}

#[tokio::test]
async fn without_room_a_wish_waits_until_there_is_some() {
    let story = Story::new().await;
    // The node has one CPU.
    let (small, other) = (sized("u", 1, "400m", "1Mi"), sized("v", 1, "500m", "1Mi"));
    take_in(&story, &small);
    settle(&story, &small).await.expect("synced");
    // The other is held by a worker, as every pod that runs.
    story.house.agent.pod_changed(&other).await;
    let wish = sized("u", 2, "600m", "1Mi");
    take_in(&story, &wish);
    assert_eq!(story.resizes("u"), "PodResizePending Deferred");
    settle(&story, &wish).await.expect("synced");
    assert_eq!(story.cpu("u"), ("400m".into(), "400m".into()), "it goes on with what it has");
    let condition = story.house.agent.parts().resizes.of("u").remove(0);
    assert_eq!(
        (condition.message.as_deref(), condition.observed_generation),
        (Some("Node didn't have enough resource: cpu, requested: 600, used: 500, capacity: 1000"), Some(2))
    );
    assert_eq!(story.house.condition("u", "PodResizePending"), "True");
    story.house.agent.pod_removed(&other);
    story.house.agent.parts().runtime.actuated().remove("v");
    story.house.agent.parts().allocated.remove("v");
    // Its worker lets go of it when it has ended.
    let workers = story.house.agent.workers();
    while workers.view("v").is_some_and(|v| v.stage < crate::pod_workers::Stage::Terminated) {
        tokio::task::yield_now().await;
    }
    story.house.agent.retry_resizes();
    assert_eq!(story.resizes("u"), "PodResizeInProgress ");
    settle(&story, &wish).await.expect("synced");
    assert_eq!(story.cpu("u"), ("600m".into(), "600m".into()));
    assert_eq!(
        story.events(),
        [
            "ResizeDeferred: Pod resize OutOfcpu",
            "ResizeStarted: Pod resize started",
            "ResizeCompleted: Pod resize completed"
        ]
    );
}

#[tokio::test]
async fn a_wish_taken_back_waits_no_more() {
    let story = Story::new().await;
    let pod = sized("u", 1, "400m", "1Mi");
    take_in(&story, &pod);
    settle(&story, &pod).await.expect("synced");
    take_in(&story, &sized("u", 2, "2", "1Mi"));
    assert_eq!(story.resizes("u"), "PodResizePending Deferred");
    take_in(&story, &sized("u", 3, "400m", "1Mi"));
    assert_eq!(story.resizes("u"), "");
}

#[tokio::test]
async fn memory_in_use_is_not_taken_away() {
    let story = Story::new().await;
    let pod = sized("u", 1, "100m", "100Mi");
    take_in(&story, &pod);
    settle(&story, &pod).await.expect("synced");
    story.give_files("u", 102, 10_000, 100 << 20);
    story.fake.state.lock().memory.insert("a".into(), 5000);
    story.fake.calls();
    let tiny = sized("u", 2, "100m", "1Ki");
    take_in(&story, &tiny);
    let error = settle(&story, &tiny).await.expect_err("too small");
    assert!(error.message.contains("cannot decrease memory limits: "), "{error}");
    assert_eq!(story.resizes("u"), "PodResizeInProgress Error");
    let message = story.house.agent.parts().resizes.of("u").remove(0).message.unwrap_or_default();
    assert_eq!(
        message,
        "cannot decrease memory limits: attempting to set container \"a\" memory limit (1024) below current usage (5000)"
    );
    assert!(story.fake.calls().is_empty());
    assert_eq!(story.files("u"), "102 10000 104857600");
    let back = sized("u", 3, "100m", "100Mi");
    take_in(&story, &back);
    settle(&story, &back).await.expect("synced");
    assert_eq!(story.resizes("u"), "");
    assert_eq!(
        story.events()[1..],
        [
            "ResizeError: Pod resize error",
            "ResizeStarted: Pod resize started",
            "ResizeCompleted: Pod resize completed"
        ]
    );
}

#[tokio::test]
async fn a_restart_forgets_no_allocation() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    let path = std::env::temp_dir().join(format!("allocated-{}", uuid::Uuid::new_v4()));
    let plain = || {
        let settings = cgroups::Settings { cgroups_per_qos: false, ..cgroups::Settings::default() };
        Cgroups::new(settings).expect("the hierarchy is mounted")
    };
    let first = house_with(&fake, plain(), Record::open(path.clone()));
    drop(first.agent.start_workers(Intervals::default(), &first.tasks));
    first.agent.pod_changed(&sized("u", 1, "400m", "1Mi")).await;
    first.tasks.shut_down().await.expect("no failure");
    // While no kubelet ran, the pod was wished a size that the node does not have.
    let again = house_with(&fake, plain(), Record::open(path.clone()));
    let workers = again.agent.start_workers(Intervals::default(), &again.tasks);
    again.agent.pod_changed(&sized("u", 2, "7", "1Mi")).await;
    assert!(workers.view("u").is_some(), "it is admitted with what it was given");
    assert!(again.agent.parts().resizes.of("u").is_empty(), "nothing is decided before all pods are known");
    again.agent.inner.admission.lock().complete = true;
    again.agent.retry_resizes();
    let told = again.agent.parts().resizes.of("u");
    assert_eq!(told[0].reason.as_deref(), Some("Deferred"));
    std::fs::remove_file(path).expect("was written");
    again.tasks.shut_down().await.expect("no failure");
}
