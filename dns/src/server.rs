//! UDP and TCP: a question in, an answer out.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
const ALIASES: usize = 8;

/// Answers questions.
pub struct Server {
    zone: Zone,
    source: Arc<dyn Source>,
    forwarder: Arc<Forwarder>,
}

impl Server {
    /// Answers from `source` for `zone`, and through `forwarder` for the rest.
    pub fn new(zone: Zone, source: Arc<dyn Source>, forwarder: Arc<Forwarder>) -> Self {
        Self { zone, source, forwarder }
    }

    /// Serves until `token` is cancelled.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn run(self: Arc<Self>, listen: SocketAddr, token: CancellationToken) -> Result<()> {
        let udp = bind(listen).await.with_context(|| format!("cannot listen on {listen} (UDP)"))?;
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
            let seen = self.seen(&question, "udp", peer, size);
            if let Some(answer) = self.answer_now(&question) {
                let _ = socket.send_to(&seen.answered(for_udp(&question, answer)), peer).await;
                continue;
            }
            // With all slots taken the client asks again.
            let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
            let (server, socket) = (self.clone(), socket.clone());
            tracker.spawn(async move {
                let answer = server.answer(&question).await;
                let _ = socket.send_to(&seen.answered(for_udp(&question, answer)), peer).await;
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
            let Ok((stream, peer)) = accepted else { continue };
            let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
            let (server, token) = (self.clone(), token.clone());
            tracker.spawn(async move {
                // A connection ends by its peer, by silence, or by an error; none concerns the others.
                tokio::select! { _ = server.serve_connection(stream, peer) => {} () = token.cancelled() => {} }
                drop(slot);
            });
        }
        tracker.close();
        tracker.wait().await;
    }

    async fn serve_connection(&self, mut stream: TcpStream, peer: SocketAddr) -> Result<()> {
        loop {
            let size = tokio::time::timeout(IDLE, stream.read_u16()).await??;
            let mut bytes = vec![0; usize::from(size)];
            tokio::time::timeout(IDLE, stream.read_exact(&mut bytes)).await??;
            let question = Message::from_vec(&bytes)?;
            let seen = self.seen(&question, "tcp", peer, bytes.len());
            let answer = seen.answered(self.answer(&question).await.to_vec()?);
            stream.write_u16(u16::try_from(answer.len())?).await?;
            stream.write_all(&answer).await?;
        }
    }

    /// Counts a question.
    fn seen(&self, question: &Message, protocol: &'static str, peer: SocketAddr, size: usize) -> Seen {
        let query = question.queries.first();
        let ours = query.is_some_and(|query| self.zone.is_ours(query.name()));
        let zone = if ours { self.zone.origin() } else { ".".to_owned() };
        let kind = query.map_or("other", |query| kind_text(query.query_type()));
        let family = if peer.ip().to_canonical().is_ipv4() { "1" } else { "2" };
        let labels = [
            ("zone", zone.clone()),
            ("proto", protocol.to_owned()),
            ("family", family.to_owned()),
            ("type", kind.to_owned()),
        ];
        metrics::counter!("coredns_dns_requests_total", &labels).increment(1);
        metrics::histogram!("coredns_dns_request_size_bytes", &labels[..2]).record(size as f64);
        Seen { zone, protocol, at: Instant::now() }
    }

    /// The answer, if it needs nobody else; `None` if the question must be forwarded.
    fn answer_now(&self, question: &Message) -> Option<Message> {
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
        if let Some(mut answer) = own {
            let mut target = alias_to_follow(&answer, query);
            // Aliases may lead to one another; no more of them than this are followed.
            for _ in 0..ALIASES {
                let Some(next) = target.take().map(|name| Query::query(name, query.query_type())) else {
                    break;
                };
                if let Some(inside) = self.zone.answer(&*self.source, next.name(), next.query_type()) {
                    target = alias_to_follow(&inside, query);
                    answer.answers.extend(inside.answers);
                } else if let Ok(outside) = self.forwarder.ask(&next).await {
                    answer.answers.extend(outside.answers);
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

/// A socket for `listen`. `0.0.0.0` stands for all addresses, those of IPv6 too where there are such: a pod may have one
/// of each family, and its Service leads to either.
async fn bind(listen: SocketAddr) -> std::io::Result<UdpSocket> {
    if listen.is_ipv4() && listen.ip().is_unspecified() {
        match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, listen.port())).await {
            // This machine may have no IPv6.
            Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
    UdpSocket::bind(listen).await
}

/// A question that was counted and not yet answered.
struct Seen {
    zone: String,
    protocol: &'static str,
    at: Instant,
}

impl Seen {
    /// Counts the answer, given as bytes.
    fn answered(&self, answer: Vec<u8>) -> Vec<u8> {
        let zone = self.zone.clone();
        metrics::histogram!("coredns_dns_request_duration_seconds", "zone" => zone.clone())
            .record(self.at.elapsed().as_secs_f64());
        // The code is the lower half of the fourth byte.
        let code = ResponseCode::from(0, answer.get(3).copied().unwrap_or_default() & 0xf);
        let code = format!("{code:?}").to_uppercase();
        metrics::counter!("coredns_dns_responses_total", "zone" => zone.clone(), "rcode" => code)
            .increment(1);
        let labels = [("zone", zone), ("proto", self.protocol.to_owned())];
        metrics::histogram!("coredns_dns_response_size_bytes", &labels).record(answer.len() as f64);
        answer
    }
}

/// The types that are counted apart.
fn kind_text(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::CNAME => "CNAME",
        RecordType::MX => "MX",
        RecordType::NS => "NS",
        RecordType::PTR => "PTR",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        RecordType::TXT => "TXT",
        _ => "other",
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
    if question.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Err(ResponseCode::BADVERS);
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

#[cfg(test)]
mod tests;
