//! Pods that end with their node.

use std::time::Duration;

use super::*;
use crate::shutdown::Ending;

#[tokio::test]
async fn a_pod_ends_with_its_node_and_says_why() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    let house = house(&fake);
    let workers = house.agent.start_workers(Intervals::default(), &house.tasks);
    let pod = pod(ONE);
    house.agent.pod_changed(&pod).await;
    let running = |fake: &FakeRuntime| fake.state.lock().containers.values().any(|(_, s)| s.state == 1);
    while !running(&fake) {
        tokio::task::yield_now().await;
    }
    assert_eq!(Ending::pods(&house.agent).len(), 1);
    house.agent.end(&pod, Duration::from_secs(2));
    house.agent.ended(&pod).await;
    assert!(!running(&fake) && Ending::pods(&house.agent).is_empty());
    assert!(fake.calls().contains(&"StopContainer a 2".to_owned()), "it had as long as the node let it");
    assert_eq!(house.phase("u"), "Failed Terminated");
    let status = house.agent.parts().status.pod_status("u").expect("reported");
    let message = "Pod was terminated in response to imminent node shutdown.";
    assert_eq!(status.message.as_deref(), Some(message));
    let disruption =
        status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionTarget").expect("told");
    assert_eq!(
        (disruption.status.as_str(), disruption.reason.as_deref(), disruption.message.as_deref()),
        ("True", Some("TerminationByKubelet"), Some(message))
    );
    assert_eq!(*house.volumes.0.lock(), ["u"], "what it used is released");
    workers.finished("nobody").await;
    house.tasks.shut_down().await.expect("no failure");
}
