//! `kubectl apply`: three-way merge of what was applied last, what is there, and what the file says.

use serde_json::{Value, json};

use super::{DryRun, connect, object_namespace, report, text, with_query};
use crate::failure::{Failure, Result};
use crate::manifest::Files;
use crate::print::Output;
use crate::resource::{Resource, Resources};
use crate::server::{Connection, Server};

/// The annotation that holds what was applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const RETRIES: usize = 5;

/// Flags of `apply`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// Output format.
    #[arg(long, short = 'o')]
    output: Option<String>,
    /// Only show, or let the server only try.
    #[arg(long, num_args = 0..=1, default_missing_value = "unchanged", value_parser = DryRun::parse, require_equals = true)]
    dry_run: Option<DryRun>,
    /// If true, apply runs in the server instead of the client.
    #[arg(long)]
    server_side: bool,
    /// If true, server-side apply will force the changes against conflicts.
    #[arg(long)]
    force_conflicts: bool,
    /// Name of the manager used to track field ownership.
    #[arg(long, default_value = "kubectl-client-side-apply")]
    field_manager: String,
    /// How unknown fields are treated: strict, warn, ignore.
    #[arg(long, num_args = 0..=1, default_missing_value = "strict", default_value = "strict", require_equals = true)]
    validate: String,
    /// Only objects of files that this selector matches.
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// Wait for resources to be gone before returning; accepted for compatibility.
    #[arg(long)]
    wait: bool,
    /// Delete objects that were applied before and are no longer in the files: not done here.
    #[arg(long)]
    prune: bool,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    if args.prune {
        return Err(Failure::local(
            "--prune is not available: objects that left the files must be deleted by name",
        ));
    }
    if args.files.filenames.is_empty() {
        return Err(Failure::local("must specify one of -f and -k"));
    }
    let objects = args.files.read()?;
    let (server, resources) = connect(connection).await?;
    let output = Output::parse(args.output.as_deref(), false)?;
    let selector = args
        .selector
        .as_deref()
        .map(api::selector::LabelSelector::parse)
        .transpose()
        .map_err(Failure::Local)?;
    let command = Apply { server: &server, resources: &resources, args: &args, output: &output };
    let mut failures = vec![];
    for object in objects {
        let labels = object["metadata"]["labels"].as_object();
        if selector.as_ref().is_some_and(|s| !s.matches(&labels.cloned().unwrap_or_default())) {
            continue;
        }
        if let Err(failure) = command.apply(object).await {
            failures.push(failure);
        }
    }
    super::all_or_failure(failures)
}

struct Apply<'a> {
    server: &'a Server,
    resources: &'a Resources,
    args: &'a Args,
    output: &'a Output,
}

impl Apply<'_> {
    async fn apply(&self, mut object: Value) -> Result {
        let resource = self.resources.of(&object)?;
        let namespace = object_namespace(self.server, resource, &object)?;
        if resource.namespaced {
            object["metadata"]["namespace"] = namespace.clone().into();
        }
        let name = text(&object, "/metadata/name").to_owned();
        if name.is_empty() {
            return Err(Failure::local("resource name may not be empty"));
        }
        let path = resource.path(Some(&namespace), Some(&name));
        let named = format!("{}/{name}", resource.prefix());
        if self.args.server_side {
            return self.server_side(&path, &named, &object).await;
        }
        let modified = with_last_applied(object)?;
        for _ in 0..RETRIES {
            match self.once(resource, &namespace, &path, &named, &modified).await {
                Err(failure) if failure.code() == 409 => {}
                other => return other,
            }
        }
        self.once(resource, &namespace, &path, &named, &modified).await
    }

    fn dry_run(&self) -> DryRun {
        self.args.dry_run.unwrap_or_default()
    }

    fn parameters(&self) -> [String; 3] {
        let validation = match self.args.validate.as_str() {
            "false" | "ignore" => "Ignore",
            "warn" => "Warn",
            _ => "Strict",
        };
        [
            format!("fieldManager={}", self.args.field_manager),
            format!("fieldValidation={validation}"),
            self.dry_run().query().to_owned(),
        ]
    }

    async fn once(
        &self,
        resource: &Resource,
        namespace: &str,
        path: &str,
        named: &str,
        modified: &Value,
    ) -> Result {
        let dry_run = self.dry_run();
        let [manager, validation, dry] = self.parameters();
        let query = [manager.as_str(), validation.as_str(), dry.as_str()];
        let current = match self.server.get(path).await {
            Ok(current) => current,
            Err(failure) if failure.is_not_found() => {
                let verb = format!("created{}", dry_run.suffix());
                if dry_run == DryRun::Client {
                    return report(self.output, named, &verb, modified);
                }
                let created = self
                    .server
                    .post(&with_query(&resource.path(Some(namespace), None), &query), modified)
                    .await?;
                return report(self.output, named, &verb, &created);
            }
            Err(failure) => return Err(failure),
        };
        let last = text(&current, &format!("/metadata/annotations/{}", LAST_APPLIED.replace('/', "~1")));
        if last.is_empty() {
            eprintln!(
                "Warning: resource {named} is missing the {LAST_APPLIED} annotation which is required by kubectl apply. kubectl apply should only be used on resources created declaratively by either kubectl create --save-config or kubectl apply. The missing annotation will be patched automatically."
            );
        }
        let original: Value = if last.is_empty() { json!({}) } else { serde_json::from_str(last)? };
        let (kind, patch) = three_way(&original, modified, &current)?;
        if patch.as_object().is_none_or(serde_json::Map::is_empty) {
            return report(self.output, named, &format!("unchanged{}", dry_run.suffix()), &current);
        }
        let verb = format!("configured{}", dry_run.suffix());
        if dry_run == DryRun::Client {
            return report(self.output, named, &verb, modified);
        }
        let patched = self.server.patch(&with_query(path, &query), kind, &patch).await?;
        let version = |object: &Value| text(object, "/metadata/resourceVersion").to_owned();
        let same = version(&patched) == version(&current) && dry_run == DryRun::None;
        let verb = if same { "unchanged".to_owned() } else { verb };
        report(self.output, named, &verb, &patched)
    }

    async fn server_side(&self, path: &str, named: &str, object: &Value) -> Result {
        let [_, validation, dry] = self.parameters();
        let manager = if self.args.field_manager == "kubectl-client-side-apply" {
            "kubectl"
        } else {
            &self.args.field_manager
        };
        let manager = format!("fieldManager={manager}");
        let force = if self.args.force_conflicts { "force=true" } else { "" };
        let url = with_query(path, &[&manager, &validation, &dry, force]);
        let applied = self.server.patch(&url, "application/apply-patch+yaml", object).await?;
        report(self.output, named, &format!("serverside-applied{}", self.dry_run().suffix()), &applied)
    }
}

/// The object with itself, as it was in the file, in the annotation.
fn with_last_applied(mut object: Value) -> Result<Value> {
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    if object["metadata"]["annotations"].is_null() {
        object["metadata"]["annotations"] = json!({});
    }
    let text = format!("{}\n", serde_json::to_string(&object)?);
    object["metadata"]["annotations"][LAST_APPLIED] = text.into();
    Ok(object)
}

/// The patch that brings `current` to `modified`, and removes what `original` had and `modified` has not: strategic
/// where the type's schema is known, a JSON merge patch elsewhere.
fn three_way(original: &Value, modified: &Value, current: &Value) -> Result<(&'static str, Value)> {
    let kind = api::names::GroupVersion::parse(text(modified, "/apiVersion"))
        .map(|version| version.with_kind(text(modified, "/kind").to_owned()));
    let Some(schema) = kind.and_then(|kind| api::schema::type_for(&kind)) else {
        return Ok(("application/merge-patch+json", merge_three_way(original, modified, current)));
    };
    let patch = api::patch::strategic::create_three_way(original, modified, current, schema, true);
    let patch = patch.map_err(|error| Failure::local(error.to_string()))?;
    Ok(("application/strategic-merge-patch+json", patch))
}

/// As upstream's `jsonmergepatch.CreateThreeWayJSONMergePatch`: additions and changes from current to modified,
/// deletions from original to modified.
fn merge_three_way(original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = additions(current, modified).unwrap_or_else(|| json!({}));
    if let Some(deletions) = deletions(original, modified) {
        json_merge(&mut patch, &deletions);
    }
    patch
}

/// What of `modified` differs from `current`; nothing of what only `current` has.
fn additions(current: &Value, modified: &Value) -> Option<Value> {
    match (current, modified) {
        (Value::Object(current), Value::Object(modified)) => {
            let mut patch = serde_json::Map::new();
            for (key, wanted) in modified {
                match current.get(key) {
                    None if wanted.is_null() => {}
                    None => drop(patch.insert(key.clone(), wanted.clone())),
                    Some(there) => drop(additions(there, wanted).map(|p| patch.insert(key.clone(), p))),
                }
            }
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (Value::Array(current), Value::Array(modified)) if covers(current, modified) => None,
        (current, modified) => (current != modified).then(|| modified.clone()),
    }
}

/// Whether a list is the same but for what the server filled in.
fn covers(current: &[Value], modified: &[Value]) -> bool {
    current.len() == modified.len() && current.iter().zip(modified).all(|(c, m)| additions(c, m).is_none())
}

fn deletions(original: &Value, modified: &Value) -> Option<Value> {
    let (Value::Object(original), Value::Object(modified)) = (original, modified) else { return None };
    let mut patch = serde_json::Map::new();
    for (key, before) in original {
        match modified.get(key) {
            None => drop(patch.insert(key.clone(), Value::Null)),
            Some(now) => drop(deletions(before, now).map(|p| patch.insert(key.clone(), p))),
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn json_merge(into: &mut Value, from: &Value) {
    let (Value::Object(target), Value::Object(source)) = (&mut *into, from) else {
        *into = from.clone();
        return;
    };
    for (key, value) in source {
        match target.get_mut(key) {
            Some(there) if there.is_object() && value.is_object() => json_merge(there, value),
            _ => drop(target.insert(key.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_way_merge_keeps_what_others_set_and_removes_what_left_the_file() {
        let original =
            json!({"metadata": {"labels": {"a": "1", "gone": "x"}}, "spec": {"replicas": 1, "paused": true}});
        let modified = json!({"metadata": {"labels": {"a": "2"}}, "spec": {"replicas": 1}});
        let current = json!({"metadata": {"labels": {"a": "1", "gone": "x", "theirs": "y"}, "uid": "u"},
                             "spec": {"replicas": 5, "paused": true, "strategy": {}}});
        let patch = merge_three_way(&original, &modified, &current);
        let expected = json!({"metadata": {"labels": {"a": "2", "gone": null}}, "spec": {"paused": null, "replicas": 1}});
        assert_eq!(patch, expected);
    }

    #[test]
    fn defaults_in_lists_are_no_difference() {
        let file = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
        let current = json!({"spec": {"containers": [{"name": "c", "image": "i", "terminationMessagePath": "/dev/termination-log"}]}});
        assert_eq!(merge_three_way(&file, &file, &current), json!({}));
    }
}
