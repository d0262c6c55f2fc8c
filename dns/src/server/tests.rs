//! Questions that come over the wire, and what is said of them.

use super::*;
use crate::zone::tests::facts;
use hickory_proto::op::Message;

fn server() -> Server {
    let zone = Zone::new("cluster.local", 5).expect("a domain");
    Server::new(zone, Arc::new(facts()), Arc::new(Forwarder::new(vec![])))
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).expect("a name"), kind));
    message
}

async fn answered(message: &Message) -> String {
    let answer = server().answer(message).await;
    let data: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    format!("{:?} {}: {}", answer.metadata.response_code, answer.metadata.authoritative, data.join(", "))
}

#[tokio::test]
async fn questions_that_cannot_be_answered_are_refused_by_their_fault() {
    let good = || question("web.ns.svc.cluster.local", RecordType::A);
    assert_eq!(answered(&good()).await, "NoError true: 10.96.0.5");
    let mut two = good();
    two.add_query(Query::query(Name::root(), RecordType::NS));
    assert_eq!(answered(&two).await, "FormErr false: ");
    assert_eq!(answered(&Message::query()).await, "FormErr false: ");
    let mut notify = good();
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(answered(&notify).await, "NotImp false: ");
    let mut newer = good();
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    assert_eq!(answered(&newer).await, "BADVERS false: ");
    assert_eq!(
        answered(&question("example.com", RecordType::A)).await,
        "ServFail false: ",
        "there is nobody to ask"
    );
}

#[tokio::test]
async fn aliases_are_followed_as_far_as_they_lead() {
    for (name, expected) in [
        ("inside.ns.svc.cluster.local", "NoError true: web.ns.svc.cluster.local., 10.96.0.5"),
        (
            "chain.ns.svc.cluster.local",
            "NoError true: inside.ns.svc.cluster.local., web.ns.svc.cluster.local., 10.96.0.5",
        ),
        ("away.ns.svc.cluster.local", "NoError true: example.com."),
    ] {
        assert_eq!(answered(&question(name, RecordType::A)).await, expected, "{name}");
    }
    let endless = answered(&question("self.ns.svc.cluster.local", RecordType::A)).await;
    assert_eq!(endless.matches("self.ns.svc").count(), ALIASES + 1);
}

#[tokio::test]
async fn what_does_not_fit_is_cut_and_marked() {
    let message = question("many.ns.svc.cluster.local", RecordType::A);
    let answer = server().answer(&message).await;
    assert_eq!(answer.answers.len(), 60);
    let bytes = for_udp(&message, answer.clone());
    let cut = Message::from_vec(&bytes).expect("a message");
    assert!(bytes.len() <= 512 && cut.metadata.truncation && !cut.answers.is_empty(), "{cut}");
    let mut large = message.clone();
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    large.set_edns(edns);
    let whole = Message::from_vec(&for_udp(&large, server().answer(&large).await)).expect("a message");
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 60));
}
