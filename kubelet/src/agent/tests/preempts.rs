//! Critical pods on a node that is full.

use super::*;

fn asks(uid: &str, priority: i32, cpu: &str, more: &str) -> Arc<Pod> {
    let text = format!(
        "metadata: {{name: p-{uid}, namespace: ns, uid: {uid}, annotations: {{kubernetes.io/config.source: api}}}}\n\
         spec: {{dnsPolicy: Default, priority: {priority}, terminationGracePeriodSeconds: 1{more}, containers: \
         [{{name: a, image: 'here:1', resources: {{requests: {{cpu: {cpu}}}}}}}]}}"
    );
    Arc::new(serde_saphyr::from_str(&text).expect("valid pod"))
}

#[tokio::test]
async fn a_critical_pod_takes_the_place_of_others() {
    const CRITICAL: i32 = 2_000_000_000;
    let fake = FakeRuntime::start(&["here:1"]).await;
    let house = house(&fake);
    let workers = house.agent.start_workers(Intervals::default(), &house.tasks);
    // The node has one CPU.
    for (uid, cpu) in [("small", "300m"), ("large", "600m")] {
        house.agent.pod_changed(&asks(uid, 0, cpu, "")).await;
    }
    house.agent.pod_changed(&asks("plain", 7, "500m", "")).await;
    assert_eq!(house.phase("plain"), "Failed OutOfcpu", "it is not critical");

    house.agent.pod_changed(&asks("elsewhere", CRITICAL, "500m", ", nodeSelector: {disk: ssd}")).await;
    assert_eq!(house.phase("elsewhere"), "Failed NodeAffinity", "nobody leaves for what cannot come");
    assert!(workers.view("large").is_some_and(|view| view.stage < crate::pod_workers::Stage::Terminating));

    house.agent.pod_changed(&asks("critical", CRITICAL, "500m", "")).await;
    assert_eq!(house.phase("large"), "Failed Preempting");
    let status = house.agent.parts().status.pod_status("large").expect("reported");
    assert_eq!(status.message.as_deref(), Some("Preempted in order to admit critical pod"));
    let told = status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionTarget").expect("told");
    assert_eq!(
        (told.reason.as_deref(), told.message.as_deref()),
        (Some("TerminationByKubelet"), Some("Pod was preempted by Kubelet to accommodate a critical pod."))
    );
    assert!(workers.view("critical").is_some() && workers.view("small").is_some());
    assert!(
        house.events.lines().contains(&"Preempting: Preempted in order to admit critical pod".to_owned())
    );

    house.agent.pod_changed(&asks("huge", CRITICAL, "1", "")).await;
    assert_eq!(house.phase("huge"), "Failed UnexpectedAdmissionError");
    let status = house.agent.parts().status.pod_status("huge").expect("reported");
    assert_eq!(
        status.message.as_deref(),
        Some(
            "Pod was rejected: Unexpected error while attempting to recover from admission failure: preemption: error \
             finding a set of pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 500), ]"
        )
    );
    house.tasks.shut_down().await.expect("no failure");
}
