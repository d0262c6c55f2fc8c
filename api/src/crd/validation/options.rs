//! What a definition is held to. On update, rules that the old definition broke already are not enforced, so that what
//! is stored stays editable.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::fields::MAX_SELECTABLE;
use super::internal::Internal;
use super::schema::{has_unatomic_set, map_keys_and_sets};
use crate::crd::conditions::{ESTABLISHED, is_true};
use crate::crd::props::{Props, PropsExt, has, text};
use crate::crd::{defaulting, structural};
use crate::field::Path;

/// What counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) known_review_version: bool,
    pub(super) immutable_names: bool,
    pub(super) need_schema: bool,
    pub(super) known_types: bool,
    pub(super) structural: bool,
    pub(super) pruned_defaults: bool,
    pub(super) atomic_sets: bool,
    pub(super) strict_map_keys: bool,
    pub(super) allow_bad_bundle: bool,
    /// Versions that may keep their many selectable fields; an empty name stands for all versions together.
    pub(super) many_selectable: BTreeSet<String>,
    /// Versions whose schemas are as they were: their expressions may cost what they cost before.
    pub(super) unchanged_schemas: BTreeSet<String>,
    /// Rules and message expressions that were there before.
    pub(super) known_rules: BTreeSet<String>,
    pub(super) known_message_expressions: BTreeSet<String>,
}

/// Versions of reviews that webhooks are asked in.
pub(super) fn is_review_version(version: &str) -> bool {
    matches!(version, "v1" | "v1beta1")
}

impl Options {
    pub(super) fn create() -> Self {
        Self {
            known_review_version: true,
            need_schema: true,
            known_types: true,
            structural: true,
            pruned_defaults: true,
            atomic_sets: true,
            strict_map_keys: true,
            allow_bad_bundle: true,
            ..Self::default()
        }
    }

    pub(super) fn update(
        internal: &Internal<'_>,
        old: &CustomResourceDefinition,
        before: &Internal<'_>,
    ) -> Self {
        let established = is_true(old, ESTABLISHED);
        let any = |holds: &mut dyn FnMut(&Props) -> bool| before.schemas().any(|schema| has(schema, holds));
        let webhook = old.spec.conversion.as_ref().and_then(|conversion| conversion.webhook.as_ref());
        let reviews = webhook.map(|w| w.conversion_review_versions.as_slice()).unwrap_or_default();
        let bundle = webhook.and_then(|w| w.client_config.as_ref()).and_then(|c| c.ca_bundle.as_ref());
        let mut options = Self {
            known_review_version: reviews.is_empty() || reviews.iter().any(|v| is_review_version(v)),
            immutable_names: established,
            need_schema: before.schema.is_some() || before.versions.iter().all(|v| v.schema.is_some()),
            known_types: !any(&mut |s| !s.kind().is_empty() && !super::schema::TYPES.contains(&s.kind())),
            structural: before.schemas().all(structural::is_structural),
            pruned_defaults: !before.schemas().any(has_unpruned_defaults),
            atomic_sets: !any(&mut has_unatomic_set),
            strict_map_keys: !any(&mut |s| !map_keys_and_sets(s, &Path::root()).is_empty()),
            allow_bad_bundle: !established
                || bundle.is_some_and(|bundle| !bundle.0.is_empty() && !super::is_ca_bundle(&bundle.0)),
            ..Self::default()
        };
        options.note_rules(before);
        options.note_unchanged(internal, before);
        options.note_selectable(internal, before);
        options
    }

    fn note_rules(&mut self, before: &Internal<'_>) {
        for schema in before.schemas() {
            has(schema, &mut |schema| {
                for rule in schema.rules() {
                    self.known_rules.insert(rule.rule.clone());
                    self.known_message_expressions.insert(text(&rule.message_expression).to_owned());
                }
                false
            });
        }
    }

    fn note_unchanged(&mut self, internal: &Internal<'_>, before: &Internal<'_>) {
        for version in &internal.versions {
            let known = before.versions.iter().any(|old| old.name == version.name);
            if known && internal.schema_of(version.name) == before.schema_of(version.name) {
                self.unchanged_schemas.insert(version.name.to_owned());
            }
        }
    }

    fn note_selectable(&mut self, internal: &Internal<'_>, before: &Internal<'_>) {
        if before.selectable_fields.len() > MAX_SELECTABLE
            && before.selectable_fields == internal.selectable_fields
        {
            self.many_selectable.insert(String::new());
        }
        for version in &internal.versions {
            let old = before.versions.iter().find(|old| old.name == version.name);
            let kept = old.is_some_and(|old| {
                old.selectable_fields.len() > MAX_SELECTABLE
                    && old.selectable_fields == version.selectable_fields
            });
            if kept {
                self.many_selectable.insert(version.name.to_owned());
            }
        }
    }
}

fn has_unpruned_defaults(schema: &Props) -> bool {
    if !has(schema, &mut |schema| schema.default_value().is_some()) || !structural::is_structural(schema) {
        return false;
    }
    let mut pruned = schema.clone();
    defaulting::prune_defaults(&mut pruned);
    pruned != *schema
}
