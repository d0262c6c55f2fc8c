//! Which devices a container gets. Pure; as upstream's `devicesToAllocate`, which may ask the plugin halfway: a choice is
//! then finished with the plugin's answer.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{Device, State};
use crate::topology::Hint;

type Ids = BTreeSet<String>;

/// What is to be done for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The container has what it needs.
    Keep,
    /// It gets these.
    Take(Ids),
    /// The plugin may say which it prefers.
    Ask(Ask),
}

/// A choice that a plugin may influence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// Devices to prefer from, those that are chosen already among them.
    pub(super) available: Ids,
    /// Devices that are chosen already.
    pub(super) chosen: Ids,
    /// How many there are to be in the end.
    pub(super) required: usize,
    /// Devices of which a preference counts.
    from: Ids,
    /// Where to take from what the plugin does not say, in order.
    then: Vec<Ids>,
}

/// Who asks for how many of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) uid: &'a str,
    pub(super) container: &'a str,
    pub(super) resource: &'a str,
    pub(super) required: usize,
    /// Where they are to come from.
    pub(super) affinity: Hint,
}

/// Chooses for a request. The text of a refusal is upstream's.
pub(super) fn choose(state: &State, request: Request<'_>) -> Result<Choice, String> {
    let Request { uid, container, resource: name, required, affinity } = request;
    let had = state.pods.devices(uid, container, name);
    if let Some(had) = &had
        && had.len() != required
    {
        return Err(format!(
            "pod {uid:?} container {container:?} changed request for resource {name:?} from {} to {required}",
            had.len()
        ));
    }
    let Some(resource) = state.resources.get(name) else {
        return Err(format!("cannot allocate unregistered device {name}"));
    };
    if resource.healthy.is_empty() {
        return Err(format!("no healthy devices present; cannot allocate unhealthy devices {name}"));
    }
    if had.as_ref().is_some_and(|had| !had.is_subset(&resource.healthy)) {
        return Err(format!(
            "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {name}"
        ));
    }
    if had.is_some() || required == 0 {
        return Ok(Choice::Keep);
    }
    let mut chosen = Ids::new();
    if draw(&mut chosen, required, &state.reusable(uid, name)) {
        return Ok(Choice::Take(chosen));
    }
    let available = state.available(name);
    let needed = required - chosen.len();
    if available.len() < needed {
        return Err(format!(
            "requested number of devices unavailable for {name}. Requested: {needed}, Available: {}",
            available.len()
        ));
    }
    let (aligned, unaligned, anywhere) = by_affinity(&available, &resource.devices, affinity);
    let union = |a: &Ids, b: &Ids| a.union(b).cloned().collect::<Ids>();
    if needed < aligned.len() {
        let ask = Ask {
            available: union(&aligned, &chosen),
            chosen,
            required,
            from: aligned.clone(),
            then: vec![aligned],
        };
        return Ok(Choice::Ask(ask));
    }
    if draw(&mut chosen, required, &aligned) {
        return Ok(Choice::Take(chosen));
    }
    let all = union(&available, &chosen);
    Ok(Choice::Ask(Ask {
        available: all,
        chosen,
        required,
        from: available,
        then: vec![unaligned, anywhere],
    }))
}

impl Ask {
    /// The choice, with what the plugin prefers; nothing where it does not say.
    pub(super) fn finish(self, preferred: &Ids) -> Result<Ids, String> {
        let Self { mut chosen, required, from, then, .. } = self;
        let preferred = preferred.intersection(&from).cloned().collect();
        if draw(&mut chosen, required, &preferred) || then.iter().any(|set| draw(&mut chosen, required, set))
        {
            return Ok(chosen);
        }
        Err(format!(
            "unexpectedly allocated less resources than required. Requested: {required}, Got: {}",
            chosen.len()
        ))
    }
}

/// Takes from `set` until there are enough; whether there are.
fn draw(chosen: &mut Ids, required: usize, set: &Ids) -> bool {
    let missing: Vec<&String> =
        set.iter().filter(|id| !chosen.contains(*id)).take(required - chosen.len()).collect();
    let missing: Vec<String> = missing.into_iter().cloned().collect();
    chosen.extend(missing);
    chosen.len() == required
}

/// Devices on the wanted NUMA nodes, on others, and on none. Without a wish, all are on none.
fn by_affinity(available: &Ids, known: &BTreeMap<String, Device>, affinity: Hint) -> (Ids, Ids, Ids) {
    let (mut aligned, mut unaligned, mut anywhere) = (Ids::new(), Ids::new(), Ids::new());
    let wanted = affinity.affinity.filter(|_| known.values().any(|d| !d.numa.is_empty()));
    for id in available {
        let numa = known.get(id).map(|d| d.numa.as_slice()).unwrap_or_default();
        let on = |node: &i64| usize::try_from(*node).is_ok_and(|n| wanted.is_some_and(|w| w.contains(n)));
        let set = if wanted.is_none() || numa.is_empty() {
            &mut anywhere
        } else if numa.iter().any(on) {
            &mut aligned
        } else {
            &mut unaligned
        };
        set.insert(id.clone());
    }
    (aligned, unaligned, anywhere)
}
