//! Who owns which fields after an update or an apply, and what an applied object becomes (upstream
//! `merge/update.go`, `merge/conflict.go`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::compare::{Comparison, compare};
use super::element::{Path, same_values};
use super::fields::field_set;
use super::merge::merge;
use super::reconcile::reconcile;
use super::remove::remove_items;
use super::set::{Filter, Set};
use super::shape::Shape;

/// The fields of one manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The fields.
    pub set: Set,
    /// The `apiVersion` they are of.
    pub version: String,
    /// Whether they were applied, not updated.
    pub applied: bool,
}

/// The fields of all managers.
pub type Managers<K> = BTreeMap<K, Versioned>;

/// An object is in one version, fields may be of another.
pub trait Converter {
    /// The shape of objects in a version; `None` if that is not known (any more).
    fn shape(&self, version: &str) -> Option<Shape<'_>>;

    /// An object in another version, which it fits: its lists are without duplicates, too.
    ///
    /// # Errors
    /// Why it cannot be converted.
    fn convert(&self, object: &Value, version: &str) -> Result<Value, String>;

    /// What counts of the changes in a version; `None`: everything.
    fn filter(&self, version: &str) -> Option<&Filter>;
}

/// A field that somebody else has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict<K> {
    /// Who has it.
    pub manager: K,
    /// The field.
    pub path: Path,
}

/// Why nothing came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure<K> {
    /// Others have the fields; by managers, and in the order of their sets.
    Conflicts(Vec<Conflict<K>>),
    /// Something else, in upstream's words.
    Other(String),
}

impl<K> From<String> for Failure<K> {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

/// Computes owners.
pub struct Updater<'a, C: ?Sized> {
    /// Versions of the objects.
    pub converter: &'a C,
}

/// An object in some version; `None`: that version is not known.
type Converted<'v> = Option<Cow<'v, Value>>;

fn version_of(object: &Value) -> &str {
    object["apiVersion"].as_str().unwrap_or_default()
}

impl<C: Converter + ?Sized> Updater<'_, C> {
    fn convert<'v>(&self, object: &'v Value, version: &str) -> Result<Converted<'v>, String> {
        if self.converter.shape(version).is_none() {
            return Ok(None);
        }
        if version_of(object) == version {
            return Ok(Some(Cow::Borrowed(object)));
        }
        self.converter.convert(object, version).map(|converted| Some(Cow::Owned(converted)))
    }

    fn shape(&self, version: &str) -> Result<Shape<'_>, String> {
        self.converter.shape(version).ok_or_else(|| format!("no corresponding type for {version}"))
    }

    fn counted(&self, version: &str, set: Set) -> Set {
        match self.converter.filter(version) {
            Some(filter) => filter.apply(set),
            None => set,
        }
    }

    /// Owners after `manager` has made `new` out of `live` in some other way than by apply.
    ///
    /// # Errors
    /// When objects cannot be compared.
    pub fn update<K: Ord + Clone>(
        &self,
        live: &Value,
        new: &Value,
        version: &str,
        managers: Managers<K>,
        manager: &K,
    ) -> Result<Managers<K>, Failure<K>> {
        let managers = self.reconciled(managers);
        let (mut managers, compared) = self.changed(live, new, version, managers, manager, true)?;
        let before = managers.remove(manager).map(|owned| owned.set).unwrap_or_default();
        let Comparison { removed, modified, added } = compared;
        let set = before.difference(&removed).union(modified).union(added);
        let set = self.counted(version, set);
        if !set.is_empty() {
            managers.insert(manager.clone(), Versioned { set, version: version.to_owned(), applied: false });
        }
        Ok(managers)
    }

    /// What becomes of `live` when `manager` applies `config`, and the owners after that. `None` for the object: it
    /// stays as it is.
    ///
    /// # Errors
    /// When others have fields that would change (and it is not forced), or objects cannot be merged.
    pub fn apply<K: Ord + Clone>(
        &self,
        live: &Value,
        config: &Value,
        version: &str,
        managers: Managers<K>,
        manager: &K,
        force: bool,
    ) -> Result<(Option<Value>, Managers<K>), Failure<K>> {
        let shape = self.shape(version)?;
        let mut managers = self.reconciled(managers);
        let merged =
            merge(shape, live, config).map_err(|found| format!("failed to merge config: {found}"))?;
        let set = self.counted(version, field_set(shape, config));
        let owned = Versioned { set, version: version.to_owned(), applied: true };
        let last = managers.insert(manager.clone(), owned);
        let new = self
            .pruned(merged, &managers, version, last.as_ref())
            .map_err(|why| format!("failed to prune fields: {why}"))?;
        let (managers, _) = self.changed(live, &new, version, managers, manager, force)?;
        Ok((Some(new).filter(|new| !same_values(live, new)), managers))
    }

    /// Takes from all others what changes between `live` and `new`.
    fn changed<K: Ord + Clone>(
        &self,
        live: &Value,
        new: &Value,
        version: &str,
        mut managers: Managers<K>,
        manager: &K,
        force: bool,
    ) -> Result<(Managers<K>, Comparison), Failure<K>> {
        let compared = compare(self.shape(version)?, live, new)
            .map_err(|found| format!("failed to compare objects: {found}"))?
            .filtered(self.converter.filter(version));
        // The same comparison in the versions of other managers.
        let mut versions: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        let mut conflicts = Vec::new();
        let mut left = Managers::new();
        for (other, owned) in std::mem::take(&mut managers) {
            if other == *manager {
                left.insert(other, owned);
                continue;
            }
            if owned.version != version && !versions.contains_key(&owned.version) {
                let compared = self.compared_in(live, new, &owned.version)?;
                versions.insert(owned.version.clone(), compared);
            }
            let compared = match versions.get(&owned.version) {
                Some(Some(compared)) => compared,
                // Fields of a version that is no more are nobody's.
                Some(None) => continue,
                None => &compared,
            };
            let taken = owned.set.intersection(&compared.modified);
            let taken = taken.union(owned.set.intersection(&compared.added));
            conflicts.extend(taken.paths().into_iter().map(|path| Conflict { manager: other.clone(), path }));
            let set = owned.set.difference(&taken).difference(&compared.removed);
            left.insert(other, Versioned { set, ..owned });
        }
        if !force && !conflicts.is_empty() {
            return Err(Failure::Conflicts(conflicts));
        }
        left.retain(|_, owned| !owned.set.is_empty());
        Ok((left, compared))
    }

    fn compared_in(&self, live: &Value, new: &Value, version: &str) -> Result<Option<Comparison>, String> {
        let old =
            self.convert(live, version).map_err(|why| format!("failed to convert old object: {why}"))?;
        let new = self.convert(new, version).map_err(|why| format!("failed to convert new object: {why}"))?;
        let (Some(old), Some(new), Some(shape)) = (old, new, self.converter.shape(version)) else {
            return Ok(None);
        };
        let compared =
            compare(shape, &old, &new).map_err(|found| format!("failed to compare objects: {found}"))?;
        Ok(Some(compared.filtered(self.converter.filter(version))))
    }

    /// `merged` without what the manager applied last time, does not apply now, and nobody else has.
    fn pruned<K: Ord>(
        &self,
        merged: Value,
        managers: &Managers<K>,
        version: &str,
        last: Option<&Versioned>,
    ) -> Result<Value, String> {
        let Some(last) = last.filter(|last| !last.set.is_empty()) else { return Ok(merged) };
        let failed = |why| format!("failed to convert merged object to last applied version: {why}");
        let Some(converted) = self.convert(&merged, &last.version).map_err(failed)? else {
            return Ok(merged);
        };
        let shape = self.shape(&last.version)?;
        let last_set = last.set.with_named_fields(Some(shape));
        let pruned = remove_items(shape, &converted, &last_set);
        let pruned = self
            .with_owned(&converted, pruned, &last.version, managers)
            .map_err(|why| format!("failed add back owned items: {why}"))?;
        let pruned = self
            .with_dangling(&converted, &pruned, &last.version, &last_set)
            .map_err(|why| format!("failed add back dangling items: {why}"))?;
        let back = self.convert(&pruned, version)?.map(Cow::into_owned);
        back.ok_or_else(|| format!("no corresponding type for {version}"))
    }

    /// `pruned` with what anybody has, in whatever version.
    fn with_owned<K>(
        &self,
        merged: &Value,
        pruned: Value,
        pruned_version: &str,
        managers: &Managers<K>,
    ) -> Result<Value, String> {
        let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
        for managed in managers.values() {
            let all = owned.entry(&managed.version).or_default();
            *all = std::mem::take(all).union(managed.set.clone());
        }
        let (mut merged, mut pruned) = (Cow::Borrowed(merged), pruned);
        // The version of the pruned object first: what it lacks may be needed to convert it.
        let first = owned.remove(pruned_version).map(|set| (pruned_version, set));
        for (version, owned) in first.into_iter().chain(owned) {
            let failed = |what: &str, why: String| {
                format!("failed to convert {what} object at version {version}: {why}")
            };
            let converted = self.convert(&merged, version).map_err(|why| failed("merged", why))?;
            let Some(converted) = converted.map(Cow::into_owned) else { continue };
            let less = self.convert(&pruned, version).map_err(|why| failed("pruned", why))?;
            let Some(less) = less else { continue };
            let shape = self.shape(version)?;
            let all = field_set(shape, &converted).with_named_fields(Some(shape));
            let kept = field_set(shape, &less).with_named_fields(Some(shape));
            let kept = kept.union(owned.with_named_fields(Some(shape)));
            let back = remove_items(shape, &converted, &all.difference(&kept));
            (merged, pruned) = (Cow::Owned(converted), back);
        }
        Ok(pruned)
    }

    /// `pruned` with what the manager did not have last time.
    fn with_dangling(
        &self,
        merged: &Value,
        pruned: &Value,
        version: &str,
        last: &Set,
    ) -> Result<Value, String> {
        let failed = |why| format!("failed to convert pruned object to last applied version: {why}");
        let Some(converted) = self.convert(pruned, version).map_err(failed)? else {
            return Ok(merged.clone());
        };
        let shape = self.shape(version)?;
        let kept = field_set(shape, &converted).with_named_fields(Some(shape));
        let all = field_set(shape, merged).with_named_fields(Some(shape));
        Ok(remove_items(shape, merged, &all.difference(&kept).intersection(last)))
    }

    /// The sets as the schemas of today have them.
    fn reconciled<K: Ord>(&self, managers: Managers<K>) -> Managers<K> {
        let known = |(manager, owned): (K, Versioned)| {
            let set = reconcile(self.converter.shape(&owned.version)?, &owned.set);
            let set = set.unwrap_or(owned.set);
            Some((manager, Versioned { set, ..owned }))
        };
        managers.into_iter().filter_map(known).collect()
    }
}
