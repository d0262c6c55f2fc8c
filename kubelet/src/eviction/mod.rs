//! Keeps the node alive when memory, disk or process numbers run short: reports pressure, removes unused images, and
//! stops one pod at a time until there is enough again. Pods that keep more on disk than they may have to go anyhow.

pub mod local;
pub mod rank;
pub mod threshold;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use crate::allocation::Record;
use crate::cgroups::Cgroups;
use crate::events::Events;
use crate::images::gc::{self, GcPolicy, ImageGc, Usage};
use crate::layout::Layout;
use crate::node_status::Pressure;
use crate::node_status::machine::{file_system, meminfo};
use crate::pod_workers::{KillOptions, PodWorkers, Stage};
use crate::pods::PodRegistry;
use crate::runtime::Runtime;
use crate::status::Verdict;
use crate::{quantity, types};
use local::Kept;
use rank::{Candidate, evictable, rank};
use threshold::{Observation, Observations, Signal, Threshold, met};

const PERIOD: Duration = Duration::from_secs(10);
const IMAGE_GC_PERIOD: Duration = Duration::from_secs(300);
/// Looking at disks may take a tenth of the time.
const DISK_SHARE: u32 = 10;
/// Why they went, in one word.
const EVICTED: &str = "Evicted";
/// Grace of pods that go at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long a pod that was sent away may take to give back what it had, and how often that is looked at.
const RELEASE_PATIENCE: Duration = Duration::from_secs(30);
const RELEASE_POLL: Duration = Duration::from_secs(1);

/// Parts of the eviction loop.
pub struct Eviction {
    /// Thresholds, hard and soft.
    pub thresholds: Vec<Threshold>,
    /// Pressure lasts at least this long after it was last seen.
    pub transition: Duration,
    /// Longest grace of a pod that goes for a soft threshold.
    pub max_grace: Duration,
    /// When images are removed.
    pub images: GcPolicy,
    /// The runtime.
    pub runtime: Runtime,
    /// Pods of this node.
    pub pods: PodRegistry,
    /// What they were allocated.
    pub allocated: Record,
    /// Their workers.
    pub workers: PodWorkers,
    /// Control groups, for what pods use.
    pub cgroups: Cgroups,
    /// Events.
    pub events: Events,
    /// Where pressure is told to others.
    pub pressure: Arc<RwLock<Pressure>>,
    /// Told when pressure changed.
    pub poke: Arc<Notify>,
    /// Where things lie on disk.
    pub layout: Layout,
    /// Memory of the machine in bytes.
    pub memory: u64,
}

/// When thresholds were first and last seen met.
#[derive(Default)]
struct Seen {
    first: BTreeMap<usize, Instant>,
    last: BTreeMap<&'static str, Instant>,
    images: ImageGc,
    /// When disks are looked at again.
    disk_due: Option<Instant>,
}

impl Eviction {
    /// Starts watching resources and collecting images.
    pub fn run(self, tasks: &Tasks) {
        tasks.spawn("eviction", |token| async move {
            let mut tick = tokio::time::interval(PERIOD);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut seen = Seen::default();
            let mut collected = Instant::now();
            loop {
                tokio::select! { () = token.cancelled() => return, _ = tick.tick() => {} }
                tokio::select! { () = token.cancelled() => return, () = self.look(&mut seen) => {} }
                if collected.elapsed() >= IMAGE_GC_PERIOD {
                    collected = Instant::now();
                    self.collect_images(&mut seen, self.images).await;
                }
            }
        });
    }

    async fn look(&self, seen: &mut Seen) {
        let observed = self.observe().await;
        let now = Instant::now();
        let met_now = met(&self.thresholds, &observed);
        for threshold in &met_now {
            seen.last.insert(condition(threshold.signal), now);
        }
        let index = |t: &Threshold| self.thresholds.iter().position(|x| x == t);
        let indices: Vec<usize> = met_now.iter().filter_map(|t| index(t)).collect();
        seen.first.retain(|i, _| indices.contains(i));
        for i in &indices {
            seen.first.entry(*i).or_insert(now);
        }
        self.tell_pressure(seen, now);
        if self.enforce_limits(seen).await {
            return;
        }
        let due = |t: &&Threshold| {
            index(t).and_then(|i| seen.first.get(&i)).is_some_and(|at| now.duration_since(*at) >= t.grace)
        };
        // Memory first: it is what kills the node soonest.
        let Some(threshold) = met_now.into_iter().filter(due).min_by_key(|t| (t.signal, t.grace)).copied()
        else {
            return;
        };
        self.reclaim(seen, &threshold, &observed).await;
    }

    fn tell_pressure(&self, seen: &Seen, now: Instant) {
        let lasts = |kind: &str| {
            seen.last.get(kind).is_some_and(|at| now.duration_since(*at) < self.transition.max(PERIOD))
        };
        let new = Pressure { memory: lasts("memory"), disk: lasts("disk"), pid: lasts("pid") };
        let mut pressure = self.pressure.write();
        if *pressure != new {
            *pressure = new;
            self.poke.notify_one();
        }
    }

    async fn observe(&self) -> Observations {
        let mut observed = Observations::new();
        let text = tokio::fs::read_to_string("/proc/meminfo").await.unwrap_or_default();
        let field = |key| meminfo(&text, key).and_then(|v| u64::try_from(v).ok());
        if let (Some(free), Some(inactive)) = (field("MemFree"), field("Inactive(file)")) {
            let available = free + inactive + field("SReclaimable").unwrap_or_default();
            observed.insert(Signal::MemoryAvailable, Observation { capacity: self.memory, available });
        }
        let images = self.image_directory().await;
        for (path, space, inodes) in [
            (Some(self.layout.root().to_owned()), Signal::NodeFsAvailable, Signal::NodeFsInodesFree),
            (images, Signal::ImageFsAvailable, Signal::ImageFsInodesFree),
        ] {
            let Some(path) = path else { continue };
            let Ok(Ok(found)) = tokio::task::spawn_blocking(move || file_system(&path)).await else {
                continue;
            };
            observed.insert(space, Observation { capacity: found.capacity, available: found.available });
            if found.inodes > 0 {
                observed.insert(inodes, Observation { capacity: found.inodes, available: found.inodes_free });
            }
        }
        observed.extend(pids().await.map(|o| (Signal::PidAvailable, o)));
        observed
    }

    async fn image_directory(&self) -> Option<PathBuf> {
        let info = self.runtime.image_fs_info().await.ok()?;
        Some(PathBuf::from(info.image_filesystems.into_iter().next()?.fs_id?.mountpoint))
    }

    async fn reclaim(&self, seen: &mut Seen, threshold: &Threshold, observed: &Observations) {
        tracing::warn!(resource = threshold.signal.resource(), "attempting to reclaim");
        if condition(threshold.signal) == "disk" {
            let all = GcPolicy { high_percent: 0, low_percent: 0, ..self.images };
            if self.collect_images(seen, all).await > 0 {
                return;
            }
        }
        let resource = threshold.signal.resource();
        let ranked = rank(self.candidates(resource).await, resource);
        let Some(first) = ranked.into_iter().find(|c| evictable(&c.pod)) else {
            tracing::warn!(resource, "must evict a pod to reclaim, but no pods are evictable");
            return;
        };
        self.evict(&first, threshold, observed);
        self.released(types::uid(&first.pod)).await;
    }

    /// As upstream's `waitForPodsCleanup`: what the pod had comes free before another has to go for it.
    async fn released(&self, uid: &str) {
        let finished = || self.workers.view(uid).is_none_or(|view| view.stage == Stage::Finished);
        let released = async {
            while !finished() {
                tokio::time::sleep(RELEASE_POLL).await;
            }
        };
        if tokio::time::timeout(RELEASE_PATIENCE, released).await.is_err() {
            tracing::warn!(uid, "an evicted pod has not yet given back what it had");
        }
    }

    /// Pods that are to run, by what they were given, not by what they wish.
    fn active(&self) -> Vec<Arc<Pod>> {
        let active =
            |pod: &Arc<Pod>| self.workers.view(types::uid(pod)).is_some_and(|v| v.stage == Stage::Syncing);
        let pods = self.pods.pods();
        pods.iter().filter(|pod| active(pod)).map(|pod| self.allocated.applied(pod)).collect()
    }

    async fn candidates(&self, resource: &str) -> Vec<Candidate> {
        let pods = self.active();
        if matches!(resource, "ephemeral-storage" | "inodes") {
            let used = |kept: Kept| {
                if resource == "inodes" { kept.total().inodes } else { kept.total().bytes }
            };
            let measured = self.measure(pods).await.into_iter();
            return measured.map(|(pod, kept)| Candidate { used: used(kept), pod }).collect();
        }
        let (cgroups, memory) = (self.cgroups.clone(), resource == "memory");
        let measured = move || {
            let used = |pod: &Pod| {
                let stats = cgroups.pod_stats(pod).unwrap_or_default();
                if memory { stats.memory_working_set } else { stats.processes }
            };
            pods.into_iter().map(|pod| Candidate { used: used(&pod), pod }).collect()
        };
        tokio::task::spawn_blocking(measured).await.unwrap_or_default()
    }

    /// What these pods keep on the node's disk.
    async fn measure(&self, pods: Vec<Arc<Pod>>) -> Vec<(Arc<Pod>, Kept)> {
        let layers = match self.runtime.list_container_stats(None).await {
            Ok(stats) => local::layers(&stats),
            Err(error) => {
                tracing::warn!(%error, "what containers have written is not known");
                local::Layers::new()
            }
        };
        let layout = self.layout.clone();
        let measured = move || {
            let kept = |pod: &Pod| Kept::measure(pod, &layout, &layers);
            pods.into_iter().map(|pod| (pod.clone(), kept(&pod))).collect()
        };
        tokio::task::spawn_blocking(measured).await.unwrap_or_default()
    }

    /// Pods go that keep more on disk than they may; whether there were any.
    async fn enforce_limits(&self, seen: &mut Seen) -> bool {
        let begin = Instant::now();
        if seen.disk_due.is_some_and(|due| begin < due) {
            return false;
        }
        let limited: Vec<_> =
            self.active().into_iter().filter(|pod| local::is_limited(pod) && evictable(pod)).collect();
        if limited.is_empty() {
            return false;
        }
        let apart = self.images_lie_apart().await;
        let mut any = false;
        for (pod, kept) in self.measure(limited).await {
            if let Some((signal, message)) = local::excess(&pod, &kept, apart) {
                any = true;
                self.send_away(
                    &pod,
                    signal,
                    Verdict { reason: EVICTED.to_owned(), message, disruption: false },
                    AT_ONCE,
                );
            }
        }
        seen.disk_due = Some(Instant::now() + begin.elapsed() * DISK_SHARE);
        any
    }

    /// Whether images, and what containers write over them, have a disk of their own.
    async fn images_lie_apart(&self) -> bool {
        let disk = |path: PathBuf| std::fs::metadata(path).map(|found| found.dev()).ok();
        let Some(images) = self.image_directory().await.and_then(disk) else { return false };
        disk(self.layout.root().to_owned()).is_some_and(|own| own != images)
    }

    fn evict(&self, candidate: &Candidate, threshold: &Threshold, observed: &Observations) {
        let pod = &candidate.pod;
        let mut message = format!("The node was low on resource: {}. ", threshold.signal.resource());
        if let Some(seen) = observed.get(&threshold.signal) {
            let text = |n: u64| quantity::from_bytes(i64::try_from(n).unwrap_or(i64::MAX)).0;
            let (limit, left) = (text(threshold.amount.of(seen.capacity)), text(seen.available));
            message.push_str(&format!("Threshold quantity: {limit}, available: {left}. "));
        }
        let grace = if threshold.grace.is_zero() { AT_ONCE } else { self.max_grace };
        let verdict = Verdict { reason: EVICTED.to_owned(), message, disruption: true };
        self.send_away(pod, threshold.signal.name(), verdict, grace);
    }

    fn send_away(&self, pod: &Arc<Pod>, signal: &'static str, verdict: Verdict, grace: Duration) {
        metrics::counter!("kubelet_evictions", "eviction_signal" => signal).increment(1);
        tracing::warn!(pod = types::format_pod(pod), verdict.message, "evicting pod");
        self.events.warning(pod, EVICTED, verdict.message.clone());
        let options = KillOptions { grace: Some(grace), verdict: Some(verdict), evict: true };
        self.workers.kill(types::uid(pod), &options);
    }

    async fn collect_images(&self, seen: &mut Seen, policy: GcPolicy) -> usize {
        let Some(path) = self.image_directory().await else { return 0 };
        let Ok(Ok(found)) = tokio::task::spawn_blocking(move || file_system(&path)).await else { return 0 };
        let usage = Usage { capacity: found.capacity, available: found.available };
        // The image of sandboxes belongs to no container; without it nothing could start.
        let pinned = self.sandbox_images().await;
        match gc::collect(&mut seen.images, &self.runtime, usage, &policy, &pinned).await {
            Ok(count) => count,
            Err(error) => {
                tracing::warn!(%error, "image garbage collection failed");
                0
            }
        }
    }

    /// Images that look like the runtime's sandbox image. Newer runtimes pin theirs themselves.
    async fn sandbox_images(&self) -> Vec<String> {
        let images = self.runtime.list_images().await.unwrap_or_default();
        let is_pause = |name: &String| {
            let (repository, _) = crate::images::name::split_tag(name);
            repository.rsplit('/').next() == Some("pause")
        };
        images.into_iter().filter(|i| i.repo_tags.iter().any(is_pause)).map(|i| i.id).collect()
    }
}

/// Which condition of the node a signal belongs to.
fn condition(signal: Signal) -> &'static str {
    match signal {
        Signal::MemoryAvailable => "memory",
        Signal::PidAvailable => "pid",
        _ => "disk",
    }
}

async fn pids() -> Option<Observation> {
    let max = tokio::fs::read_to_string("/proc/sys/kernel/pid_max").await.ok()?;
    let load = tokio::fs::read_to_string("/proc/loadavg").await.ok()?;
    let capacity: u64 = max.trim().parse().ok()?;
    let running: u64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(Observation { capacity, available: capacity.saturating_sub(running) })
}

/// The policy for images in a configuration.
#[must_use]
pub fn image_policy(config: &crate::config::KubeletConfiguration) -> GcPolicy {
    GcPolicy {
        high_percent: config.image_gc_high_threshold_percent,
        low_percent: config.image_gc_low_threshold_percent,
        min_age: config.image_minimum_gc_age.0,
        max_age: config.image_maximum_gc_age.0,
    }
}
