//! Removes unused images when the disk fills up, oldest use first. As upstream's `image_gc_manager`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use proto::cri;

use crate::runtime::Runtime;

/// When images are removed.
#[derive(Clone, Copy, Debug)]
pub struct GcPolicy {
    /// Above this share of the disk in use, removal starts.
    pub high_percent: u8,
    /// It goes on until this share is reached.
    pub low_percent: u8,
    /// Images younger than this stay.
    pub min_age: Duration,
    /// Images unused for longer go in any case; zero for never.
    pub max_age: Duration,
}

/// What is known of one image.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    first_detected: Timestamp,
    last_used: Timestamp,
    size: u64,
    pinned: bool,
}

/// Images seen so far, and when they were last used.
#[derive(Debug, Default)]
pub struct ImageGc {
    records: HashMap<String, Record>,
}

/// Use of the file system that holds images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Size in bytes.
    pub capacity: u64,
    /// Free for use, in bytes.
    pub available: u64,
}

/// How many bytes must be freed, if any.
#[must_use]
pub fn bytes_to_free(usage: Usage, policy: &GcPolicy) -> u64 {
    if usage.capacity == 0 {
        return 0;
    }
    let available = usage.available.min(usage.capacity);
    let used_percent = 100 - (available * 100 / usage.capacity);
    if used_percent < u64::from(policy.high_percent) {
        return 0;
    }
    (usage.capacity * (100 - u64::from(policy.low_percent)) / 100).saturating_sub(available)
}

impl ImageGc {
    /// Takes note of the images here and which of them are in use.
    pub fn observe(&mut self, images: &[cri::Image], in_use: &HashSet<String>, now: Timestamp) {
        let here: HashSet<&str> = images.iter().map(|i| i.id.as_str()).collect();
        self.records.retain(|id, _| here.contains(id.as_str()));
        for image in images {
            let record = self.records.entry(image.id.clone()).or_insert(Record {
                first_detected: now,
                last_used: Timestamp::UNIX_EPOCH,
                size: 0,
                pinned: false,
            });
            let names = image.repo_tags.iter().chain(&image.repo_digests);
            if in_use.contains(&image.id) || names.into_iter().any(|n| in_use.contains(n)) {
                record.last_used = now;
            }
            record.size = image.size;
            record.pinned = image.pinned;
        }
    }

    /// Which images to remove to free `bytes`, those unused longest first.
    #[must_use]
    pub fn plan(&self, bytes: u64, policy: &GcPolicy, now: Timestamp) -> Vec<String> {
        let age = |since: Timestamp| Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let mut unused: Vec<_> =
            self.records.iter().filter(|(_, r)| !r.pinned && r.last_used < now).collect();
        unused.sort_by_key(|(id, r)| (r.last_used, r.first_detected, (*id).clone()));
        let (mut chosen, mut freed) = (Vec::new(), 0);
        for (id, record) in unused {
            let too_old = !policy.max_age.is_zero()
                && age(record.last_used.max(record.first_detected)) > policy.max_age;
            if too_old || (freed < bytes && age(record.first_detected) >= policy.min_age) {
                freed += record.size;
                chosen.push(id.clone());
            }
        }
        chosen
    }
}

/// Looks at the images and removes what the policy says; answers how many went.
pub async fn collect(
    gc: &mut ImageGc,
    runtime: &Runtime,
    usage: Usage,
    policy: &GcPolicy,
    sandbox_images: &[String],
) -> Result<usize, crate::runtime::Error> {
    let now = Timestamp::now();
    let images = runtime.list_images().await?;
    let containers = runtime.list_containers(None).await?;
    let mut in_use: HashSet<String> = sandbox_images.iter().cloned().collect();
    for container in containers {
        // Images that are volumes show only in what is mounted.
        if container.state == cri::ContainerState::ContainerRunning as i32 {
            let status = runtime.container_status(&container.id).await;
            in_use.extend(status.into_iter().flat_map(|s| s.mounts).filter_map(|m| m.image).map(|i| i.image));
        }
        in_use.insert(container.image_ref);
        in_use.insert(container.image_id);
        in_use.extend(container.image.map(|i| i.image));
    }
    gc.observe(&images, &in_use, now);
    let chosen = gc.plan(bytes_to_free(usage, policy), policy, now);
    for id in &chosen {
        tracing::info!(image = id, "removing image to free bytes");
        runtime.remove_image(cri::ImageSpec { image: id.clone(), ..Default::default() }).await?;
    }
    Ok(chosen.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: GcPolicy = GcPolicy {
        high_percent: 85,
        low_percent: 80,
        min_age: Duration::from_secs(120),
        max_age: Duration::ZERO,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn image(id: &str, size: u64, pinned: bool) -> cri::Image {
        cri::Image { id: id.into(), size, pinned, ..Default::default() }
    }

    #[test]
    fn removal_starts_above_high_and_goes_down_to_low() {
        let cases = [(1000, 1000, 0), (1000, 160, 0), (1000, 151, 49), (1000, 0, 200), (0, 0, 0)];
        for (capacity, available, free) in cases {
            assert_eq!(
                bytes_to_free(Usage { capacity, available }, &POLICY),
                free,
                "{available} of {capacity}"
            );
        }
    }

    #[test]
    fn unused_longest_goes_first_and_young_or_pinned_or_used_stay() {
        let mut gc = ImageGc::default();
        let old = [image("a", 10, false), image("b", 10, false), image("p", 10, true)];
        gc.observe(&old, &HashSet::from(["a".to_owned()]), at(1));
        let all = [old.as_slice(), &[image("young", 10, false), image("used", 10, false)]].concat();
        gc.observe(&all, &HashSet::from(["used".to_owned()]), at(1000));
        assert_eq!(gc.plan(1, &POLICY, at(1001)), ["b"]);
        assert_eq!(gc.plan(100, &POLICY, at(1001)), ["b", "a"]);
        gc.observe(&all, &HashSet::from(["used".to_owned()]), at(2000));
        assert_eq!(gc.plan(100, &POLICY, at(2000)), ["b", "young", "a"]);
        assert_eq!(gc.plan(0, &POLICY, at(2000)), [] as [&str; 0]);
        let max = GcPolicy { max_age: Duration::from_secs(1500), ..POLICY };
        assert_eq!(gc.plan(0, &max, at(2000)), ["b", "a"]);
    }
}
