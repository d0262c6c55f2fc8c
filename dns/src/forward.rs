//! Questions about other names go to the servers of resolv.conf; their answers, good and bad, are remembered for
//! as long as they allow.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::debug;

const PATIENCE: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 1000;
const REMEMBERED: usize = 10_000;
const LONGEST: u32 = 30;
const LARGEST: usize = 4096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nobody to ask.
    #[error("there are no servers to forward to")]
    Nobody,
    /// Nobody answered in time.
    #[error("no server answered")]
    NoAnswer,
    /// Too many questions are on their way already.
    #[error("too many questions at once")]
    Busy,
}

type Key = (Name, RecordType, DNSClass);
/// An answer, when it came, and for how many seconds it holds.
type Remembered = (Arc<Message>, Instant, u32);

/// Asks and remembers.
pub struct Forwarder {
    upstreams: RwLock<Vec<SocketAddr>>,
    cache: Mutex<HashMap<Key, Remembered>>,
    slots: Semaphore,
}

impl Forwarder {
    /// Asks these servers, in order.
    #[must_use]
    pub fn new(upstreams: Vec<SocketAddr>) -> Self {
        Self { upstreams: RwLock::new(upstreams), cache: Mutex::default(), slots: Semaphore::new(AT_ONCE) }
    }

    /// Asks these from now on; true if they are others than before.
    pub fn set_upstreams(&self, upstreams: Vec<SocketAddr>) -> bool {
        let mut current = self.upstreams.write();
        let changed = *current != upstreams;
        *current = upstreams;
        changed
    }

    /// The answer to `query`: remembered, or from the first server that gives one.
    ///
    /// # Errors
    /// Nobody can be asked, or nobody answers.
    pub async fn ask(&self, query: &Query) -> Result<Message, Error> {
        let key = (query.name().to_lowercase(), query.query_type(), query.query_class());
        if let Some(message) = self.remembered(&key) {
            let good = message.metadata.response_code == ResponseCode::NoError && !message.answers.is_empty();
            metrics::counter!("coredns_cache_hits_total", "type" => if good { "success" } else { "denial" })
                .increment(1);
            return Ok(message);
        }
        metrics::counter!("coredns_cache_misses_total").increment(1);
        let upstreams = self.upstreams.read().clone();
        if upstreams.is_empty() {
            return Err(Error::Nobody);
        }
        let _slot = self.slots.try_acquire().map_err(|_| Error::Busy)?;
        for upstream in &upstreams {
            metrics::counter!("coredns_forward_requests_total", "to" => upstream.to_string()).increment(1);
            match tokio::time::timeout(PATIENCE, exchange(*upstream, query)).await {
                Ok(Ok(message)) if message.metadata.response_code != ResponseCode::ServFail => {
                    self.remember(key, &message);
                    return Ok(message);
                }
                Ok(Ok(_)) => debug!(%upstream, "server failed"),
                Ok(Err(error)) => debug!(%upstream, %error, "server did not answer"),
                Err(_) => debug!(%upstream, "server did not answer in time"),
            }
        }
        Err(Error::NoAnswer)
    }

    fn remembered(&self, key: &Key) -> Option<Message> {
        let (message, at, ttl) = self.cache.lock().get(key).cloned()?;
        let age = u32::try_from(at.elapsed().as_secs()).unwrap_or(u32::MAX);
        if age >= ttl {
            return None;
        }
        let mut message = (*message).clone();
        for record in
            message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals)
        {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(message)
    }

    fn remember(&self, key: Key, message: &Message) {
        let code = message.metadata.response_code;
        if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) || message.metadata.truncation {
            return;
        }
        let ttl = message.all_sections().map(|record| record.ttl).min().unwrap_or(LONGEST).min(LONGEST);
        if ttl == 0 {
            return;
        }
        let mut cache = self.cache.lock();
        if cache.len() >= REMEMBERED {
            cache.retain(|_, (_, at, ttl)| at.elapsed().as_secs() < u64::from(*ttl));
        }
        if cache.len() < REMEMBERED {
            cache.insert(key, (Arc::new(message.clone()), Instant::now(), ttl));
        }
    }
}

/// One question to one server: over UDP, and over TCP if the answer does not fit.
async fn exchange(upstream: SocketAddr, query: &Query) -> anyhow::Result<Message> {
    let mut question = Message::query();
    question.metadata.id = rand::random();
    question.metadata.recursion_desired = true;
    question.add_query(query.clone());
    let bytes = question.to_vec()?;
    let local: SocketAddr =
        if upstream.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(upstream).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let size = socket.recv(&mut buffer).await?;
        let Ok(answer) = Message::from_vec(&buffer[..size]) else { continue };
        if answer.metadata.id != question.metadata.id || answer.queries != question.queries {
            continue;
        }
        if answer.metadata.truncation {
            return over_tcp(upstream, &bytes).await;
        }
        return Ok(answer);
    }
}

async fn over_tcp(upstream: SocketAddr, question: &[u8]) -> anyhow::Result<Message> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream.write_u16(u16::try_from(question.len())?).await?;
    stream.write_all(question).await?;
    let size = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(size)];
    stream.read_exact(&mut answer).await?;
    Ok(Message::from_vec(&answer)?)
}
