//! A definition as upstream holds it inside: what all versions have in common stands above them. Paths in messages
//! follow from that: `spec.validation` where a client wrote `spec.versions[0].schema`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
    CustomResourceSubresources, CustomResourceValidation, SelectableField,
};

use crate::crd::props::{Props, list};

/// One version, without what it has in common with all others.
#[derive(Clone, Debug, Default)]
pub(super) struct Version<'a> {
    pub(super) name: &'a str,
    pub(super) served: bool,
    pub(super) storage: bool,
    pub(super) deprecated: bool,
    pub(super) deprecation_warning: Option<&'a str>,
    /// Whether a schema is given; it may be empty.
    pub(super) has_schema: bool,
    pub(super) schema: Option<&'a Props>,
    pub(super) subresources: Option<&'a CustomResourceSubresources>,
    pub(super) columns: &'a [CustomResourceColumnDefinition],
    pub(super) selectable_fields: &'a [SelectableField],
}

/// What all versions have in common, and the versions.
#[derive(Clone, Debug, Default)]
pub(super) struct Internal<'a> {
    /// The name of the first version.
    pub(super) version: &'a str,
    pub(super) has_schema: bool,
    pub(super) schema: Option<&'a Props>,
    pub(super) subresources: Option<&'a CustomResourceSubresources>,
    pub(super) columns: &'a [CustomResourceColumnDefinition],
    pub(super) selectable_fields: &'a [SelectableField],
    pub(super) versions: Vec<Version<'a>>,
    pub(super) preserve_unknown: bool,
}

fn props(validation: &Option<CustomResourceValidation>) -> Option<&Props> {
    validation.as_ref()?.open_api_v3_schema.as_ref()
}

fn version(version: &CustomResourceDefinitionVersion) -> Version<'_> {
    Version {
        name: &version.name,
        served: version.served,
        storage: version.storage,
        deprecated: version.deprecated.unwrap_or_default(),
        deprecation_warning: version.deprecation_warning.as_deref(),
        has_schema: version.schema.is_some(),
        schema: props(&version.schema),
        subresources: version.subresources.as_ref(),
        columns: list(&version.additional_printer_columns),
        selectable_fields: list(&version.selectable_fields),
    }
}

impl<'a> Internal<'a> {
    pub(super) fn of(crd: &'a CustomResourceDefinition) -> Self {
        let mut versions: Vec<Version<'a>> = crd.spec.versions.iter().map(version).collect();
        let preserve_unknown = crd.spec.preserve_unknown_fields.unwrap_or_default();
        let Some(first) = versions.first().cloned() else {
            return Self { preserve_unknown, ..Self::default() };
        };
        let mut common = Self { version: first.name, preserve_unknown, ..Self::default() };
        let all = |same: &dyn Fn(&Version<'_>) -> bool, versions: &[Version<'_>]| versions.iter().all(same);
        if all(&|v| (v.has_schema, v.schema) == (first.has_schema, first.schema), &versions) {
            (common.has_schema, common.schema) = (first.has_schema, first.schema);
            versions.iter_mut().for_each(|v| (v.has_schema, v.schema) = (false, None));
        }
        if all(&|v| v.subresources == first.subresources, &versions) {
            common.subresources = first.subresources;
            versions.iter_mut().for_each(|v| v.subresources = None);
        }
        if all(&|v| v.columns == first.columns, &versions) {
            common.columns = first.columns;
            versions.iter_mut().for_each(|v| v.columns = &[]);
        }
        if all(&|v| v.selectable_fields == first.selectable_fields, &versions) {
            common.selectable_fields = first.selectable_fields;
            versions.iter_mut().for_each(|v| v.selectable_fields = &[]);
        }
        common.versions = versions;
        common
    }

    /// The schema of a version, wherever it stands.
    pub(super) fn schema_of(&self, version: &str) -> Option<&'a Props> {
        let own = self.versions.iter().find(|own| own.name == version).and_then(|own| own.schema);
        own.or(self.schema)
    }

    /// All schemas, wherever they stand.
    pub(super) fn schemas(&self) -> impl Iterator<Item = &'a Props> {
        self.schema.into_iter().chain(self.versions.iter().filter_map(|version| version.schema))
    }

    /// Whether the status subresource is on for a version.
    pub(super) fn has_status(&self, version: &Version<'_>) -> bool {
        let own = self.versions.iter().any(|v| v.subresources.is_some());
        let subresources = if own { version.subresources } else { self.subresources };
        subresources.is_some_and(|subresources| subresources.status.is_some())
    }

    /// Whether the status subresource is on for any version.
    pub(super) fn has_any_status(&self) -> bool {
        let all = self.versions.iter().map(|version| version.subresources);
        std::iter::once(self.subresources).chain(all).flatten().any(|sub| sub.status.is_some())
    }
}
