//! Rollouts in every order of events: at no time are more pods asked for than the surge allows, nor do pods that are
//! known to be ready become fewer than those that may not be missing, and the rollout comes to its end.
//!
//! (A pod that got ready may be taken for one that is not, as long as nobody has said so. It then counts for nothing.)

use super::plan::{self, Outcome};
use super::sets::tests::{deployment, template};
use super::{TEMPLATE_HASH, sets};
use crate::common::meta;
use crate::common::pods::tests::at;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;

/// A ReplicaSet, and its pods as they are; its status may be older.
struct Set {
    set: ReplicaSet,
    ready: i32,
    starting: i32,
    /// Those of the ready ones that a status told of. They go last.
    known: i32,
}

struct World {
    deployment: Deployment,
    sets: Vec<Set>,
    writes: usize,
    time: i64,
}

impl World {
    /// The controller looks, and what it decides is done.
    fn reconcile(&mut self) {
        self.time += 1;
        let seen: Vec<_> = self.sets.iter().map(|held| Arc::new(held.set.clone())).collect();
        let running = |uid: &str| {
            self.sets
                .iter()
                .any(|held| meta::uid(&held.set.metadata) == uid && held.ready + held.starting > 0)
        };
        let plan = plan::plan(&self.deployment, &seen, running, at(self.time));
        let Outcome::Converge { create, update, delete, status, .. } = plan.outcome else {
            panic!("no rollback")
        };
        if let Some(mut set) = create.map(|set| *set) {
            set.metadata.uid = set.metadata.name.clone();
            set.metadata.creation_timestamp = Some(Time(at(self.time)));
            set.metadata.generation = Some(1);
            self.sets.push(Set { set, ready: 0, starting: 0, known: 0 });
            self.writes += 1;
        }
        for new in update {
            let held = self.sets.iter_mut().find(|held| held.set.metadata.uid == new.metadata.uid);
            let held = held.expect("it is there");
            let generation = held.set.metadata.generation.map(|generation| generation + 1);
            held.set = new;
            held.set.metadata.generation = generation;
            self.writes += 1;
        }
        for gone in delete {
            self.sets.retain(|held| held.set.metadata.uid != gone.metadata.uid);
        }
        self.deployment.status = Some(status);
    }

    fn asked(&self) -> i32 {
        self.sets.iter().map(|held| sets::wanted(&held.set)).sum()
    }

    fn known(&self) -> i32 {
        self.sets.iter().map(|held| held.known).sum()
    }

    /// One of the things that can happen next happens.
    fn step(&mut self, random: &mut StdRng) {
        if self.sets.is_empty() || random.random_bool(0.3) {
            return self.reconcile();
        }
        let at = random.random_range(0..self.sets.len());
        let held = &mut self.sets[at];
        if random.random_bool(0.5) {
            held.sync();
        } else if held.starting > 0 {
            held.starting -= 1;
            held.ready += 1;
        }
    }
}

impl Set {
    /// The set makes as many pods as it should have, of which those that are not ready go first; and says what there was
    /// before.
    fn sync(&mut self) {
        self.set.status = Some(ReplicaSetStatus {
            replicas: self.ready + self.starting,
            ready_replicas: Some(self.ready),
            available_replicas: Some(self.ready),
            observed_generation: self.set.metadata.generation,
            ..Default::default()
        });
        let told = self.ready;
        let more = sets::wanted(&self.set) - self.ready - self.starting;
        self.starting += more.max(0);
        let go = (-more).max(0);
        let starting = go.min(self.starting);
        self.starting -= starting;
        self.ready -= go - starting;
        self.known = told.min(self.ready);
    }
}

fn change_image(deployment: &mut Deployment, image: &str) {
    deployment.spec.get_or_insert_default().template = template(image);
}

#[test]
fn bounds_hold_in_any_order_of_events() {
    for seed in 0..150 {
        let mut random = StdRng::seed_from_u64(seed);
        let replicas = random.random_range(1..8);
        let pick = |random: &mut StdRng| ["0", "1", "2", "25%", "50%", "100%"][random.random_range(0..6)];
        let (surge, missing) = (pick(&mut random), pick(&mut random));
        let what = format!("seed {seed}: {replicas} replicas, {surge} surge, {missing} unavailable");
        let mut world =
            World { deployment: deployment(replicas, surge, missing), sets: vec![], writes: 0, time: 0 };
        let most = replicas + sets::max_surge(&world.deployment);
        let least = replicas - sets::max_unavailable(&world.deployment);
        let mut serving = false;
        let mut images = random.random_range(1..4);
        for step in 0..3000 {
            let hash = |held: &Set| meta::label(&held.set.metadata, TEMPLATE_HASH).map(str::to_owned);
            if images > 0 && step % 60 == 59 {
                images -= 1;
                change_image(&mut world.deployment, ["one", "two", "three"][random.random_range(0..3)]);
            }
            world.step(&mut random);
            assert!(world.asked() <= most, "{what}, step {step}: {} are asked for", world.asked());
            serving |= world.known() >= least;
            assert!(!serving || world.known() >= least, "{what}, step {step}: {} are ready", world.known());
            let hashes: std::collections::BTreeSet<_> = world.sets.iter().map(hash).collect();
            assert_eq!(hashes.len(), world.sets.len(), "{what}: one set for each template");
        }
        let wanted = &world.deployment;
        let (new, old): (Vec<_>, Vec<_>) =
            world.sets.iter().partition(|held| sets::same_template(wanted, &held.set));
        assert_eq!(new.iter().map(|held| held.ready).collect::<Vec<_>>(), [replicas], "{what}");
        assert!(old.iter().all(|held| held.ready + held.starting == 0), "{what}");
        // No more writes than pods move, a few times over.
        let bound = 8 * (usize::try_from(replicas).expect("a few") + 2) * 4;
        assert!(world.writes < bound, "{what}: {} writes", world.writes);
        let before = world.writes;
        (0..20).for_each(|_| world.reconcile());
        assert_eq!(world.writes, before, "{what}: nothing is written for nothing");
    }
}
