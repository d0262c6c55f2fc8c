//! Somebody who asks a service again and again, and what they saw.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// How often a visitor asks, whatever became of the questions before.
const EVERY: Duration = Duration::from_millis(500);
/// How long a visitor waits for an answer. Emulated machines take their time.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is asked, and what the answer must hold.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The name of the service.
    pub of: &'static str,
    words: &'static str,
    answer: &'static str,
}

/// The sample `hello`.
pub const HELLO: Question =
    Question { of: "hello", words: "GET / HTTP/1.0\r\nHost: hello\r\n\r\n", answer: "hello from hello-" };
/// The string service, three services one behind the other.
pub const STRINGS: Question = Question { of: "string service", words: "hello\n", answer: "OLLEH" };

/// Asks once, on a connection of its own.
///
/// # Errors
/// There is no answer, or another.
pub async fn ask(question: Question, at: SocketAddr) -> Result<()> {
    let exchange = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(question.words.as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.contains(question.answer), "answered {answer:?}");
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| anyhow::anyhow!("no answer"))?
}

/// One who asks; see [`Visitor::leave`].
pub struct Visitor {
    end: CancellationToken,
    task: JoinHandle<Visits>,
}

impl Visitor {
    /// Begins to ask.
    pub fn come(question: Question, at: SocketAddr) -> Self {
        let end = CancellationToken::new();
        Self { task: tokio::spawn(visit(question, at, end.clone())), end }
    }

    /// Asks no more, waits for the answers to what was asked, and tells.
    ///
    /// # Errors
    /// The visitor's task broke.
    pub async fn leave(self) -> Result<Visits> {
        self.end.cancel();
        Ok(self.task.await?)
    }
}

async fn visit(question: Question, at: SocketAddr, end: CancellationToken) -> Visits {
    let mut clock = tokio::time::interval(EVERY);
    let mut asked = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = end.cancelled() => break,
            _ = clock.tick() => {}
        }
        asked.spawn(async move {
            let began = Instant::now();
            let failure = ask(question, at).await.err().map(|error| format!("{error:#}"));
            Visit { began, took: began.elapsed(), failure }
        });
    }
    let mut visits = asked.join_all().await;
    visits.sort_by_key(|visit| visit.began);
    Visits { question, at, visits }
}

struct Visit {
    began: Instant,
    took: Duration,
    failure: Option<String>,
}

/// What one visitor saw.
pub struct Visits {
    question: Question,
    at: SocketAddr,
    visits: Vec<Visit>,
}

impl Visits {
    /// The service that was asked.
    pub fn of(&self) -> &'static str {
        self.question.of
    }

    /// Questions that were asked in this time and not answered well.
    pub fn failures(&self, from: Instant, until: Instant) -> usize {
        self.within(from, until).filter(|visit| visit.failure.is_some()).count()
    }

    /// Questions that were asked in this time.
    pub fn asked(&self, from: Instant, until: Instant) -> usize {
        self.within(from, until).count()
    }

    fn within(&self, from: Instant, until: Instant) -> impl Iterator<Item = &Visit> {
        self.visits.iter().filter(move |visit| (from..until).contains(&visit.began))
    }

    /// In a line, with times since `event`.
    pub fn told_since(&self, event: Instant) -> Told<'_> {
        Told { visits: self, event }
    }
}

/// Prints what a visitor saw.
pub struct Told<'a> {
    visits: &'a Visits,
    event: Instant,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Visits { question, at, visits } = self.visits;
        let failed: Vec<_> = visits.iter().filter(|visit| visit.failure.is_some()).collect();
        write!(f, "{} at {}: {} of {} questions failed", question.of, at.ip(), failed.len(), visits.len())?;
        let since = |visit: &Visit| {
            let ahead = self.event.saturating_duration_since(visit.began).as_secs_f64();
            visit.began.saturating_duration_since(self.event).as_secs_f64() - ahead
        };
        if let (Some(first), Some(last)) = (failed.first(), failed.last()) {
            write!(f, ", those asked {:.1} to {:.1} s after", since(first), since(last))?;
            write!(f, " ({})", last.failure.as_deref().unwrap_or_default())?;
        }
        let slowest = visits.iter().filter(|v| v.failure.is_none()).map(|v| v.took).max().unwrap_or_default();
        write!(f, "; slowest answer {:.1} s", slowest.as_secs_f64())
    }
}
