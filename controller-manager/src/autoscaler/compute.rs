//! What the metrics of an autoscaler ask for, and what its status says of them. Pure.

use super::calculate::{Calculator, Metrics, Proposal};
use api::quantity::{Format, Quantity};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, MetricIdentifier, MetricSpec, MetricStatus,
    MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::fmt::Write as _;

/// What was measured for one metric.
#[derive(Clone, Debug)]
pub enum Observed {
    /// Something of each pod.
    Pods(Metrics),
    /// One amount.
    Total(i64),
}

/// A metric that says how many replicas there should be.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// So many.
    pub replicas: i32,
    /// What people call the metric.
    pub name: String,
    /// Its part of the status.
    pub status: MetricStatus,
}

/// Why a metric says nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The reason of the condition and of the event.
    pub reason: &'static str,
    /// What went wrong.
    pub message: String,
    /// What went wrong, with which metric it was.
    pub full: String,
}

/// The numbers of pods that there are.
#[derive(Clone, Copy, Debug)]
pub struct Replicas {
    /// That the target asks for.
    pub spec: i32,
    /// That it has.
    pub status: i32,
}

type Outcome = Result<(Proposal, String, MetricValueStatus), String>;

/// What one metric asks for.
pub fn answer(
    metric: &MetricSpec,
    namespace: &str,
    observed: Result<Observed, String>,
    replicas: Replicas,
    calculator: &Calculator<'_>,
) -> Result<Answer, Failure> {
    let of_pods = |observed: Result<Observed, String>| match observed? {
        Observed::Pods(metrics) => Ok(metrics),
        Observed::Total(_) => Err("metrics of pods were expected".to_owned()),
    };
    let of_all = |observed: Result<Observed, String>| match observed? {
        Observed::Total(value) => Ok(value),
        Observed::Pods(_) => Err("one amount was expected".to_owned()),
    };
    let mut status = MetricStatus { type_: metric.type_.clone(), ..Default::default() };
    let (reason, prefix, outcome): (_, _, Outcome) = if let Some(source) = &metric.resource {
        let outcome = resource(&source.name, "", &source.target, of_pods(observed), replicas, calculator);
        status.resource =
            Some(ResourceMetricStatus { name: source.name.clone(), current: MetricValueStatus::default() });
        ("FailedGetResourceMetric", format!("failed to get {} resource metric value", source.name), outcome)
    } else if let Some(source) = &metric.container_resource {
        let (name, container) = (&source.name, &source.container);
        let outcome = resource(name, container, &source.target, of_pods(observed), replicas, calculator);
        status.container_resource = Some(ContainerResourceMetricStatus {
            name: name.clone(),
            container: container.clone(),
            current: MetricValueStatus::default(),
        });
        (
            "FailedGetContainerResourceMetric",
            format!("failed to get {container} container metric value"),
            outcome,
        )
    } else if let Some(source) = &metric.pods {
        let outcome = pods(&source.metric, &source.target, of_pods(observed), replicas, calculator);
        status.pods =
            Some(PodsMetricStatus { metric: source.metric.clone(), current: MetricValueStatus::default() });
        ("FailedGetPodsMetric", "failed to get pods metric value".to_owned(), outcome)
    } else if let Some(source) = &metric.object {
        let about = &source.described_object;
        // As upstream's GetObjectMetricReplicas writes it.
        let named = |error| {
            let metric = &source.metric.name;
            format!("unable to get metric {metric}: {} on {namespace} {}/{error}", about.kind, about.name)
        };
        let value = of_all(observed).map_err(named);
        let outcome = object(&about.kind, &source.metric, &source.target, value, replicas, calculator);
        status.object = Some(ObjectMetricStatus {
            described_object: about.clone(),
            metric: source.metric.clone(),
            current: MetricValueStatus::default(),
        });
        ("FailedGetObjectMetric", "failed to get object metric value".to_owned(), outcome)
    } else if let Some(source) = &metric.external {
        let MetricIdentifier { name, selector } = &source.metric;
        let named = |error| {
            let selector = shown(selector.as_ref());
            format!("unable to get external metric {namespace}/{name}/{selector}: {error}")
        };
        let value = of_all(observed).map_err(named);
        let outcome = external(&source.metric, &source.target, value, replicas, calculator);
        status.external = Some(ExternalMetricStatus {
            metric: source.metric.clone(),
            current: MetricValueStatus::default(),
        });
        ("FailedGetExternalMetric", format!("failed to get {name} external metric value"), outcome)
    } else {
        let message = format!("unknown metric source type \"{}\"", metric.type_);
        return Err(Failure { reason: "InvalidMetricSourceType", full: message.clone(), message });
    };
    let (proposal, name, value) = outcome.map_err(|message| {
        let full = format!("{prefix}: {message}");
        Failure { reason, message, full }
    })?;
    fill(&mut status, value);
    Ok(Answer { replicas: proposal.replicas, name, status })
}

/// Puts what is measured into whichever part of the status there is.
fn fill(status: &mut MetricStatus, value: MetricValueStatus) {
    let current = (status.resource.as_mut().map(|part| &mut part.current))
        .or_else(|| status.container_resource.as_mut().map(|part| &mut part.current))
        .or_else(|| status.pods.as_mut().map(|part| &mut part.current))
        .or_else(|| status.object.as_mut().map(|part| &mut part.current))
        .or_else(|| status.external.as_mut().map(|part| &mut part.current));
    if let Some(current) = current {
        *current = value;
    }
}

fn milli(amount: &ApiQuantity) -> i64 {
    Quantity::parse(&amount.0).map_or(0, |amount| amount.milli_value())
}

fn amount(milli: i64, format: Format) -> ApiQuantity {
    ApiQuantity(Quantity::from_milli(milli, format).to_string())
}

fn average(milli: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: Some(amount(milli, Format::DecimalSi)), ..Default::default() }
}

fn value(milli: i64) -> MetricValueStatus {
    MetricValueStatus { value: Some(amount(milli, Format::DecimalSi)), ..Default::default() }
}

fn resource(
    name: &str,
    container: &str,
    target: &MetricTarget,
    metrics: Result<Metrics, String>,
    replicas: Replicas,
    calculator: &Calculator<'_>,
) -> Outcome {
    let format = if name == "memory" { Format::BinarySi } else { Format::DecimalSi };
    let metrics = metrics.map_err(|error| format!("unable to get metrics for resource {name}: {error}"));
    if let Some(wanted) = &target.average_value {
        let proposal = metrics
            .and_then(|metrics| calculator.average(replicas.spec, milli(wanted), name, metrics))
            .map_err(|error| format!("failed to get {name} usage: {error}"))?;
        let current = MetricValueStatus {
            average_value: Some(amount(proposal.usage, format)),
            ..MetricValueStatus::default()
        };
        return Ok((proposal, format!("{name} resource"), current));
    }
    let Some(wanted) = target.average_utilization else {
        return Err(
            "invalid resource metric source: neither an average utilization target nor an average value \
                    (usage) target was set"
                .to_owned(),
        );
    };
    let proposal = metrics
        .and_then(|metrics| calculator.utilization(replicas.spec, wanted, name, container, metrics))
        .map_err(|error| format!("failed to get {name} utilization: {error}"))?;
    let current = MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(amount(proposal.usage, format)),
        value: None,
    };
    let of = if container.is_empty() { "" } else { "container " };
    Ok((proposal, format!("{name} {of}resource utilization (percentage of request)"), current))
}

fn pods(
    metric: &MetricIdentifier,
    target: &MetricTarget,
    metrics: Result<Metrics, String>,
    replicas: Replicas,
    calculator: &Calculator<'_>,
) -> Outcome {
    let name = &metric.name;
    let metrics = metrics.map_err(|error| format!("unable to get metric {name}: {error}"))?;
    let wanted = target.average_value.as_ref().map_or(0, milli);
    let proposal = calculator.average(replicas.spec, wanted, "", metrics)?;
    Ok((proposal, format!("pods metric {name}"), average(proposal.usage)))
}

fn object(
    kind: &str,
    metric: &MetricIdentifier,
    target: &MetricTarget,
    usage: Result<i64, String>,
    replicas: Replicas,
    calculator: &Calculator<'_>,
) -> Outcome {
    let name = &metric.name;
    match (target.type_.as_str(), &target.value, &target.average_value) {
        ("Value", Some(wanted), _) => {
            let proposal = calculator.total(replicas.spec, milli(wanted), usage?)?;
            Ok((proposal, format!("{kind} metric {name}"), value(proposal.usage)))
        }
        ("AverageValue", _, Some(wanted)) => shared(("object", metric), wanted, usage, replicas, calculator),
        _ => Err("invalid object metric source: neither a value target nor an average value target was set"
            .to_owned()),
    }
}

fn external(
    metric: &MetricIdentifier,
    target: &MetricTarget,
    usage: Result<i64, String>,
    replicas: Replicas,
    calculator: &Calculator<'_>,
) -> Outcome {
    let name = &metric.name;
    if let Some(wanted) = &target.average_value {
        return shared(("external", metric), wanted, usage, replicas, calculator);
    }
    if let Some(wanted) = &target.value {
        let proposal = usage
            .and_then(|usage| calculator.total(replicas.spec, milli(wanted), usage))
            .map_err(|error| format!("failed to get external metric {name}: {error}"))?;
        return Ok((proposal, called(metric), value(proposal.usage)));
    }
    Err("invalid external metric source: neither a value target nor an average value target was set"
        .to_owned())
}

/// An amount that all replicas have a part of. Upstream calls it external in its message whatever it is.
fn shared(
    (kind, metric): (&str, &MetricIdentifier),
    wanted: &ApiQuantity,
    usage: Result<i64, String>,
    replicas: Replicas,
    calculator: &Calculator<'_>,
) -> Outcome {
    let usage = usage.map_err(|error| format!("failed to get {} {kind} metric: {error}", metric.name))?;
    let proposal = calculator.shared(replicas.status, milli(wanted), usage);
    Ok((proposal, called(metric), average(proposal.usage)))
}

fn called(metric: &MetricIdentifier) -> String {
    format!("external metric {}({})", metric.name, shown(metric.selector.as_ref()))
}

/// A selector as Go prints it.
fn shown(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let mut text = "&LabelSelector{MatchLabels:map[string]string{".to_owned();
    for (key, value) in selector.match_labels.iter().flatten() {
        let _ = write!(text, "{key}: {value},");
    }
    text.push_str("},MatchExpressions:[]LabelSelectorRequirement{");
    for part in selector.match_expressions.iter().flatten() {
        let values = part.values.as_deref().unwrap_or_default().join(" ");
        let _ = write!(
            text,
            "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},",
            part.key, part.operator
        );
    }
    text.push_str("},}");
    text
}

#[cfg(test)]
#[path = "compute_tests.rs"]
mod tests;
