//! UDP and TCP: a question in, an answer out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::forward::Forwarder;
use crate::source::Source;
use crate::zone::{Answer, Zone};

/// The largest UDP answer that is not likely to be broken up on its way.
const UDP_LIMIT: u16 = 1232;
const CONNECTIONS: usize = 256;
const FORWARDED_AT_ONCE: usize = 1000;
const IDLE: Duration = Duration::from_secs(10);

/// Answers questions.
pub struct Server {
    zone: Zone,
    source: Arc<dyn Source>,
    forwarder: Forwarder,
}

impl Server {
    /// Answers from `source` for `zone`, and through `forwarder` for the rest.
    pub fn new(zone: Zone, source: Arc<dyn Source>, forwarder: Forwarder) -> Self {
        Self { zone, source, forwarder }
    }

    /// Serves until `token` is cancelled.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn run(self: Arc<Self>, listen: SocketAddr, token: CancellationToken) -> Result<()> {
        let udp =
            UdpSocket::bind(listen).await.with_context(|| format!("cannot listen on {listen} (UDP)"))?;
        let tcp = TcpListener::bind(udp.local_addr()?).await;
        let tcp = tcp.with_context(|| format!("cannot listen on {listen} (TCP)"))?;
        tokio::join!(self.clone().serve_udp(Arc::new(udp), &token), self.serve_tcp(tcp, &token));
        Ok(())
    }

    /// What is ours is answered on the spot; what must be asked elsewhere does not hold up others.
    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>, token: &CancellationToken) {
        let (tracker, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(FORWARDED_AT_ONCE)));
        let mut buffer = vec![0; 4096];
        loop {
            let received = tokio::select! {
                biased;
                () = token.cancelled() => break,
                received = socket.recv_from(&mut buffer) => received,
            };
            let Ok((size, peer)) = received else { continue };
            let Ok(question) = Message::from_vec(&buffer[..size]) else { continue };
            if let Some(answer) = self.answer_now(&question) {
                let _ = socket.send_to(&for_udp(&question, answer), peer).await;
                continue;
            }
            // With all slots taken the client asks again.
            let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
            let (server, socket) = (self.clone(), socket.clone());
            tracker.spawn(async move {
                let answer = server.answer(&question).await;
                let _ = socket.send_to(&for_udp(&question, answer), peer).await;
                drop(slot);
            });
        }
        tracker.close();
        tracker.wait().await;
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener, token: &CancellationToken) {
        let (tracker, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
        loop {
            let accepted = tokio::select! {
                biased;
                () = token.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
            let (server, token) = (self.clone(), token.clone());
            tracker.spawn(async move {
                // A connection ends by its peer, by silence, or by an error; none concerns the others.
                tokio::select! { _ = server.serve_connection(stream) => {} () = token.cancelled() => {} }
                drop(slot);
            });
        }
        tracker.close();
        tracker.wait().await;
    }

    async fn serve_connection(&self, mut stream: TcpStream) -> Result<()> {
        loop {
            let size = tokio::time::timeout(IDLE, stream.read_u16()).await??;
            let mut bytes = vec![0; usize::from(size)];
            tokio::time::timeout(IDLE, stream.read_exact(&mut bytes)).await??;
            let answer = self.answer(&Message::from_vec(&bytes)?).await.to_vec()?;
            stream.write_u16(u16::try_from(answer.len())?).await?;
            stream.write_all(&answer).await?;
        }
    }

    /// The answer, if it needs nobody else; `None` if the question must be forwarded.
    fn answer_now(&self, question: &Message) -> Option<Message> {
        metrics::counter!("coredns_dns_requests_total").increment(1);
        let query = match check(question) {
            Ok(query) => query,
            Err(code) => return Some(reply(question, Answer { code, ..Answer::default() }, false)),
        };
        let answer = self.zone.answer(&*self.source, query.name(), query.query_type())?;
        // An alias out of the zone is followed for the client.
        if alias_to_follow(&answer, query).is_some() {
            return None;
        }
        Some(reply(question, answer, true))
    }

    async fn answer(&self, question: &Message) -> Message {
        if let Some(answer) = self.answer_now(question) {
            return answer;
        }
        let Some(query) = question.queries.first() else {
            return reply(question, Answer { code: ResponseCode::FormErr, ..Answer::default() }, false);
        };
        let own = self.zone.answer(&*self.source, query.name(), query.query_type());
        if let Some((mut answer, target)) =
            own.and_then(|a| alias_to_follow(&a, query).map(|target| (a, target)))
        {
            let next = Query::query(target, query.query_type());
            match self.zone.answer(&*self.source, next.name(), next.query_type()) {
                Some(inside) => answer.answers.extend(inside.answers),
                None => {
                    if let Ok(outside) = self.forwarder.ask(&next).await {
                        answer.answers.extend(outside.answers);
                    }
                }
            }
            return reply(question, answer, true);
        }
        match self.forwarder.ask(query).await {
            Ok(message) => {
                let answer = Answer {
                    code: message.metadata.response_code,
                    answers: message.answers,
                    authorities: message.authorities,
                    additionals: message.additionals,
                };
                reply(question, answer, false)
            }
            Err(_) => reply(question, Answer { code: ResponseCode::ServFail, ..Answer::default() }, false),
        }
    }
}

/// The one question of a message, or what is wrong with it.
fn check(question: &Message) -> Result<&Query, ResponseCode> {
    if question.metadata.message_type != MessageType::Query {
        return Err(ResponseCode::FormErr);
    }
    if question.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    match question.queries.as_slice() {
        [query] => Ok(query),
        _ => Err(ResponseCode::FormErr),
    }
}

/// The name an answer points to, if the client asked for addresses and got only an alias.
fn alias_to_follow(answer: &Answer, query: &Query) -> Option<Name> {
    if !matches!(query.query_type(), RecordType::A | RecordType::AAAA) {
        return None;
    }
    match answer.answers.as_slice() {
        [only] => match &only.data {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn reply(question: &Message, answer: Answer, authoritative: bool) -> Message {
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.metadata.response_code = answer.code;
    message.metadata.authoritative = authoritative;
    message.metadata.recursion_desired = question.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.queries.clone_from(&question.queries);
    message.answers = answer.answers;
    message.authorities = answer.authorities;
    message.additionals = answer.additionals;
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_LIMIT);
        message.set_edns(edns);
    }
    message
}

/// The answer as bytes that fit what the client takes over UDP: cut, and marked so, if need be.
fn for_udp(question: &Message, mut answer: Message) -> Vec<u8> {
    let limit = usize::from(question.max_payload().clamp(512, UDP_LIMIT));
    let bytes = answer.to_vec().unwrap_or_default();
    if bytes.len() <= limit {
        return bytes;
    }
    answer.additionals.clear();
    let bytes = answer.to_vec().unwrap_or_default();
    if bytes.len() <= limit {
        return bytes;
    }
    answer.metadata.truncation = true;
    while !answer.answers.is_empty() {
        let half = answer.answers.len() / 2;
        answer.answers.truncate(half);
        let bytes = answer.to_vec().unwrap_or_default();
        if bytes.len() <= limit {
            return bytes;
        }
    }
    answer.to_vec().unwrap_or_default()
}
