//! The rollback that clients of old API versions ask for by annotation.

use super::plan::{Outcome, Plan, Sets};
use super::{annotations, sets};
use crate::common::meta;
use client::events::EventType;
use k8s_openapi::api::apps::v1::Deployment;

/// The revision asked for; 0 for the last one.
pub fn asked_for(deployment: &Deployment) -> Option<i64> {
    meta::annotation(&deployment.metadata, annotations::ROLLBACK_TO)?.parse().ok()
}

/// Gives the Deployment the template of that revision, or says why not; the request is done with either way.
pub fn plan(deployment: &Deployment, work: &Sets, revision: i64) -> Plan {
    let mut changed = deployment.clone();
    if let Some(annotations) = &mut changed.metadata.annotations {
        annotations.remove(annotations::ROLLBACK_TO);
    }
    let give_up = |reason, message: String, changed| Plan {
        events: vec![(reason, EventType::Warning, message)],
        rolled_back: None,
        outcome: Outcome::Replace(Box::new(changed)),
    };
    let revision = if revision == 0 { annotations::last_revision(work.all()) } else { revision };
    if revision == 0 {
        let message = "Unable to find last revision.".to_owned();
        return give_up("DeploymentRollbackRevisionNotFound", message, changed);
    }
    let Some(target) = work.all().find(|set| annotations::revision(set) == revision) else {
        let message = "Unable to find the revision to rollback to.".to_owned();
        return give_up("DeploymentRollbackRevisionNotFound", message, changed);
    };
    let name = meta::name(&deployment.metadata);
    if sets::same_template(deployment, target) {
        let message =
            format!("The rollback revision contains the same template as current deployment {name:?}");
        return give_up("DeploymentRollbackTemplateUnchanged", message, changed);
    }
    let template = target.spec.as_ref().and_then(|spec| spec.template.as_ref());
    changed.spec.get_or_insert_default().template = template.map(sets::without_hash).unwrap_or_default();
    annotations::restore(&mut changed, target);
    Plan {
        events: Vec::new(),
        rolled_back: Some(format!("Rolled back deployment {name:?} to revision {revision}")),
        outcome: Outcome::Replace(Box::new(changed)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sets::tests::{deployment, set, template};
    use super::*;

    #[test]
    fn template_of_the_revision_comes_back() {
        let mut deployment = deployment(1, "1", "0");
        deployment.metadata.annotations =
            Some([(annotations::ROLLBACK_TO.to_owned(), "0".to_owned())].into());
        let (mut old, mut new) = (set("old", "old", 1, 0, 0), set("new", "new", 2, 1, 1));
        annotations::sync_new(&Deployment::default(), &mut old, 1);
        annotations::sync_new(&Deployment::default(), &mut new, 2);
        let work = Sets { new: Some(new), old: vec![old] };
        for (revision, image, reason) in [
            (0, "old", None),
            (1, "old", None),
            (2, "new", Some("DeploymentRollbackTemplateUnchanged")),
            (7, "new", Some("DeploymentRollbackRevisionNotFound")),
        ] {
            let plan = plan(&deployment, &work, revision);
            let Outcome::Replace(changed) = plan.outcome else {
                panic!("a rollback replaces the deployment")
            };
            assert_eq!(changed.spec.map(|spec| spec.template), Some(template(image)));
            assert_eq!(plan.events.first().map(|event| event.0), reason);
            assert_eq!(meta::annotation(&changed.metadata, annotations::ROLLBACK_TO), None);
        }
    }
}
