//! Hints of zones, as tables.

use super::*;
use serde_json::{Value, json};

fn zones(ratios: &[(&str, f64)]) -> Zones {
    Zones(ratios.iter().map(|(zone, ratio)| ((*zone).to_owned(), *ratio)).collect())
}

/// A slice whose endpoints are written `zone` or `zone>hint`, one that is not ready with a `-` before it.
fn slice(text: &str) -> EndpointSlice {
    let endpoints = text.split_whitespace().map(|word| {
        let (word, ready) = word.strip_prefix('-').map_or((word, true), |rest| (rest, false));
        let (zone, hint) = word.split_once('>').map_or((word, None), |(zone, hint)| (zone, Some(hint)));
        let zone = (zone != "?").then_some(zone);
        let hints = hint.map(|hint| json!({ "forZones": [{ "name": hint }] }));
        json!({ "addresses": ["10.0.0.1"], "conditions": { "ready": ready }, "zone": zone, "hints": hints })
    });
    let value = json!({
        "addressType": "IPv4", "metadata": {}, "ports": [], "endpoints": endpoints.collect::<Vec<Value>>(),
    });
    serde_json::from_value(value).expect("a slice")
}

fn text(slice: &EndpointSlice) -> String {
    let word = |endpoint: &Endpoint| {
        let ready = if is_ready(endpoint) { "" } else { "-" };
        let hints = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_ref());
        let hints: String = hints.into_iter().flatten().map(|zone| format!(">{}", zone.name)).collect();
        format!("{ready}{}{hints}", endpoint.zone.as_deref().unwrap_or("?"))
    };
    endpoints(slice).iter().map(word).collect::<Vec<_>>().join(" ")
}

struct Outcome {
    counts: Result<Counts, String>,
    create: Vec<String>,
    update: Vec<String>,
}

fn hinted(zones: &Zones, create: &[&str], update: &[&str], unchanged: &[&str]) -> Outcome {
    let all = |texts: &[&str]| texts.iter().map(|text| slice(text)).collect::<Vec<_>>();
    let (mut create, mut update) = (all(create), all(update));
    let slices = Slices { create: &mut create, update: &mut update, unchanged: all(unchanged) };
    let counts = add_hints(zones, slices);
    let texts = |slices: Vec<EndpointSlice>| slices.iter().map(text).collect();
    Outcome { counts, create: texts(create), update: texts(update) }
}

fn counts(pairs: &[(&str, usize)]) -> Counts {
    pairs.iter().map(|(zone, count)| ((*zone).to_owned(), *count)).collect()
}

#[test]
fn hints_are_refused_when_they_would_do_harm() {
    let insufficient =
        "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
    let three = zones(&[("a", 0.3), ("b", 0.4), ("c", 0.3)]);
    let even = zones(&[("a", 0.34), ("b", 0.33), ("c", 0.33)]);
    let lopsided = zones(&[("a", 0.1), ("b", 0.1), ("c", 0.8)]);
    let overloaded = "Unable to allocate minimum required endpoints to each zone without exceeding overload \
                      threshold (3 endpoints, 3 zones)";
    for (zones, create, why) in [
        (Zones::default(), "", insufficient),
        (Zones::default(), "a", insufficient),
        (three.clone(), "a b", "Insufficient number of endpoints (2 endpoints, 3 zones)"),
        (three, "a b -c", "Insufficient number of endpoints (2 endpoints, 3 zones)"),
        (lopsided, "a b c", overloaded),
        (even, "a b ?", "One or more endpoints do not have a zone specified"),
    ] {
        let outcome = hinted(&zones, &[create], &[], &[]);
        assert_eq!(outcome.counts, Err(why.to_owned()), "{create}");
        assert_eq!(outcome.create, [create]);
    }
    let outcome = hinted(&Zones::default(), &["a"], &["a>a"], &["-a>b", "b"]);
    assert_eq!(outcome.create, ["a"]);
    assert_eq!(outcome.update, ["a", "-a"], "all hints are taken away, and nothing else is written");
}

#[test]
fn endpoints_serve_their_zone_and_others_only_if_they_must() {
    let two = zones(&[("a", 0.45), ("b", 0.55)]);
    let outcome = hinted(&two, &["a b"], &[], &[]);
    assert_eq!(outcome.create, ["a>a b>b"]);
    assert_eq!(outcome.counts, Ok(counts(&[("a", 1), ("b", 1)])));
    let outcome = hinted(&two, &["a b -b"], &[], &[]);
    assert_eq!(outcome.create, ["a>a b>b -b"], "who is not ready serves nobody");
    let three = zones(&[("a", 0.35), ("b", 0.35), ("c", 0.30)]);
    let outcome = hinted(&three, &["a b", "c c a"], &["a a", "b c a"], &[]);
    assert_eq!(outcome.counts, Ok(counts(&[("a", 4), ("b", 3), ("c", 3)])));
    assert_eq!(outcome.create, ["a>b b>b", "c>c c>c a>a"]);
    assert_eq!(outcome.update, ["a>a a>a", "b>b c>c a>a"]);
}

#[test]
fn slices_whose_hints_are_right_stay() {
    let two = zones(&[("a", 0.5), ("b", 0.5)]);
    let outcome = hinted(&two, &[], &[], &["a>a b>b a>a b>b"]);
    assert_eq!((outcome.create.len(), outcome.update.len()), (0, 0));
    assert_eq!(outcome.counts, Ok(counts(&[("a", 2), ("b", 2)])));
    for (what, unchanged, expected) in [
        ("no hint", "a>a b", "a>a b>b"),
        ("a zone that is gone", "a>a b>c", "a>a b>b"),
        ("too many for one zone", "a>a b>a a>a b>a", "a>a b>b a>a b>b"),
    ] {
        let outcome = hinted(&two, &[], &[], &[unchanged]);
        assert_eq!(outcome.update, [expected], "{what}");
    }
    let outcome = hinted(&two, &["a b"], &[], &["a>a b>b -c"]);
    assert_eq!((outcome.update.len(), outcome.create), (0, vec!["a>a b>b".to_owned()]));
    assert_eq!(outcome.counts, Ok(counts(&[("a", 2), ("b", 2)])));
}

#[test]
fn zones_exchange_what_makes_it_better() {
    let shares = |wishes: &[(&'static str, f64)]| -> BTreeMap<&str, Share> {
        wishes.iter().map(|(zone, wish)| (*zone, Share { most: usize::MAX, wish: *wish })).collect()
    };
    let case =
        |wishes: &[(&'static str, f64)], have: &[(&str, usize)]| exchange(&shares(wishes), &counts(have));
    let some = |giving: &[(&str, usize)], receiving: &[(&str, usize)]| (counts(giving), counts(receiving));
    assert_eq!(case(&[], &[]), some(&[], &[]));
    assert_eq!(case(&[("a", 1.0), ("b", 1.0)], &[("a", 1), ("b", 1)]), some(&[], &[]));
    // Half an endpoint is not worth leaving the zone for.
    assert_eq!(
        case(&[("a", 5.1), ("b", 5.1), ("c", 5.8)], &[("a", 16)]),
        some(&[("a", 10)], &[("b", 5), ("c", 5)])
    );
    assert_eq!(case(&[("a", 3.0), ("b", 6.4), ("c", 2.6)], &[("a", 3), ("b", 6), ("c", 3)]), some(&[], &[]));
    assert_eq!(case(&[("a", 1.2), ("b", 1.1), ("c", 1.0)], &[("a", 1), ("b", 1), ("c", 1)]), some(&[], &[]));
    assert_eq!(case(&[("a", 5.0), ("b", 5.0), ("c", 5.0)], &[("a", 6), ("b", 6), ("c", 6)]), some(&[], &[]));
    assert_eq!(
        case(&[("a", 5.0), ("b", 5.6), ("c", 5.4)], &[("a", 16)]),
        some(&[("a", 11)], &[("b", 6), ("c", 5)])
    );
    assert_eq!(
        case(&[("a", 5.0), ("b", 5.6), ("c", 5.4)], &[("b", 8), ("c", 8)]),
        some(&[("b", 2), ("c", 3)], &[("a", 5)])
    );
    // Of two that lack less than one, the one that lacks more.
    assert_eq!(
        case(&[("a", 4.0), ("b", 4.0), ("c", 4.0)], &[("a", 6), ("b", 3), ("c", 3)]),
        some(&[("a", 2)], &[("b", 1), ("c", 1)])
    );
    assert_eq!(
        case(&[("a", 4.0), ("b", 1.4), ("c", 1.6)], &[("a", 5), ("b", 1), ("c", 1)]),
        some(&[("a", 1)], &[("c", 1)])
    );
    // Of two that have too many, the one that has more.
    assert_eq!(
        case(&[("a", 4.4), ("b", 4.6), ("c", 2.0)], &[("a", 5), ("b", 5), ("c", 1)]),
        some(&[("a", 1)], &[("c", 1)])
    );
}

fn node(zone: Option<&str>, cpu: Option<&str>, ready: bool, control_plane: bool) -> Arc<Node> {
    let mut labels = json!({});
    if let Some(zone) = zone {
        labels["topology.kubernetes.io/zone"] = json!(zone);
    }
    if control_plane {
        labels["node-role.kubernetes.io/control-plane"] = json!("");
    }
    let allocatable = cpu.map(|cpu| json!({ "cpu": cpu }));
    let ready = json!([{ "type": "Ready", "status": if ready { "True" } else { "False" } }]);
    let value = json!({ "metadata": { "labels": labels }, "status": { "allocatable": allocatable, "conditions": ready } });
    Arc::new(serde_json::from_value(value).expect("a node"))
}

#[test]
fn zones_share_the_cpus_of_their_ready_nodes() {
    let good = |zone: &str, cpu: &str| node(Some(zone), Some(cpu), true, false);
    for (what, nodes, expected) in [
        ("no nodes", vec![], zones(&[])),
        ("one zone", vec![good("a", "1"), good("a", "2")], zones(&[])),
        ("two zones", vec![good("a", "1"), good("b", "3000m")], zones(&[("a", 0.25), ("b", 0.75)])),
        ("only one is ready", vec![node(Some("a"), Some("1"), false, false), good("b", "1")], zones(&[])),
        ("one is control plane", vec![node(Some("a"), Some("1"), true, true), good("b", "1")], zones(&[])),
        (
            "who is not ready does not count",
            vec![node(Some("a"), Some("9"), false, false), good("a", "1"), good("b", "1")],
            zones(&[("a", 0.5), ("b", 0.5)]),
        ),
        ("no zone", vec![node(None, Some("1"), true, false), good("a", "1"), good("b", "1")], zones(&[])),
        ("no CPU", vec![node(Some("c"), None, true, false), good("a", "1"), good("b", "1")], zones(&[])),
        (
            "three zones",
            vec![good("a", "4"), good("b", "1"), good("b", "1"), good("c", "2")],
            zones(&[("a", 0.5), ("b", 0.25), ("c", 0.25)]),
        ),
        (
            "three zones of all sizes",
            vec![good("a", "5000m"), good("b", "4500m"), good("c", "500m")],
            zones(&[("a", 0.5), ("b", 0.45), ("c", 0.05)]),
        ),
    ] {
        assert_eq!(Zones::of(&nodes), expected, "{what}");
    }
}

#[test]
fn services_with_too_few_endpoints_for_a_zone_are_overloaded() {
    let two = zones(&[("a", 0.5), ("b", 0.5)]);
    for (have, expected) in [
        (counts(&[]), false),
        (counts(&[("a", 5), ("b", 5)]), false),
        (counts(&[("a", 6), ("b", 5)]), false),
        (counts(&[("a", 8), ("b", 4)]), true),
        (counts(&[("a", 4)]), true),
    ] {
        assert_eq!(two.overload(&have), expected, "{have:?}");
    }
    assert!(Zones::default().overload(&counts(&[("a", 1)])), "the zones are no longer known");
}

#[test]
fn annotations_ask_for_it() {
    for (annotations, expected) in [
        (json!({}), false),
        (json!({ "service.kubernetes.io/topology-mode": "Auto" }), true),
        (json!({ "service.kubernetes.io/topology-mode": "auto" }), true),
        (json!({ "service.kubernetes.io/topology-mode": "AUTO" }), false),
        (json!({ "service.kubernetes.io/topology-aware-hints": "Auto" }), true),
        (
            json!({ "service.kubernetes.io/topology-aware-hints": "Disabled",
                    "service.kubernetes.io/topology-mode": "Auto" }),
            false,
        ),
    ] {
        let service = json!({ "metadata": { "annotations": annotations } });
        let service: Service = serde_json::from_value(service).expect("a service");
        assert_eq!(is_wanted(&service), expected, "{annotations}");
    }
}
