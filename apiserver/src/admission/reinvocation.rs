//! Running mutating plugins again after others changed the object (upstream `admission/reinvocation.go`, and the
//! contexts of policies and webhooks).
//!
//! The chain runs once, and once more if a plugin that calls out changed the object. In the second run, the plugins of
//! this server run as before; policies and webhooks run those that asked for it and ran before the change.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use serde_json::Value;

/// What the plugins of one write tell each other.
#[derive(Debug, Default)]
pub struct Reinvocation(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether this is the second run.
    again: bool,
    wanted: bool,
    invoked: HashMap<&'static str, Invoked>,
}

/// What one plugin has run, by keys of its own.
#[derive(Debug, Default)]
struct Invoked {
    /// The object when the plugin was done.
    output: Option<Value>,
    /// What has run and is to run again after the next change.
    eligible: BTreeSet<String>,
    /// What is to run again.
    due: BTreeSet<String>,
}

impl Invoked {
    fn changed(&mut self) {
        self.due.append(&mut self.eligible);
    }
}

impl Reinvocation {
    /// The number of the run: 0 or 1.
    #[must_use]
    pub fn round(&self) -> u8 {
        u8::from(self.0.lock().again)
    }

    /// Begins the second run if a plugin wants one; false if there is to be none.
    pub fn begin_again(&self) -> bool {
        let mut state = self.0.lock();
        let begins = state.wanted && !state.again;
        state.again |= begins;
        begins
    }

    /// A plugin begins with `object`. In the second run, what it ran is due again if others have changed the object.
    pub fn enter(&self, plugin: &'static str, object: &Value) {
        let mut state = self.0.lock();
        let again = state.again;
        let invoked = state.invoked.entry(plugin).or_default();
        if again && !same(invoked.output.as_ref(), Some(object)) {
            invoked.changed();
        }
    }

    /// A plugin is done, and leaves `object`.
    pub fn leave(&self, plugin: &'static str, object: &Value) {
        self.0.lock().invoked.entry(plugin).or_default().output = Some(object.clone());
    }

    /// Whether something is to run now: all do the first time, the second time those that are due.
    #[must_use]
    pub fn is_due(&self, plugin: &'static str, key: &str) -> bool {
        let state = self.0.lock();
        !state.again || state.invoked.get(plugin).is_some_and(|invoked| invoked.due.contains(key))
    }

    /// Something has changed the object.
    pub fn changed(&self, plugin: &'static str) {
        let mut state = self.0.lock();
        state.wanted = true;
        state.invoked.entry(plugin).or_default().changed();
    }

    /// Something has run that is to run again after later changes.
    pub fn ran(&self, plugin: &'static str, key: &str) {
        self.0.lock().invoked.entry(plugin).or_default().eligible.insert(key.to_owned());
    }
}

fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    api::semantic_eq(a, b)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_ran_before_a_change_runs_again() {
        let context = Reinvocation::default();
        let object = json!({"a": 1});
        context.enter("p", &object);
        assert!(context.is_due("p", "first"));
        context.ran("p", "first");
        context.changed("p");
        context.ran("p", "second");
        context.leave("p", &json!({"a": 2}));
        assert!(context.begin_again());
        // Nobody else has changed the object: only what ran before the change is due.
        context.enter("p", &json!({"a": 2}));
        assert!(context.is_due("p", "first") && !context.is_due("p", "second"));
        assert!(!context.begin_again());
    }

    #[test]
    fn changes_by_others_concern_all() {
        let context = Reinvocation::default();
        context.enter("p", &json!({}));
        context.ran("p", "only");
        context.leave("p", &json!({}));
        context.changed("q");
        assert!(context.begin_again());
        context.enter("p", &json!({"new": 1}));
        assert!(context.is_due("p", "only"));
    }

    #[test]
    fn without_a_change_there_is_one_run() {
        let context = Reinvocation::default();
        context.enter("p", &json!({}));
        context.ran("p", "only");
        assert!(!context.begin_again());
    }
}
