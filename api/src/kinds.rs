//! The registration table: one row per kind, naming all of its kind-specific logic. Adding a kind is adding a row.
//!
//! A row starts with [`Kind::new`], which does nothing special, and is extended by what the kind does have.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::field::ErrorList;
use crate::json::Object;
use crate::names::GroupVersionKind;
use crate::printers::Table;
use crate::selector::FieldSelectors;
use crate::strategy::Strategy;
use crate::strategy::warnings::Warnings;

mod rows;

/// Checks a new object.
pub(crate) type ValidateCreate = fn(&Value) -> ErrorList;
/// Checks a changed object against the one it replaces.
pub(crate) type ValidateUpdate = fn(new: &Value, old: &Value) -> ErrorList;

/// What is wrong with a new object, and what its client is to be told if nothing is.
pub(crate) type Review = fn(&Value) -> (ErrorList, Vec<String>);

/// Everything that is special about one kind.
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    /// Fills in what the client left out.
    pub(crate) defaults: fn(&mut Object),
    pub(crate) strategy: Strategy,
    pub(crate) fields: FieldSelectors,
    pub(crate) create: Option<ValidateCreate>,
    pub(crate) update: Option<ValidateUpdate>,
    pub(crate) status_update: Option<ValidateUpdate>,
    pub(crate) subresource_updates: &'static [(&'static str, ValidateUpdate)],
    /// What to tell the client although all is well.
    pub(crate) warnings: Warnings,
    /// Checks a new object and says what to tell its client, reading it but once.
    pub(crate) review: Option<Review>,
    /// The same for a changed status.
    pub(crate) status_warnings: Warnings,
    pub(crate) table: Option<&'static Table>,
}

impl Kind {
    pub(crate) const fn new(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self {
            group,
            version,
            kind,
            defaults: |_| {},
            strategy: Strategy::PLAIN,
            fields: FieldSelectors::META,
            create: None,
            update: None,
            status_update: None,
            subresource_updates: &[],
            warnings: |_, _| Vec::new(),
            review: None,
            status_warnings: |_, _| Vec::new(),
            table: None,
        }
    }

    pub(crate) const fn defaults(mut self, defaults: fn(&mut Object)) -> Self {
        self.defaults = defaults;
        self
    }

    pub(crate) const fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    pub(crate) const fn fields(mut self, fields: FieldSelectors) -> Self {
        self.fields = fields;
        self
    }

    pub(crate) const fn validate(mut self, create: ValidateCreate, update: ValidateUpdate) -> Self {
        self.create = Some(create);
        self.update = Some(update);
        self
    }

    pub(crate) const fn validate_status(mut self, status_update: ValidateUpdate) -> Self {
        self.status_update = Some(status_update);
        self
    }

    pub(crate) const fn validate_subresources(
        mut self,
        updates: &'static [(&'static str, ValidateUpdate)],
    ) -> Self {
        self.subresource_updates = updates;
        self
    }

    pub(crate) const fn warnings(mut self, warnings: Warnings) -> Self {
        self.warnings = warnings;
        self
    }

    pub(crate) const fn review(mut self, review: Review) -> Self {
        self.review = Some(review);
        self
    }

    pub(crate) const fn status_warnings(mut self, warnings: Warnings) -> Self {
        self.status_warnings = warnings;
        self
    }

    pub(crate) const fn table(mut self, table: &'static Table) -> Self {
        self.table = Some(table);
        self
    }
}

type Index = HashMap<(&'static str, &'static str, &'static str), &'static Kind>;

static INDEX: LazyLock<Index> =
    LazyLock::new(|| rows::KINDS.iter().map(|row| ((row.group, row.version, row.kind), row)).collect());

/// The row of a kind. Kinds without one (custom resources) have no special logic.
pub(crate) fn find(gvk: &GroupVersionKind) -> Option<&'static Kind> {
    // The key borrows from the caller; the map's keys are static, so the lookup compares by value.
    INDEX.get(&(&*gvk.group, &*gvk.version, &*gvk.kind) as &(&str, &str, &str)).copied()
}

/// All kinds of the table, for tests that look at each.
#[cfg(test)]
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    rows::KINDS.iter().map(|row| (row.group, row.version, row.kind))
}
