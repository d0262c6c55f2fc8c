//! `/metrics` and its relatives, in the text format of Prometheus.

use std::fmt::Write;
use std::sync::Arc;

use http::{Response, StatusCode};
use jiff::Timestamp;

use super::Server;
use super::respond::{Body, full, json, text, with_type};
use super::stats::{self, Filesystem, Summary};
use super::volume_stats::{self, VolumeStats};

const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

fn metrics(body: String) -> Response<Body> {
    with_type(StatusCode::OK, FORMAT, full(body))
}

/// The kubelet's own.
pub async fn own(server: &Server) -> Response<Body> {
    let mut all = client::observability::metrics_handle().render();
    let mut volumes = Vec::new();
    for pod in server.deps.pods.pods() {
        volumes.extend(volume_stats::of_pod(server, &pod).await);
    }
    all.push_str(&render_volumes(&volumes));
    metrics(all)
}

/// Those of probes alone.
pub fn probes() -> Response<Body> {
    let all = client::observability::metrics_handle().render();
    let lines = all.lines().filter(|line| line.contains("prober_probe"));
    metrics(lines.fold(String::new(), |text, line| text + line + "\n"))
}

/// `/stats/summary`.
pub async fn summary(server: &Arc<Server>) -> Response<Body> {
    match stats::summary(server).await {
        Ok(summary) => json(&summary),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, client::chain(&error)),
    }
}

/// Use of resources, as autoscalers read it.
pub async fn resource(server: &Arc<Server>) -> Response<Body> {
    match stats::summary(server).await {
        Ok(summary) => metrics(render_resource(&summary)),
        Err(_) => metrics(Family::gauge("resource_scrape_error", SCRAPE_ERROR).sample(&[], 1, None).text),
    }
}

/// Use of resources under the names of cAdvisor.
pub async fn cadvisor(server: &Arc<Server>) -> Response<Body> {
    match stats::summary(server).await {
        Ok(summary) => metrics(render_cadvisor(&summary)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, client::chain(&error)),
    }
}

const SCRAPE_ERROR: &str = "1 if there was an error while getting container metrics, 0 otherwise";

/// The samples of one name.
struct Family {
    name: &'static str,
    text: String,
}

impl Family {
    fn new(name: &'static str, kind: &str, help: &str) -> Self {
        Self { name, text: format!("# HELP {name} {help}\n# TYPE {name} {kind}\n") }
    }

    fn gauge(name: &'static str, help: &str) -> Self {
        Self::new(name, "gauge", help)
    }

    fn counter(name: &'static str, help: &str) -> Self {
        Self::new(name, "counter", help)
    }

    fn sample(mut self, labels: &[(&str, &str)], value: impl std::fmt::Display, time: Option<&str>) -> Self {
        self.add(labels, value, time);
        self
    }

    fn add(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display, time: Option<&str>) {
        let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let time = time
            .and_then(|time| time.parse::<Timestamp>().ok())
            .map(|time| format!(" {}", time.as_millisecond()));
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{}{labels} {value}{}", self.name, time.unwrap_or_default());
    }
}

fn seconds(nanos: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a metric is a floating-point number")]
    let seconds = nanos as f64 / 1e9;
    seconds
}

fn join(families: impl IntoIterator<Item = Family>) -> String {
    families.into_iter().map(|family| family.text).collect()
}

fn render_volumes(volumes: &[VolumeStats]) -> String {
    type Read = fn(&Filesystem) -> u64;
    let all: [(&str, &str, Read); 6] = [
        ("kubelet_volume_stats_capacity_bytes", "Capacity in bytes of the volume", |f| {
            f.capacity_bytes.unwrap_or_default()
        }),
        ("kubelet_volume_stats_available_bytes", "Number of available bytes in the volume", |f| {
            f.available_bytes.unwrap_or_default()
        }),
        ("kubelet_volume_stats_used_bytes", "Number of used bytes in the volume", |f| f.used_bytes),
        ("kubelet_volume_stats_inodes", "Maximum number of inodes in the volume", |f| {
            f.inodes.unwrap_or_default()
        }),
        ("kubelet_volume_stats_inodes_free", "Number of free inodes in the volume", |f| {
            f.inodes_free.unwrap_or_default()
        }),
        ("kubelet_volume_stats_inodes_used", "Number of used inodes in the volume", |f| f.inodes_used),
    ];
    if volumes.is_empty() {
        return String::new();
    }
    // Two pods may have the same claim; it is shown once.
    let mut claims: Vec<&VolumeStats> = Vec::new();
    for volume in volumes {
        if !claims.iter().any(|known| known.pvc_ref == volume.pvc_ref) {
            claims.push(volume);
        }
    }
    join(all.into_iter().map(|(name, help, read)| {
        let mut family = Family::gauge(name, help);
        for volume in &claims {
            let claim = &volume.pvc_ref;
            let labels =
                [("namespace", claim.namespace.as_str()), ("persistentvolumeclaim", claim.name.as_str())];
            family.add(&labels, read(&volume.filesystem), None);
        }
        family
    }))
}

fn render_resource(summary: &Summary) -> String {
    let mut container_cpu = Family::counter(
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the container in core-seconds",
    );
    let mut container_memory =
        Family::gauge("container_memory_working_set_bytes", "Current working set of the container in bytes");
    let mut container_start = Family::gauge(
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds",
    );
    let mut pod_cpu = Family::counter(
        "pod_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the pod in core-seconds",
    );
    let mut pod_memory =
        Family::gauge("pod_memory_working_set_bytes", "Current working set of the pod in bytes");
    let mut node_cpu = Family::counter(
        "node_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the node in core-seconds",
    );
    let mut node_memory =
        Family::gauge("node_memory_working_set_bytes", "Current working set of the node in bytes");
    for pod in &summary.pods {
        let (name, namespace) = (pod.pod_ref.name.as_str(), pod.pod_ref.namespace.as_str());
        for container in &pod.containers {
            let labels = [("container", container.name.as_str()), ("namespace", namespace), ("pod", name)];
            container_cpu.add(
                &labels,
                seconds(container.cpu.usage_core_nano_seconds),
                Some(&container.cpu.time),
            );
            container_memory.add(&labels, container.memory.working_set_bytes, Some(&container.memory.time));
            if let Ok(start) = container.start_time.parse::<Timestamp>() {
                container_start.add(&labels, start.as_second(), None);
            }
        }
        let labels = [("namespace", namespace), ("pod", name)];
        if let (Some(cpu), Some(memory)) = (&pod.cpu, &pod.memory) {
            pod_cpu.add(&labels, seconds(cpu.usage_core_nano_seconds), Some(&cpu.time));
            pod_memory.add(&labels, memory.working_set_bytes, Some(&memory.time));
        }
    }
    if let (Some(cpu), Some(memory)) = (&summary.node.cpu, &summary.node.memory) {
        node_cpu.add(&[], seconds(cpu.usage_core_nano_seconds), Some(&cpu.time));
        node_memory.add(&[], memory.working_set_bytes, Some(&memory.time));
    }
    let error = Family::gauge("resource_scrape_error", SCRAPE_ERROR).sample(&[], 0, None);
    join([
        container_cpu,
        container_memory,
        container_start,
        node_cpu,
        node_memory,
        pod_cpu,
        pod_memory,
        error,
    ])
}

fn render_cadvisor(summary: &Summary) -> String {
    let mut cpu =
        Family::counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.");
    let mut usage = Family::gauge(
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
    );
    let mut working = Family::gauge("container_memory_working_set_bytes", "Current working set in bytes.");
    let mut rss = Family::gauge("container_memory_rss", "Size of RSS in bytes.");
    let mut cores = Family::gauge("machine_cpu_cores", "Number of logical CPU cores.");
    for pod in &summary.pods {
        let (name, namespace) = (pod.pod_ref.name.as_str(), pod.pod_ref.namespace.as_str());
        for container in &pod.containers {
            let labels = [
                ("container", container.name.as_str()),
                ("cpu", "total"),
                ("id", container.id.as_str()),
                ("namespace", namespace),
                ("pod", name),
            ];
            let time = Some(container.cpu.time.as_str());
            cpu.add(&labels, seconds(container.cpu.usage_core_nano_seconds), time);
            let labels = [labels[0], labels[2], labels[3], labels[4]];
            usage.add(&labels, container.memory.usage_bytes, time);
            working.add(&labels, container.memory.working_set_bytes, time);
            rss.add(&labels, container.memory.rss_bytes, time);
        }
    }
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    cores.add(&[], count, None);
    join([cpu, usage, working, rss, cores])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::stats::{ContainerStats, Cpu, Memory, PodReference, PodStats};

    #[test]
    fn samples_carry_labels_and_times() {
        let time = "2026-01-01T00:00:00Z".to_owned();
        let cpu = Cpu { time: time.clone(), usage_core_nano_seconds: 1_500_000_000, ..Cpu::default() };
        let memory = Memory { time: time.clone(), working_set_bytes: 4096, ..Memory::default() };
        let container = ContainerStats {
            name: "c".to_owned(),
            start_time: time,
            cpu: cpu.clone(),
            memory: memory.clone(),
            ..ContainerStats::default()
        };
        let pod_ref =
            PodReference { name: "p\"1".to_owned(), namespace: "ns".to_owned(), uid: "u".to_owned() };
        let pod = PodStats {
            pod_ref,
            containers: vec![container],
            cpu: Some(cpu),
            memory: Some(memory),
            ..PodStats::default()
        };
        let text = render_resource(&Summary { pods: vec![pod], ..Summary::default() });
        for line in [
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"p\\\"1\"} 1.5 1767225600000",
            "container_start_time_seconds{container=\"c\",namespace=\"ns\",pod=\"p\\\"1\"} 1767225600",
            "pod_memory_working_set_bytes{namespace=\"ns\",pod=\"p\\\"1\"} 4096 1767225600000",
            "# TYPE pod_cpu_usage_seconds_total counter",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
        }
    }
}
