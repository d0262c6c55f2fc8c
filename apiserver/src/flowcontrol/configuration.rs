//! From the objects that configure flow control to levels at work and the flows that lead to them (upstream
//! `apf_controller.go`: `digestConfigObjects`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use http::HeaderValue;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, FlowSchemaSpec, PriorityLevelConfiguration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::Notify;

use super::demand::Demand;
use super::level::{Distinguisher, Entry, Flow, Level};
use super::limits::{self, CATCH_ALL, EXEMPT, Limits, Party, Settings, settings};
use super::queueset::Discipline;
use super::statistics::Statistics;
use crate::bootstrap::flow_control as defaults;

/// All levels.
pub struct Configuration {
    /// The seats of the server.
    server: u64,
    waits: Arc<Notify>,
    entries: BTreeMap<String, Entry>,
    /// By schema and level.
    statistics: HashMap<(String, String), Arc<Statistics>>,
    fair_fraction: f64,
}

impl Configuration {
    /// For a server of so many seats, before there are any objects.
    #[must_use]
    pub fn new(server: u64, waits: Arc<Notify>) -> (Self, Vec<Arc<Flow>>) {
        let (entries, statistics) = Default::default();
        let mut new = Self { server, waits, entries, statistics, fair_fraction: 0.0 };
        let flows = new.digest(&[], &[]);
        (new, flows)
    }

    /// The levels, by name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Schema, level, and what was counted of both.
    pub fn statistics(&self) -> impl Iterator<Item = (&str, &str, &Statistics)> {
        self.statistics.iter().map(|((schema, level), own)| (schema.as_str(), level.as_str(), own.as_ref()))
    }

    /// The fraction of its target that each level got when seats were divided last.
    #[must_use]
    pub fn fair_fraction(&self) -> f64 {
        self.fair_fraction
    }

    /// Takes in all objects anew. Levels that are in use go on without an object until they are not.
    pub fn digest(
        &mut self,
        levels: &[Arc<PriorityLevelConfiguration>],
        schemas: &[Arc<FlowSchema>],
    ) -> Vec<Arc<Flow>> {
        let mut wanted: BTreeMap<String, (Settings, String)> = BTreeMap::new();
        for object in levels {
            let name = name(&object.metadata);
            match settings(object) {
                Some(settings) => {
                    wanted.insert(name.to_owned(), (settings, uid(&object.metadata)));
                }
                None => tracing::warn!(level = name, "a priority level that contradicts itself is ignored"),
            }
        }
        for name in [EXEMPT, CATCH_ALL] {
            let known = wanted.contains_key(name);
            if let Some(settings) = defaults::level(name).as_ref().and_then(settings).filter(|_| !known) {
                wanted.insert(name.to_owned(), (settings, String::new()));
            }
        }
        let schemas = in_order(schemas, &wanted);
        self.take_levels(wanted);
        self.divide();
        self.flows(&schemas)
    }

    fn take_levels(&mut self, wanted: BTreeMap<String, (Settings, String)>) {
        self.entries.retain(|name, entry| {
            entry.quiescing = !wanted.contains_key(name);
            !entry.quiescing || !entry.level.with(|set, _| set.is_idle())
        });
        let lingering = self.entries.values().filter(|entry| entry.quiescing).map(|e| e.settings.shares);
        let sum = lingering.sum::<f64>() + wanted.values().map(|(settings, _)| settings.shares).sum::<f64>();
        for (name, (settings, uid)) in wanted {
            let limits = Limits::of(&settings, self.server, sum);
            match self.entries.get_mut(&name) {
                Some(entry) => {
                    entry.settings = settings;
                    entry.uid = uid;
                }
                None => {
                    let level = Arc::new(Level::new(&name, &settings, &limits, Arc::clone(&self.waits)));
                    let demand = Demand::default();
                    let entry = Entry { level, settings, uid, limits, demand, target: 0.0, quiescing: false };
                    self.entries.insert(name, entry);
                }
            }
        }
        for entry in self.entries.values_mut() {
            entry.limits = Limits::of(&entry.settings, self.server, sum);
        }
    }

    /// Divides the seats by what the levels have wanted since the last time.
    pub fn divide(&mut self) {
        let parties: Vec<Party> = self
            .entries
            .values_mut()
            .map(|entry| {
                let (seen, current) = entry.level.with(|set, now| (set.demand().reset(now), set.limit()));
                entry.demand.update(seen);
                let exempt = entry.settings.discipline == Discipline::Exempt;
                Party { exempt, limits: entry.limits, demand: entry.demand, current }
            })
            .collect();
        let division = limits::divide(&parties);
        self.fair_fraction = division.fair_fraction;
        for ((entry, seats), target) in self.entries.values_mut().zip(division.current).zip(division.targets)
        {
            entry.target = target;
            entry.level.configure(entry.settings.discipline, seats);
        }
    }

    /// Whether a level without an object has nothing more to do.
    #[must_use]
    pub fn is_to_be_reaped(&self) -> bool {
        self.entries.values().any(|entry| entry.quiescing && entry.level.with(|set, _| set.is_idle()))
    }

    fn flows(&mut self, schemas: &[(ObjectMeta, FlowSchemaSpec)]) -> Vec<Arc<Flow>> {
        let mut used = HashSet::new();
        let flow = |(meta, spec): &(ObjectMeta, FlowSchemaSpec)| {
            let entry = self.entries.get(&spec.priority_level_configuration.name)?;
            let key = (name(meta).to_owned(), entry.level.name.clone());
            used.insert(key.clone());
            Some(Arc::new(Flow {
                schema: key.0.clone(),
                schema_uid: header(&uid(meta)),
                level_uid: header(&entry.uid),
                distinguisher: distinguisher(spec, &entry.settings),
                spec: spec.clone(),
                widest: entry.limits.widest,
                level: Arc::clone(&entry.level),
                statistics: Arc::clone(self.statistics.entry(key).or_default()),
            }))
        };
        let flows = schemas.iter().filter_map(flow).collect();
        // Requests under way count on what they have begun to count on.
        self.statistics.retain(|key, own| used.contains(key) || Arc::strong_count(own) > 1);
        flows
    }
}

/// The schemas that lead to a level, in the order in which they are asked; those that must exist are there.
fn in_order(
    objects: &[Arc<FlowSchema>],
    levels: &BTreeMap<String, (Settings, String)>,
) -> Vec<(ObjectMeta, FlowSchemaSpec)> {
    let mut schemas: Vec<(ObjectMeta, FlowSchemaSpec)> = objects
        .iter()
        .filter_map(|object| Some((object.metadata.clone(), object.spec.clone()?)))
        .filter(|(_, spec)| levels.contains_key(&spec.priority_level_configuration.name))
        .collect();
    // As upstream's default, which every stored object has been given.
    let precedence = |spec: &FlowSchemaSpec| spec.matching_precedence.unwrap_or(1000);
    schemas.sort_by(|(a, a_spec), (b, b_spec)| {
        (precedence(a_spec), name(a)).cmp(&(precedence(b_spec), name(b)))
    });
    let missing = |schemas: &[(ObjectMeta, FlowSchemaSpec)], wanted: &str| {
        let known = schemas.iter().any(|(meta, _)| name(meta) == wanted);
        defaults::schema(wanted).filter(|_| !known).and_then(|schema| {
            // What does not exist has no uid.
            Some((ObjectMeta { name: Some(wanted.to_owned()), ..ObjectMeta::default() }, schema.spec?))
        })
    };
    if let Some(exempt) = missing(&schemas, EXEMPT) {
        schemas.insert(0, exempt);
    }
    schemas.extend(missing(&schemas, CATCH_ALL));
    schemas
}

/// Where there is one queue or none, nothing has to be told apart.
fn distinguisher(spec: &FlowSchemaSpec, level: &Settings) -> Distinguisher {
    let queues = matches!(level.discipline, Discipline::Queue(queuing) if queuing.queues > 1);
    match spec.distinguisher_method.as_ref().filter(|_| queues).map(|method| method.type_.as_str()) {
        Some("ByUser") => Distinguisher::User,
        Some("ByNamespace") => Distinguisher::Namespace,
        _ => Distinguisher::None,
    }
}

fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

fn uid(meta: &ObjectMeta) -> String {
    meta.uid.clone().unwrap_or_default()
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn level(name: &str, shares: i32) -> Arc<PriorityLevelConfiguration> {
        let object = json!({"metadata": {"name": name, "uid": format!("{name}-uid")}, "spec": {
            "type": "Limited", "limited": {"nominalConcurrencyShares": shares, "limitResponse": {
                "type": "Queue", "queuing": {"queues": 8, "handSize": 2, "queueLengthLimit": 5}}}}});
        Arc::new(serde_json::from_value(object).expect("a level"))
    }

    fn schema(name: &str, level: &str, precedence: i32) -> Arc<FlowSchema> {
        let object = json!({"metadata": {"name": name, "uid": format!("{name}-uid")}, "spec": {
            "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level},
            "distinguisherMethod": {"type": "ByUser"}}});
        Arc::new(serde_json::from_value(object).expect("a schema"))
    }

    fn names(flows: &[Arc<Flow>]) -> Vec<String> {
        flows.iter().map(|flow| format!("{} → {}", flow.schema, flow.level.name)).collect()
    }

    #[tokio::test]
    async fn what_must_exist_is_there_without_objects() {
        let (configuration, flows) = Configuration::new(600, Arc::default());
        assert_eq!(names(&flows), ["exempt → exempt", "catch-all → catch-all"]);
        assert_eq!((flows[0].schema_uid.as_bytes(), flows[1].level_uid.as_bytes()), (&b""[..], &b""[..]));
        let nominal: Vec<u64> = configuration.entries().map(|entry| entry.limits.nominal).collect();
        assert_eq!(nominal, [600, 0], "catch-all, then exempt");
    }

    #[tokio::test]
    async fn schemas_are_asked_by_precedence_then_by_name() {
        let (mut configuration, _) = Configuration::new(100, Arc::default());
        let schemas = [
            schema("z", "a", 5),
            schema("b", "a", 7),
            schema("a", "a", 7),
            schema("dangling", "none", 1),
            schema("catch-all", "catch-all", 10_000),
        ];
        let flows = configuration.digest(&[level("a", 15)], &schemas);
        assert_eq!(names(&flows), ["exempt → exempt", "z → a", "a → a", "b → a", "catch-all → catch-all"]);
        assert_eq!(flows[1].schema_uid, "z-uid");
        assert_eq!(flows[1].level_uid, "a-uid");
        assert_eq!(flows[1].distinguisher, Distinguisher::User);
        assert_eq!(flows[1].widest, 12, "15 % of 75 seats");
    }

    #[tokio::test]
    async fn a_level_without_object_ends_what_it_has_begun() {
        use super::super::level::{Asked, Details, take_seats};
        use super::super::work::WorkEstimate;

        let (mut configuration, _) = Configuration::new(100, Arc::default());
        let flows = configuration.digest(&[level("a", 15)], &[schema("s", "a", 5)]);
        let asked = Asked {
            flow: &flows[1],
            details: Details { user: Arc::default(), info: Arc::default() },
            hash: 1,
            estimate: WorkEstimate::seats(1),
            patience: std::time::Duration::ZERO,
        };
        let Ok(seat) = take_seats(asked).await else { panic!("there is a seat") };
        let level_names = |configuration: &Configuration| -> Vec<String> {
            configuration.entries().map(|entry| entry.level.name.clone()).collect()
        };
        let left = configuration.digest(&[], &[schema("s", "a", 5)]);
        assert_eq!(names(&left), ["exempt → exempt", "catch-all → catch-all"]);
        assert_eq!(level_names(&configuration), ["a", "catch-all", "exempt"]);
        assert!(!configuration.is_to_be_reaped());
        drop(seat);
        assert!(configuration.is_to_be_reaped());
        configuration.digest(&[], &[]);
        assert_eq!(level_names(&configuration), ["catch-all", "exempt"]);
        drop(flows);
        configuration.digest(&[], &[]);
        assert_eq!(configuration.statistics().count(), 2);
    }
}
