//! Structured merge: which fields of an object somebody set, and how objects are merged, compared and pruned by that
//! (upstream `sigs.k8s.io/structured-merge-diff`).
//!
//! Everything works over a [`Shape`]: a type of a [`crate::schema::Schema`], built in or compiled from a
//! CustomResourceDefinition, or what is deduced from a value that has no schema.

pub mod atomic;
mod check;
pub mod compare;
pub mod element;
pub mod fields;
pub mod merge;
pub mod reconcile;
pub mod remove;
pub mod set;
pub mod shape;
pub mod updater;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use atomic::atomic_paths;
pub use check::{Duplicates, check};
pub use compare::{Comparison, compare};
pub use element::{Element, Path};
pub use fields::field_set;
pub use merge::merge;
pub use reconcile::reconcile;
pub use remove::remove_items;
pub use set::{Filter, Pattern, Set};
pub use shape::Shape;
pub use updater::{Conflict, Converter, Failure, Managers, Updater, Versioned};

/// Why a value does not fit its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as [`Path`] prints it.
    pub path: String,
    /// What is wrong, in upstream's words.
    pub message: String,
}

/// All that is wrong with a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    fn one(message: impl Into<String>) -> Self {
        Self(vec![Problem { path: String::new(), message: message.into() }])
    }

    /// The same problems seen from one step further up.
    fn below(mut self, element: &Element) -> Self {
        let prefix = element.to_string();
        self.0.iter_mut().for_each(|problem| problem.path.insert_str(0, &prefix));
        self
    }

    fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |problem: &Problem| match problem.path.as_str() {
            "" => problem.message.clone(),
            path => format!("{path}: {}", problem.message),
        };
        match self.0.as_slice() {
            [one] => f.write_str(&text(one)),
            many => {
                f.write_str("errors:")?;
                many.iter().try_for_each(|problem| write!(f, "\n  {}", text(problem)))
            }
        }
    }
}
