//! Pods against a runtime in memory: what is called, in which order, and what comes of it.

use async_trait::async_trait;

use super::*;
use crate::cgroups::Limits;
use crate::events::testing::Recorded;
use crate::runtime::fake::FakeRuntime;
use crate::sync::plan::{ProbeResults, plan_pod};

/// Gives containers nothing, except for those whose name says that they cannot be configured.
struct Nothing;

#[async_trait]
impl PodEnvironment for Nothing {
    fn dns(&self, _: &Pod) -> Result<cri::DnsConfig, String> {
        Ok(cri::DnsConfig::default())
    }
    fn hostname(&self, pod: &Pod) -> Result<String, String> {
        Ok(types::name(pod).to_owned())
    }
    fn cgroup_parent(&self, _: &Pod) -> String {
        "/kubepods/pod".to_owned()
    }
    fn runtime_handler(&self, _: &Pod) -> Result<String, String> {
        Ok(String::new())
    }
    async fn container(
        &self,
        _: &Pod,
        container: &Container,
        ips: &[String],
        images: &ImageVolumes,
    ) -> Result<ContainerOptions, String> {
        if container.name == "unconfigurable" {
            return Err("configmap \"nope\" not found".to_owned());
        }
        let env = vec![("POD_IP".to_owned(), ips.first().cloned().unwrap_or_default())];
        let mounts = images.values().map(|i| cri::Mount { image: Some(i.clone()), ..Default::default() });
        Ok(ContainerOptions { env, mounts: mounts.collect(), ..ContainerOptions::default() })
    }
    async fn pull_secrets(&self, _: &Pod) -> Vec<Arc<Secret>> {
        Vec::new()
    }
    async fn start_is_slow(&self, _: &Pod) {}
    fn pod_limits(&self, _: &Pod) -> Option<(Limits, Limits)> {
        None
    }
    fn limit_pod(&self, _: &Pod, _: &Limits) -> Result<(), String> {
        Ok(())
    }
    fn place(&self, _: &Pod, _: &str) -> crate::containers::resources::Place {
        crate::containers::resources::Place::default()
    }
    fn pod_memory(&self, _: &Pod) -> Option<u64> {
        None
    }
    fn expand(&self, text: &str, env: &[(String, String)]) -> String {
        env.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
    }
}

struct NoProbes;

impl ProbeResults for NoProbes {
    fn liveness(&self, _: &str) -> Option<bool> {
        None
    }
    fn startup(&self, _: &str) -> Option<bool> {
        None
    }
}

/// A pod, its runtime, and what happened.
struct Story {
    fake: FakeRuntime,
    pods: PodRuntime,
    events: Recorded,
    pod: Pod,
    root: PathBuf,
}

impl Story {
    async fn of(spec: &str) -> Self {
        let fake = FakeRuntime::start(&["here:1"]).await;
        let events = Recorded::default();
        let root = std::env::temp_dir().join(format!("kubelet-{}", uuid::Uuid::new_v4()));
        let sink = Events::new(events.clone());
        let pods = PodRuntime::new(Inner {
            runtime: fake.client(),
            runtime_name: "fake".to_owned(),
            images: Images::new(fake.client(), sink.clone(), Some(1)),
            events: sink,
            layout: Layout::new(root.join("lib"), root.join("logs"), root.join("links")),
            limits: LimitSettings {
                cpu_cfs_quota: true,
                cpu_period: 100_000,
                memory_capacity: 1 << 30,
                cgroup_v2: false,
                swap_controller: false,
            },
            seccomp_root: root.join("seccomp"),
            seccomp_default: false,
            backoff: Backoff::new(Duration::from_secs(10), Duration::from_secs(300)),
            reasons: WaitingReasons::default(),
            actuated: Record::in_memory(),
            environment: Arc::new(Nothing),
        });
        let pod =
            serde_saphyr::from_str(&format!("metadata: {{name: p, namespace: ns, uid: u}}\nspec:\n{spec}"));
        Self { fake, pods, events, pod: pod.expect("valid pod"), root }
    }

    /// One round: look, plan, apply.
    async fn round(&self) -> Outcome {
        let observed = self.pods.inspect("u").await.expect("inspected");
        let plan = plan_pod(&self.pod, &observed, &NoProbes);
        self.pods.apply(&self.pod, &observed, &plan, &CancellationToken::new()).await
    }

    async fn kill(&self, grace: Option<u64>) {
        let observed = self.pods.inspect("u").await.expect("inspected");
        self.pods.kill_pod(Some(&self.pod), &observed, grace.map(Duration::from_secs)).await.expect("killed");
    }

    fn reason(&self, container: &str) -> Option<(String, String)> {
        self.pods.reasons().find("u", container)
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.root));
    }
}

const ONE: &str = "  terminationGracePeriodSeconds: 30\n  containers: [{name: a, image: 'here:1', args: ['$(POD_IP)'], \
                   terminationMessagePath: /dev/termination-log}]\n";

#[tokio::test]
async fn one_container_starts_and_stops() {
    let story = Story::of(ONE).await;
    let outcome = story.round().await;
    assert!(outcome.changed && outcome.failures.is_empty());
    assert_eq!(story.fake.calls(), ["RunPodSandbox p#0", "CreateContainer a", "StartContainer a"]);
    assert_eq!(
        story.events.lines(),
        [
            "Pulled: Container image \"here:1\" already present on machine and can be accessed by the pod",
            "Created: Container created",
            "Started: Container started",
        ]
    );
    let config = story.fake.state.lock().configs.values().next().cloned().expect("created");
    assert_eq!((config.args, config.log_path), (vec!["10.9.0.1".to_owned()], "a/0.log".to_owned()));
    assert_eq!(config.mounts[0].container_path, "/dev/termination-log");
    assert!(!story.round().await.changed, "nothing more to do");
    story.kill(None).await;
    assert_eq!(story.fake.calls(), ["StopContainer a 30", "StopPodSandbox sandbox-p-0"]);
}

#[tokio::test]
async fn a_crashing_container_backs_off() {
    let story = Story::of(ONE).await;
    story.fake.state.lock().ends_at_once.insert("a".into(), 1);
    assert!(story.round().await.failures.is_empty());
    assert!(story.round().await.failures.is_empty(), "the first restart is at once");
    let outcome = story.round().await;
    assert!(
        outcome.retry.is_some_and(|r| r <= Duration::from_secs(10) && r > Duration::from_secs(8)),
        "{outcome:?}"
    );
    assert_eq!(
        story.reason("a"),
        Some((
            "CrashLoopBackOff".to_owned(),
            "back-off 10s restarting failed container=a pod=p_ns(u)".to_owned()
        ))
    );
    let observed = story.pods.inspect("u").await.expect("inspected");
    assert_eq!(observed.container("a").map(|c| c.restart_count), Some(1));
    assert_eq!(observed.containers_named("a").count(), 2);
}

#[tokio::test]
async fn images_are_pulled_and_failures_remembered() {
    let story = Story::of("  containers: [{name: a, image: away, imagePullPolicy: IfNotPresent}]\n").await;
    let down = tonic::Status::unknown("no route to registry");
    story.fake.state.lock().failures.insert("PullImage".into(), vec![down]);
    assert!(!story.round().await.failures.is_empty());
    assert_eq!(story.reason("a").map(|r| r.0).as_deref(), Some("ErrImagePull"));
    let outcome = story.round().await;
    let (reason, message) = story.reason("a").expect("waits");
    assert_eq!(reason, "ImagePullBackOff");
    assert!(message.starts_with("Back-off pulling image \"away\": ErrImagePull: "), "{message}");
    assert!(outcome.retry.is_some());
    let pulls = story.fake.calls().into_iter().filter(|c| c.starts_with("Pull")).collect::<Vec<_>>();
    assert_eq!(pulls, ["PullImage away:latest"], "not again while backing off");
}

#[tokio::test]
async fn a_rule_starts_the_whole_pod_over() {
    let spec = "  restartPolicy: Never\n  initContainers: [{name: i, image: 'here:1'}]\n  containers:\n\
                \x20 - name: a\n    image: 'here:1'\n    restartPolicy: Never\n    restartPolicyRules: [{action: \
                RestartAllContainers, exitCodes: {operator: In, values: [42]}}]\n\
                \x20 - {name: b, image: 'here:1'}\n";
    let story = Story::of(spec).await;
    story.fake.state.lock().ends_at_once.insert("i".into(), 0);
    story.round().await;
    story.round().await;
    story.fake.calls();
    story.fake.state.lock().end("a", 42);
    assert!(story.round().await.failures.is_empty());
    let removed = ["StopContainer b 2", "RemoveContainer b", "RemoveContainer i", "RemoveContainer a"];
    assert_eq!(story.fake.calls(), removed, "what caused it goes last");
    story.round().await;
    story.round().await;
    let calls = story.fake.calls();
    let started: Vec<_> = calls.iter().filter(|c| c.starts_with("StartContainer")).collect();
    assert_eq!(started, ["StartContainer i", "StartContainer a", "StartContainer b"]);
    assert!(!calls.iter().any(|c| c.starts_with("RunPodSandbox")), "in its sandbox");
    story.fake.state.lock().end("a", 1);
    story.round().await;
    assert!(story.fake.calls().is_empty(), "another code starts nothing");
}

#[tokio::test]
async fn images_are_volumes() {
    let spec = "  volumes: [{name: v, image: {reference: 'data:1'}}]\n  containers:\n\
                \x20 - {name: a, image: 'here:1', volumeMounts: [{name: v, mountPath: /d}]}\n\
                \x20 - {name: b, image: 'here:1'}\n";
    let story = Story::of(spec).await;
    let down = tonic::Status::unknown("no route to registry");
    story.fake.state.lock().failures.insert("PullImage".into(), vec![down]);
    assert!(!story.round().await.failures.is_empty());
    assert_eq!(story.reason("a").map(|r| r.0).as_deref(), Some("ErrImagePull"));
    assert_eq!(story.reason("b"), None, "who does not mount it runs");
    story.round().await;
    assert_eq!(story.reason("a").map(|r| r.0).as_deref(), Some("ImagePullBackOff"));
    let story = Story::of(spec).await;
    assert!(story.round().await.failures.is_empty());
    let configs = story.fake.state.lock().configs.clone();
    let a = configs.values().find(|c| c.metadata.as_ref().is_some_and(|m| m.name == "a")).expect("created");
    let image = a.mounts.iter().find_map(|m| m.image.clone()).expect("mounted");
    assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:data:1", "data:1"));
}

#[tokio::test]
async fn waiting_reasons_name_the_failure() {
    let cases: [(&str, Option<&str>, &str); 6] = [
        ("{name: a, image: absent, imagePullPolicy: Never}", None, "ErrImageNeverPull"),
        ("{name: a, image: 'Bad Name'}", None, "InvalidImageName"),
        ("{name: unconfigurable, image: 'here:1'}", None, "CreateContainerConfigError"),
        (
            "{name: a, image: 'here:1', securityContext: {runAsNonRoot: true}}",
            None,
            "CreateContainerConfigError",
        ),
        ("{name: a, image: 'here:1'}", Some("CreateContainer"), "CreateContainerError"),
        ("{name: a, image: 'here:1'}", Some("StartContainer"), "RunContainerError"),
    ];
    for (container, failing, reason) in cases {
        let story = Story::of(&format!("  containers: [{container}]\n")).await;
        if let Some(call) = failing {
            story.fake.state.lock().failures.insert(call.into(), vec![tonic::Status::unknown("no")]);
        }
        assert!(!story.round().await.failures.is_empty());
        let name = types::spec(&story.pod).containers[0].name.clone();
        assert_eq!(story.reason(&name).map(|r| r.0).as_deref(), Some(reason), "{container}");
    }
}

#[tokio::test]
async fn a_failed_sandbox_starts_nothing() {
    let story = Story::of(ONE).await;
    story
        .fake
        .state
        .lock()
        .failures
        .insert("RunPodSandbox".into(), vec![tonic::Status::unknown("no network")]);
    let outcome = story.round().await;
    assert!(outcome.failures[0].contains("CreatePodSandbox"), "{outcome:?}");
    assert_eq!(story.fake.calls(), ["RunPodSandbox p#0"]);
    assert!(story.events.lines()[0].starts_with(
        "FailedCreatePodSandBox: Failed to create pod sandbox: rpc error: code = Unknown desc = no network"
    ));
    assert!(story.round().await.failures.is_empty());
}

#[tokio::test]
async fn a_dead_sandbox_is_replaced_with_all_in_it() {
    let spec = "  initContainers: [{name: i, image: 'here:1'}]\n  containers: [{name: a, image: 'here:1'}]\n";
    let story = Story::of(spec).await;
    story.fake.state.lock().ends_at_once.insert("i".into(), 0);
    story.round().await;
    story.round().await;
    assert_eq!(
        story.fake.calls(),
        [
            "RunPodSandbox p#0",
            "CreateContainer i",
            "StartContainer i",
            "CreateContainer a",
            "StartContainer a"
        ]
    );
    story.fake.state.lock().sandboxes.values_mut().for_each(|s| s.state = 1);
    story.round().await;
    assert_eq!(
        story.fake.calls(),
        [
            "StopContainer a 2",
            "RemoveContainer i",
            "RunPodSandbox p#1",
            "CreateContainer i",
            "StartContainer i"
        ]
    );
    assert!(
        story
            .events
            .lines()
            .contains(&"SandboxChanged: Pod sandbox changed, it will be killed and re-created.".to_owned())
    );
}

#[tokio::test]
async fn sidecars_stop_last() {
    let spec = "  terminationGracePeriodSeconds: 30\n  initContainers:\n\
                \x20 - {name: s1, image: 'here:1', restartPolicy: Always}\n\
                \x20 - {name: s2, image: 'here:1', restartPolicy: Always}\n\
                \x20 containers: [{name: a, image: 'here:1'}]\n";
    let story = Story::of(spec).await;
    for _ in 0..3 {
        story.round().await;
    }
    story.fake.calls();
    story.kill(None).await;
    let stopped: Vec<_> =
        story.fake.calls().iter().map(|c| c.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        stopped,
        ["StopContainer a", "StopContainer s2", "StopContainer s1", "StopPodSandbox sandbox-p-0"]
    );
}

#[tokio::test]
async fn hooks_run_and_their_failures_count() {
    let spec = "  terminationGracePeriodSeconds: 30\n  containers:\n  - name: a\n    image: 'here:1'\n    lifecycle:\n\
                \x20     postStart: {exec: {command: [hello]}}\n      preStop: {exec: {command: [bye]}}\n";
    let story = Story::of(spec).await;
    story.round().await;
    story.kill(None).await;
    let calls = story.fake.calls();
    assert_eq!(calls[2..5], ["StartContainer a", "ExecSync a hello", "ExecSync a bye"]);
    let story = Story::of(spec).await;
    let failing = cri::ExecSyncResponse { exit_code: 7, ..Default::default() };
    story.fake.state.lock().exec.insert("hello".into(), failing);
    assert!(!story.round().await.failures.is_empty());
    assert_eq!(story.reason("a").map(|r| r.0).as_deref(), Some("PostStartHookError"));
    assert!(story.events.lines().contains(&"FailedPostStartHook: PostStartHook failed".to_owned()));
    assert!(story.fake.calls().iter().any(|c| c.starts_with("StopContainer a")));
}

#[tokio::test]
async fn a_pod_only_the_runtime_knows_is_stopped_by_its_labels() {
    let spec = "  terminationGracePeriodSeconds: 7\n  containers:\n  - name: a\n    image: 'here:1'\n\
                \x20   lifecycle: {preStop: {exec: {command: [bye]}}}\n";
    let story = Story::of(spec).await;
    story.round().await;
    story.fake.calls();
    let observed = story.pods.inspect("u").await.expect("inspected");
    story.pods.kill_pod(None, &observed, None).await.expect("killed");
    let calls = story.fake.calls();
    assert_eq!(calls[0], "ExecSync a bye");
    assert_eq!(calls[1], "StopContainer a 7");
}

#[tokio::test]
async fn a_pod_being_stopped_starts_nothing_more() {
    let story = Story::of("  containers: [{name: a, image: 'here:1'}, {name: b, image: 'here:1'}]\n").await;
    let stop = CancellationToken::new();
    stop.cancel();
    let observed = story.pods.inspect("u").await.expect("inspected");
    let plan = plan_pod(&story.pod, &observed, &NoProbes);
    let outcome = story.pods.apply(&story.pod, &observed, &plan, &stop).await;
    assert!(!outcome.failures.is_empty());
    assert!(story.fake.calls().is_empty());
}

#[test]
fn retries_are_the_earliest() {
    let mut outcome = Outcome::default();
    outcome.fail("a".into(), Some(Duration::from_secs(9)));
    outcome.fail("b".into(), Some(Duration::from_secs(3)));
    outcome.fail("c".into(), None);
    assert_eq!(outcome.retry, Some(Duration::from_secs(3)));
}
