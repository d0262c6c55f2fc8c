//! The flow schemas and priority levels that every cluster has, and what is done about them when they have been changed
//! (upstream `registry/flowcontrol/ensurer`).
//!
//! Mandatory objects are always as they are here, suggested ones as long as their annotation says so. What was
//! suggested once, and is no longer, is deleted.

use std::fmt::Debug;
use std::sync::LazyLock;

use api::status::ApiError;
use client::Client;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::authz::from_client;

/// Says whether the spec is kept as it is here.
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// Who the server is in `managedFields` of these objects.
const MANAGER: &str = "api-priority-and-fairness-config-producer-v1";
/// What must exist, of both kinds.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

static LEVELS: LazyLock<Vec<PriorityLevelConfiguration>> = LazyLock::new(table);
static SCHEMAS: LazyLock<Vec<FlowSchema>> = LazyLock::new(table);

fn table<K: kube::Resource<DynamicType = ()> + DeserializeOwned>() -> Vec<K> {
    let rows: Vec<Value> =
        serde_json::from_str(include_str!("flowcontrol.json")).expect("a table of this crate");
    let rows = rows.into_iter().filter(|row| row["kind"] == K::kind(&()).as_ref());
    rows.map(|row| {
        let metadata = json!({"name": row["name"], "annotations": {AUTOUPDATE: "true"}});
        let object = json!({"metadata": metadata, "spec": row["spec"]});
        serde_json::from_value(object).expect("a row of this crate's table")
    })
    .collect()
}

/// A level as every cluster has it.
#[must_use]
pub fn level(name: &str) -> Option<PriorityLevelConfiguration> {
    LEVELS.iter().find(|level| level.name_any() == name).cloned()
}

/// A schema as every cluster has it.
#[must_use]
pub fn schema(name: &str) -> Option<FlowSchema> {
    SCHEMAS.iter().find(|schema| schema.name_any() == name).cloned()
}

/// An object with a spec that is looked after.
trait Configured: kube::Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned {
    /// Whether the spec is as it should be.
    fn is_as(&self, expected: &Self) -> bool;
    /// Takes over the spec.
    fn become_as(&mut self, expected: &Self);
}

impl Configured for FlowSchema {
    fn is_as(&self, expected: &Self) -> bool {
        self.spec == expected.spec
    }

    fn become_as(&mut self, expected: &Self) {
        self.spec.clone_from(&expected.spec);
    }
}

impl Configured for PriorityLevelConfiguration {
    fn is_as(&self, expected: &Self) -> bool {
        let mut expected = expected.spec.clone();
        // What the exempt level is worth may be changed.
        if let Some(wanted) = expected.as_mut().and_then(|spec| spec.exempt.as_mut()) {
            let Some(own) = self.spec.as_ref().and_then(|spec| spec.exempt.as_ref()) else { return false };
            wanted.clone_from(own);
        }
        self.spec == expected
    }

    fn become_as(&mut self, expected: &Self) {
        self.spec.clone_from(&expected.spec);
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn annotation<K: Configured>(object: &K) -> Option<bool> {
    parse_bool(object.annotations().get(AUTOUPDATE)?)
}

/// What an object becomes; `None` if it is as it should be.
fn revise<K: Configured>(existing: &K, expected: &K) -> Option<K> {
    // Where the annotation says nothing, a spec that was never changed may be changed.
    let own = annotation(existing);
    let untouched = || existing.meta().generation == Some(1);
    let keep = MANDATORY.contains(&expected.name_any().as_str()) || own.unwrap_or_else(untouched);
    let changed = keep && !existing.is_as(expected);
    if own == Some(keep) && !changed {
        return None;
    }
    let mut revised = existing.clone();
    if changed {
        revised.become_as(expected);
    }
    revised.annotations_mut().insert(AUTOUPDATE.to_owned(), keep.to_string());
    Some(revised)
}

async fn keep<K: Configured>(api: &Api<K>, existing: &[K], expected: &[K]) -> Result<(), ApiError> {
    super::each(expected, |expected| async move {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let name = expected.name_any();
        let written = match existing.iter().find(|own| own.name_any() == name) {
            None => api.create(&params, expected).await,
            Some(existing) => match revise(existing, expected) {
                None => return Ok(()),
                Some(revised) => api.replace(&name, &params, &revised).await,
            },
        };
        written.map(drop).map_err(from_client).or_else(super::done_by_others)
    })
    .await
}

async fn remove_unwanted<K: Configured>(api: &Api<K>, existing: &[K], wanted: &[K]) -> Result<(), ApiError> {
    let is_wanted = |name: &str| wanted.iter().any(|own| own.name_any() == name);
    for object in existing.iter().filter(|object| annotation(*object) == Some(true)) {
        let name = object.name_any();
        if is_wanted(&name) {
            continue;
        }
        if let Err(error) = api.delete(&name, &DeleteParams::default()).await
            && !client::is_not_found(&error)
        {
            return Err(from_client(error));
        }
    }
    Ok(())
}

/// Brings the objects to what they should be.
pub async fn ensure(client: &Client) -> Result<(), ApiError> {
    let levels = Api::<PriorityLevelConfiguration>::all(client.clone());
    let schemas = Api::<FlowSchema>::all(client.clone());
    let known_levels = levels.list(&ListParams::default()).await.map_err(from_client)?.items;
    let known_schemas = schemas.list(&ListParams::default()).await.map_err(from_client)?.items;
    keep(&levels, &known_levels, &LEVELS).await?;
    keep(&schemas, &known_schemas, &SCHEMAS).await?;
    remove_unwanted(&schemas, &known_schemas, &SCHEMAS).await?;
    remove_unwanted(&levels, &known_levels, &LEVELS).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_what_must_exist() {
        assert_eq!((LEVELS.len(), SCHEMAS.len()), (8, 11));
        for name in MANDATORY {
            assert!(level(name).is_some() && schema(name).is_some(), "{name}");
        }
    }

    /// The object with this annotation, generation, and whether its spec was changed.
    fn found(name: &str, annotation: Option<&str>, generation: i64, changed: bool) -> FlowSchema {
        let mut object = schema(name).expect("in the table");
        let annotations = annotation.map(|value| [(AUTOUPDATE.to_owned(), value.to_owned())].into());
        object.metadata.annotations = annotations;
        object.metadata.generation = Some(generation);
        if let Some(spec) = object.spec.as_mut().filter(|_| changed) {
            spec.matching_precedence = Some(4711);
        }
        object
    }

    // After upstream's TestSuggestedEnsureStrategy_ShouldUpdate and TestMandatory...
    #[test]
    fn specs_are_kept_where_they_should_be() {
        // annotation, generation, changed: the annotation and whether the spec is set right, if anything is written.
        let suggested = [
            (Some("true"), 1, false, None),
            (Some("true"), 2, true, Some(("true", true))),
            (Some("false"), 2, true, None),
            (Some("false"), 1, false, None),
            (None, 1, true, Some(("true", true))),
            (None, 1, false, Some(("true", false))),
            (None, 2, true, Some(("false", false))),
            (Some("maybe"), 2, true, Some(("false", false))),
        ];
        let mandatory = [
            (Some("true"), 2, false, None),
            (Some("false"), 2, true, Some(("true", true))),
            (Some("false"), 2, false, Some(("true", false))),
            (None, 2, true, Some(("true", true))),
        ];
        for (name, cases) in [("global-default", &suggested[..]), ("catch-all", &mandatory[..])] {
            for (annotation, generation, changed, expected) in cases {
                let existing = found(name, *annotation, *generation, *changed);
                let revised = revise(&existing, &schema(name).expect("in the table"));
                let told = revised.map(|object| {
                    let right = object.spec != existing.spec;
                    (object.annotations()[AUTOUPDATE].clone(), right)
                });
                let expected = expected.map(|(annotation, right)| (annotation.to_owned(), right));
                assert_eq!(told, expected, "{name} {annotation:?} {generation} {changed}");
            }
        }
    }

    #[test]
    fn the_worth_of_the_exempt_level_may_be_changed() {
        let expected = level("exempt").expect("in the table");
        let mut existing = expected.clone();
        let exempt = existing.spec.as_mut().and_then(|spec| spec.exempt.as_mut()).expect("exempt");
        exempt.nominal_concurrency_shares = Some(7);
        assert_eq!(revise(&existing, &expected), None);
        existing.spec.as_mut().expect("a spec").exempt = None;
        assert!(revise(&existing, &expected).is_some_and(|revised| revised.spec == expected.spec));
    }
}
