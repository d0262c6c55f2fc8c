//! Decides which pods of a job come and go.

use super::backoff::{self, Backoff};
use super::indexes::{self, INDEX, Indexes};
use super::policy;
use super::view::{self, FAILURES, IGNORED_FAILURES, TRACKING, View};
use crate::common::{meta, pods};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How many pods one reconcile creates or deletes at most.
const BURST: usize = 500;

/// What to do.
#[derive(Debug, Default)]
pub struct Manage {
    /// Pods to create.
    pub create: Vec<Pod>,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// Whether they are let go uncounted: they are not wanted, which is no failure.
    pub uncounted: bool,
    /// When to look again, because replacements have to wait.
    pub wait: Option<Duration>,
}

/// Decides. A job that has ended loses its running pods; a job that is being deleted is left alone.
pub fn manage(view: &View, backoff: &Backoff) -> Manage {
    if view.finished.is_some() {
        return Manage { delete: view.active.clone(), ..Default::default() };
    }
    if meta::is_deleting(&view.job.metadata) {
        return Manage::default();
    }
    if view::is_suspended(&view.job) {
        return Manage { delete: view.active.clone(), uncounted: true, ..Default::default() };
    }
    let active = view.active.len();
    let wanted = wanted(view);
    let delete = surplus(view, active.saturating_sub(wanted));
    if !delete.is_empty() {
        return Manage {
            delete: delete.into_iter().take(BURST).collect(),
            uncounted: true,
            ..Default::default()
        };
    }
    let terminating = if view::replaces_only_failed(&view.job) {
        view.pods.iter().filter(|pod| pods::is_terminating(pod)).count()
    } else {
        0
    };
    create(view, backoff, wanted.saturating_sub(active + terminating).min(BURST))
}

fn wanted(view: &View) -> usize {
    let spec = view::spec(&view.job);
    let parallelism = spec.parallelism.unwrap_or(1);
    let wanted = match spec.completions {
        // The first success says that the work is done; those that run may finish.
        None if view.succeeded > 0 => return view.active.len(),
        None => parallelism,
        Some(completions) => (completions - view.succeeded).min(parallelism),
    };
    usize::try_from(wanted).unwrap_or(0)
}

/// Pods that are too many: doubles of an index first, then the least useful.
fn surplus(view: &View, at_least: usize) -> Vec<Arc<Pod>> {
    let (mut gone, mut left) = (Vec::new(), view.active.clone());
    if view::is_indexed(&view.job) {
        let mut by_index: BTreeMap<i32, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in std::mem::take(&mut left) {
            match view.index(&pod) {
                Some(index) => by_index.entry(index).or_default().push(pod),
                None => gone.push(pod),
            }
        }
        for (_, mut same) in by_index {
            same.sort_by(|a, b| pods::by_activity(a, b));
            left.extend(same.pop());
            gone.extend(same);
        }
    }
    if gone.len() < at_least {
        left.sort_by(|a, b| pods::by_activity(a, b));
        let more = at_least - gone.len();
        gone.extend(left.into_iter().take(more));
    }
    gone
}

fn create(view: &View, backoff: &Backoff, count: usize) -> Manage {
    if count == 0 {
        return Manage::default();
    }
    let per_index = view.failed_indexes.is_some();
    if !per_index && let Some(wait) = backoff.remaining(view.now) {
        return Manage { wait: Some(wait), ..Default::default() };
    }
    if !view::is_indexed(&view.job) {
        return Manage { create: vec![template(view); count], ..Default::default() };
    }
    let mut taken = view.succeeded_indexes.clone();
    taken.extend(view.active.iter().filter_map(|pod| indexes::of(pod)));
    if view::replaces_only_failed(&view.job) {
        taken.extend(
            view.pods.iter().filter(|pod| pods::is_terminating(pod)).filter_map(|pod| indexes::of(pod)),
        );
    }
    let completions = view::completions(&view.job);
    let failed =
        |index: i32| view.failed_indexes.as_ref().is_some_and(|failed: &Indexes| failed.contains(index));
    taken.extend((0..completions).filter(|index| failed(*index)));
    let mut manage = Manage::default();
    for index in taken.first_missing(count, completions) {
        let wait = view.delayed.get(&index).filter(|_| per_index).and_then(|last| {
            let failures = backoff::count(last, FAILURES) + backoff::count(last, IGNORED_FAILURES) + 1;
            backoff::remaining(failures, backoff::finished_at(last), view.now)
        });
        match wait {
            Some(wait) => manage.wait = Some(manage.wait.map_or(wait, |other| other.min(wait))),
            None => manage.create.push(indexed(view, index)),
        }
    }
    manage
}

fn template(view: &View) -> Pod {
    let owner = meta::controller_reference(&view.job);
    let mut pod = pods::from_template(&view::spec(&view.job).template, meta::name(&view.job.metadata), owner);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    pod
}

fn indexed(view: &View, index: i32) -> Pod {
    let mut pod = template(view);
    let name = meta::name(&view.job.metadata);
    pod.metadata.generate_name = Some(generate_name(name, index));
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if view.failed_indexes.is_some() {
        let (failures, ignored) = view.delayed.get(&index).map_or((0, 0), |last| {
            let (failures, ignored) =
                (backoff::count(last, FAILURES), backoff::count(last, IGNORED_FAILURES));
            if policy::judge(&view.job, last).counts() {
                (failures + 1, ignored)
            } else {
                (failures, ignored + 1)
            }
        });
        annotations.insert(FAILURES.to_owned(), failures.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED_FAILURES.to_owned(), ignored.to_string());
        }
    }
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    spec.init_containers.iter_mut().flatten().chain(&mut spec.containers).for_each(add_index_variable);
    pod
}

/// `job-3-`, with the job's name cut where the whole would be too long.
fn generate_name(job: &str, index: i32) -> String {
    let suffix = format!("-{index}-");
    let room = 58_usize.saturating_sub(suffix.len());
    format!("{}{suffix}", &job[..job.len().min(room)])
}

fn add_index_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == "JOB_COMPLETION_INDEX") {
        return;
    }
    variables.push(EnvVar {
        name: "JOB_COMPLETION_INDEX".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{INDEX}']"),
                api_version: None,
            }),
            ..Default::default()
        }),
        value: None,
    });
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{job, pods};
    use super::*;
    use crate::common::pods::tests::at;
    use k8s_openapi::api::batch::v1::JobSpec;

    fn managed(spec: JobSpec, have: &str) -> (Vec<Option<i32>>, usize, bool) {
        let view = View::new(job(spec), pods(have), at(100_000));
        let manage = manage(&view, &Backoff::default());
        (manage.create.iter().map(indexes::of).collect(), manage.delete.len(), manage.uncounted)
    }

    #[test]
    fn pods_come_and_go_with_the_work_left() {
        let spec = |parallelism, completions| JobSpec {
            parallelism: Some(parallelism),
            completions,
            ..Default::default()
        };
        for (spec, have, create, delete) in [
            (spec(2, Some(5)), "", 2, 0),
            (spec(2, Some(5)), "r s s", 1, 0),
            (spec(2, Some(3)), "s s", 1, 0),
            (spec(2, Some(3)), "r r s s", 0, 1),
            (spec(1, Some(3)), "r r", 0, 1),
            (spec(0, Some(3)), "r", 0, 1),
            (spec(3, None), "r", 2, 0),
            (spec(3, None), "r r s", 0, 0),
            (JobSpec { suspend: Some(true), ..spec(2, Some(2)) }, "r r", 0, 2),
            (JobSpec { backoff_limit: Some(0), ..spec(2, Some(2)) }, "r f", 0, 1),
        ] {
            let (created, deleted, _) = managed(spec, have);
            assert_eq!((created.len(), deleted), (create, delete), "{have}");
        }
    }

    #[test]
    fn missing_indexes_are_filled_from_the_bottom() {
        let spec = |per_index: Option<i32>| JobSpec {
            completion_mode: Some("Indexed".into()),
            parallelism: Some(3),
            completions: Some(6),
            backoff_limit_per_index: per_index,
            ..Default::default()
        };
        for (have, create, delete) in
            [("", vec![0, 1, 2], 0), ("s0 r2", vec![1, 3], 0), ("r0 r0 r1", vec![], 1), ("r7 r0", vec![], 1)]
        {
            let (created, deleted, _) = managed(spec(None), have);
            assert_eq!((created, deleted), (create.into_iter().map(Some).collect(), delete), "{have}");
        }
        // An index that has used up its failures is not tried again.
        assert_eq!(managed(spec(Some(0)), "f0 r1").0, [Some(2), Some(3)]);
    }

    #[test]
    fn names_carry_the_index() {
        assert_eq!(generate_name("job", 3), "job-3-");
        assert_eq!(generate_name(&"j".repeat(70), 12).len(), 58);
    }
}
