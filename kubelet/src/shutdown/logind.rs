//! The login manager of systemd, over the system's message bus.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::dbus::{Bus, Error, Target, Value};
use super::{Inhibitor, LoginManager};

/// SIGHUP: read the configuration again.
const RELOAD: i32 = 1;
/// How often the longest delay is looked at until it is what was asked for, each time after twice as long.
const LOOKS: u32 = 5;
const LOOK: Duration = Duration::from_millis(100);

const LOGIN: Target = Target {
    destination: "org.freedesktop.login1",
    path: "/org/freedesktop/login1",
    interface: "org.freedesktop.login1.Manager",
};
const PROPERTIES: Target = Target { interface: "org.freedesktop.DBus.Properties", ..LOGIN };
const SYSTEMD: Target = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const ANNOUNCEMENT: &str = "PrepareForShutdown";

/// systemd-logind. Each purpose has a connection of its own, opened when it is needed: a bus may go away and come back.
#[derive(Clone, Debug)]
pub struct Logind {
    /// Socket of the system's bus.
    pub bus: PathBuf,
    /// Directory of logind's drop-in files.
    pub configuration: PathBuf,
}

impl Default for Logind {
    fn default() -> Self {
        Self {
            bus: PathBuf::from("/run/dbus/system_bus_socket"),
            configuration: PathBuf::from("/etc/systemd/logind.conf.d"),
        }
    }
}

fn failed(what: &str) -> impl FnOnce(Error) -> String + '_ {
    move |error| format!("{what}: {}", client::chain(&error))
}

fn text(text: &str) -> Value {
    Value::Str(text.to_owned())
}

impl Logind {
    async fn connect(&self) -> Result<Bus, String> {
        Bus::connect(&self.bus).await.map_err(failed("connect to the system bus"))
    }
}

/// The longest delay there is now.
async fn longest(bus: &mut Bus) -> Result<Duration, String> {
    let name = [text(LOGIN.interface), text("InhibitDelayMaxUSec")];
    let answer = bus.call(PROPERTIES, "Get", &name).await;
    let answer = answer.map_err(failed("failed reading InhibitDelayMaxUSec property from logind"))?;
    match answer.body.first() {
        Some(Value::U64(micros)) => Ok(Duration::from_micros(*micros)),
        _ => Err("InhibitDelayMaxUSec from logind is not a uint64 as expected".to_owned()),
    }
}

/// Writes what makes logind wait for so long.
fn override_delay(directory: &Path, delay: Duration) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let text = format!("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={}\n", delay.as_secs());
    std::fs::write(directory.join("99-kubelet.conf"), text)
}

#[async_trait]
impl LoginManager for Logind {
    async fn allow(&self, delay: Duration) -> Result<(), String> {
        let mut bus = self.connect().await?;
        if longest(&mut bus).await? >= delay {
            return Ok(());
        }
        override_delay(&self.configuration, delay)
            .map_err(|error| format!("unable to override inhibit delay by shutdown manager: {error}"))?;
        let reload = [text("systemd-logind.service"), text("all"), Value::I32(RELOAD)];
        bus.call(SYSTEMD, "KillUnit", &reload).await.map_err(failed("unable to reload logind conf"))?;
        // It reads its configuration when it comes to it.
        let mut wait = LOOK;
        for _ in 0..LOOKS {
            if longest(&mut bus).await? >= delay {
                return Ok(());
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Err(format!(
            "node shutdown manager was timed out after {LOOKS} attempts waiting for logind InhibitDelayMaxSec to \
             update to {delay:?} (ShutdownGracePeriod)"
        ))
    }

    async fn inhibit(&self) -> Result<Inhibitor, String> {
        let why = "Kubelet needs time to handle node shutdown";
        let args = [text("shutdown"), text("kubelet"), text(why), text("delay")];
        let answer = self.connect().await?.call(LOGIN, "Inhibit", &args).await;
        let answer = answer.map_err(failed("failed creating systemd inhibitor"))?;
        let held = answer.body.into_iter().find_map(|value| match value {
            Value::File(held) => Some(held),
            _ => None,
        });
        // The delay ends when this file is closed.
        let held: OwnedFd = held.ok_or("failed storing inhibit lock file descriptor: there is none")?;
        Ok(Box::new(held))
    }

    async fn announcements(&self) -> Result<BoxStream<'static, bool>, String> {
        let mut bus = self.connect().await?;
        let rule = format!(
            "type='signal',sender='{}',path='{}',interface='{}',member='{ANNOUNCEMENT}'",
            LOGIN.destination, LOGIN.path, LOGIN.interface
        );
        bus.listen(&rule).await.map_err(failed("failed to monitor shutdown"))?;
        let next = |mut bus: Bus| async move {
            loop {
                let signal = bus.signal().await.ok()?;
                let ours = signal.interface == LOGIN.interface && signal.member == ANNOUNCEMENT;
                if let (true, Some(Value::Bool(begins))) = (ours, signal.body.first()) {
                    return Some((*begins, bus));
                }
            }
        };
        Ok(futures::stream::unfold(bus, next).boxed())
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::shutdown::dbus::{self, Message};
    use crate::volumes::testing::Scratch;

    /// A bus with a login manager behind it.
    #[derive(Clone)]
    struct FakeBus {
        configuration: PathBuf,
        calls: mpsc::UnboundedSender<String>,
        announce: watch::Sender<Option<bool>>,
    }

    async fn line(stream: &mut UnixStream) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.expect("a line"));
        }
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }

    async fn message(stream: &mut UnixStream) -> Option<Message> {
        let mut bytes = vec![0; 16];
        stream.read_exact(&mut bytes).await.ok()?;
        let length = dbus::length(&bytes).expect("a header").expect("whole");
        bytes.resize(length, 0);
        stream.read_exact(&mut bytes[16..]).await.ok()?;
        Some(dbus::read(&bytes, &mut Default::default()).expect("a message"))
    }

    impl FakeBus {
        async fn serve(self, mut stream: UnixStream) {
            assert!(line(&mut stream).await.starts_with("\0AUTH EXTERNAL "));
            stream.write_all(b"OK 0123\r\n").await.expect("written");
            assert_eq!(line(&mut stream).await, "NEGOTIATE_UNIX_FD");
            stream.write_all(b"AGREE_UNIX_FD\r\n").await.expect("written");
            assert_eq!(line(&mut stream).await, "BEGIN");
            let mut announced = self.announce.subscribe();
            let mut listens = false;
            loop {
                let call = tokio::select! {
                    call = message(&mut stream) => call,
                    changed = announced.changed(), if listens => {
                        changed.expect("alive");
                        let begins = announced.borrow_and_update().unwrap_or_default();
                        let bytes = dbus::signal(9, LOGIN.interface, ANNOUNCEMENT, &[Value::Bool(begins)]);
                        stream.write_all(&bytes).await.expect("written");
                        continue;
                    }
                };
                let Some(call) = call else { return };
                listens |= call.member == "AddMatch";
                self.answer(&mut stream, &call).await;
            }
        }

        async fn answer(&self, stream: &mut UnixStream, call: &Message) {
            let args: Vec<_> = call.body.iter().map(|value| format!("{value:?}")).collect();
            self.calls.send(format!("{} {}", call.member, args.join(" "))).expect("heard");
            let file = self.configuration.join("99-kubelet.conf");
            let bytes = match call.member.as_str() {
                "Get" => {
                    let micros = if file.exists() { 60_000_000 } else { 5_000_000 };
                    dbus::answer(2, call.serial, &[Value::U64(micros)], true)
                }
                "Inhibit" => {
                    let (held, other) = std::os::unix::net::UnixStream::pair().expect("a pair");
                    let held = OwnedFd::from(held);
                    let bytes = dbus::answer(
                        2,
                        call.serial,
                        &[Value::File(held.try_clone().expect("cloned"))],
                        false,
                    );
                    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                    let mut control = SendAncillaryBuffer::new(&mut space);
                    let files = [held.as_fd()];
                    assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
                    sendmsg(&*stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty())
                        .expect("sent");
                    let calls = self.calls.clone();
                    // The other end is told when the last copy is closed.
                    tokio::task::spawn_blocking(move || {
                        let mut other = other;
                        drop(std::io::Read::read(&mut other, &mut [0]));
                        drop(calls.send("let go".to_owned()));
                    });
                    return;
                }
                "KillUnit" if self.configuration.ends_with("refused") => {
                    dbus::refusal(2, call.serial, "org.freedesktop.DBus.Error.AccessDenied", "no")
                }
                _ => dbus::answer(2, call.serial, &[], false),
            };
            stream.write_all(&bytes).await.expect("written");
        }
    }

    /// A login manager, what it is asked, and what makes it announce.
    fn start(
        scratch: &Scratch,
        directory: &str,
    ) -> (Logind, mpsc::UnboundedReceiver<String>, watch::Sender<Option<bool>>) {
        let (bus, configuration) = (scratch.path().join("bus"), scratch.path().join(directory));
        let listener = UnixListener::bind(&bus).expect("bind");
        let (calls, asked) = mpsc::unbounded_channel();
        let announce = watch::Sender::new(None);
        let fake = FakeBus { configuration: configuration.clone(), calls, announce: announce.clone() };
        // Ends with the runtime of the test.
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(fake.clone().serve(stream));
            }
        });
        (Logind { bus, configuration }, asked, announce)
    }

    /// The next call that is not about the bus itself.
    async fn next(asked: &mut mpsc::UnboundedReceiver<String>) -> String {
        loop {
            let call = asked.recv().await.expect("alive");
            if !call.starts_with("Hello") {
                return call;
            }
        }
    }

    #[tokio::test]
    async fn delays_are_allowed_held_and_let_go() {
        let scratch = Scratch::new();
        let (logind, mut asked, _) = start(&scratch, "logind.conf.d");
        logind.allow(Duration::from_secs(5)).await.expect("allowed as it is");
        let get = "Get Str(\"org.freedesktop.login1.Manager\") Str(\"InhibitDelayMaxUSec\")";
        assert_eq!(next(&mut asked).await, get);
        logind.allow(Duration::from_secs(60)).await.expect("allowed once it is told");
        let text = std::fs::read_to_string(logind.configuration.join("99-kubelet.conf")).expect("there");
        assert!(text.contains("[Login]\nInhibitDelayMaxSec=60\n"), "{text}");
        assert_eq!(next(&mut asked).await, get);
        assert_eq!(next(&mut asked).await, "KillUnit Str(\"systemd-logind.service\") Str(\"all\") I32(1)");
        assert_eq!(next(&mut asked).await, get);
        let held = logind.inhibit().await.expect("held");
        let why = "Kubelet needs time to handle node shutdown";
        assert_eq!(
            next(&mut asked).await,
            format!("Inhibit Str(\"shutdown\") Str(\"kubelet\") Str({why:?}) Str(\"delay\")")
        );
        drop(held);
        assert_eq!(next(&mut asked).await, "let go");
    }

    #[tokio::test]
    async fn shutdowns_are_heard_of() {
        let scratch = Scratch::new();
        let (logind, mut asked, announce) = start(&scratch, "logind.conf.d");
        let mut announcements = logind.announcements().await.expect("listened to");
        let rule = next(&mut asked).await;
        assert!(rule.contains("member='PrepareForShutdown'"), "{rule}");
        announce.send_replace(Some(true));
        assert_eq!(announcements.next().await, Some(true));
        announce.send_replace(Some(false));
        assert_eq!(announcements.next().await, Some(false));
    }

    #[tokio::test]
    async fn refusals_are_told_in_words() {
        let scratch = Scratch::new();
        let (logind, _asked, _announce) = start(&scratch, "refused");
        let refused = logind.allow(Duration::from_secs(60)).await;
        assert_eq!(
            refused,
            Err("unable to reload logind conf: org.freedesktop.DBus.Error.AccessDenied: no".to_owned())
        );
        let nowhere = Logind { bus: scratch.path().join("nowhere"), ..logind };
        let error = nowhere.allow(Duration::ZERO).await.expect_err("no bus");
        assert!(error.starts_with("connect to the system bus: message bus: "), "{error}");
    }
}
