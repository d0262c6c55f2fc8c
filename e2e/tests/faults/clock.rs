//! A node whose clock jumps, by an hour and back: the kubelet runs with a clock that is told what to say
//! (Debian's libfaketime); the machine's own clock, and that of the API server, go on as ever.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::cluster::repository;
use e2e::kubectl::{Kubectl, pipe};
use e2e::pods::{pods, ready_pods};
use e2e::wait;

use super::{Env, condition_of, identity, keepers, node, running};

/// Seconds by which the kubelet's clock is wrong, one after the other.
const JUMPS: [&str; 4] = ["+3600", "+0", "-3600", "+0"];
/// So many probes are looked at after each jump.
const PROBES: usize = 5;
/// So many renewals of the lease: together they take longer than a node may be silent.
const RENEWALS: usize = 6;

/// Every second the container says so, and so does its probe; when told, the container ends.
const TICKING: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"ticks","labels":{"app":"ticks"}},"spec":{
    "terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"docker.io/library/busybox:1.36",
    "command":["sh","-c","until rm /data/end 2> /dev/null; do echo >> /data/ticks; sleep 1; done"],
    "readinessProbe":{"exec":{"command":["sh","-c","echo >> /data/probes"]},"periodSeconds":1},
    "volumeMounts":[{"name":"data","mountPath":"/data"}]}],"volumes":[{"name":"data","emptyDir":{}}]}}"#;

pub async fn no_pod_notices_that_the_clock_jumps(env: &mut Env, kubectl: Kubectl) -> Result<()> {
    let (library, clock) = (faketime()?, env.cluster.layout.run.join("clock"));
    std::fs::write(&clock, "+0")?;
    let environment = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".into()),
        // What counts the time since the machine started does not jump.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("NO_FAKE_STAT", "1".into()),
    ];
    env.cluster.restart_in("kubelet", &environment)?;
    keepers(&kubectl).await?;
    let before: Vec<_> = running(&kubectl, "app=keep", 2).await?.iter().map(identity).collect();
    pipe(&kubectl, "apply -f -", TICKING).await?;
    ready_pods(&kubectl, "app=ticks", 1).await?;
    let ready = condition_of(&node(&kubectl).await?, "Ready")?;
    for (number, jump) in JUMPS.into_iter().enumerate() {
        let probed = counts(&kubectl).await?;
        // At once: what reads it must not find half of it.
        let next = clock.with_extension("next");
        std::fs::write(&next, jump)?;
        std::fs::rename(&next, &clock)?;
        shown(&kubectl, jump).await.context(jump)?;
        probes_keep_their_pace(&kubectl, probed).await.context(jump)?;
        kubectl.run("exec ticks -- touch /data/end").await?;
        let restarts = i32::try_from(number)? + 1;
        wait::until("the container that ended is started again", || async {
            let pod = ready_pods(&kubectl, "app=ticks", 1).await?;
            let now = pods(&kubectl, "app=ticks").await?.iter().map(identity).next();
            let now = now.with_context(|| format!("{pod:?} is gone"))?;
            ensure!(now.2 == restarts, "{now:?}");
            Ok(Some(()))
        })
        .await
        .context(jump)?;
        let name = format!("new-{number}");
        kubectl
            .run(&format!("run {name} --image=docker.io/library/busybox:1.36 -l app={name} -- sleep 3600"))
            .await?;
        ready_pods(&kubectl, &format!("app={name}"), 1).await.context(jump)?;
        kubectl.run(&format!("delete pod {name} --grace-period=1")).await?;
        renewed(&kubectl, RENEWALS).await.context(jump)?;
        let after: Vec<_> = pods(&kubectl, "app=keep").await?.iter().map(identity).collect();
        ensure!(after == before, "{jump}: {before:?} became {after:?}");
        let now = condition_of(&node(&kubectl).await?, "Ready")?;
        ensure!(
            now.status == "True" && now.last_transition_time == ready.last_transition_time,
            "{jump}: {now:?}"
        );
        eprintln!("{jump}: nobody noticed");
    }
    Ok(())
}

/// How often the container and its probe have said something.
async fn counts(kubectl: &Kubectl) -> Result<(usize, usize)> {
    let said = kubectl.run("exec ticks -- wc -l /data/ticks /data/probes").await?;
    let count = |name: &str| {
        let line = said.lines().find(|line| line.ends_with(name)).with_context(|| said.clone())?;
        Ok::<usize, anyhow::Error>(line.split_whitespace().next().unwrap_or_default().parse()?)
    };
    Ok((count("ticks")?, count("probes")?))
}

/// They are not made up for, nor do they stop.
async fn probes_keep_their_pace(kubectl: &Kubectl, before: (usize, usize)) -> Result<()> {
    let (ticks, probes) = wait::until("some probes", || async {
        let now = counts(kubectl).await?;
        let (ticks, probes) = (now.0 - before.0, now.1 - before.1);
        ensure!(probes >= PROBES, "{probes} probes in {ticks} ticks");
        Ok(Some((ticks, probes)))
    })
    .await?;
    // One more may be on its way at either end, and seconds are as long as the shell takes for them.
    ensure!(probes <= ticks + 3, "{probes} probes in {ticks} ticks");
    eprintln!("{probes} probes in {ticks} ticks");
    Ok(())
}

/// Waits until the node's lease shows the clock: by more than half an hour later or earlier, or right.
async fn shown(kubectl: &Kubectl, jump: &str) -> Result<()> {
    let expected: i64 = jump.parse()?;
    wait::until("the lease shows the clock", || async {
        let renewed: jiff::Timestamp = lease(kubectl, "{.items[0].spec.renewTime}").await?.parse()?;
        let wrong = renewed.as_second() - jiff::Timestamp::now().as_second();
        ensure!((wrong - expected).abs() < 1800, "it is wrong by {wrong} s");
        Ok(Some(()))
    })
    .await
}

/// Waits until the lease was renewed so many times.
async fn renewed(kubectl: &Kubectl, times: usize) -> Result<()> {
    for _ in 0..times {
        let version = "{.items[0].metadata.resourceVersion}";
        let before = lease(kubectl, version).await?;
        wait::until("the lease is renewed", || async {
            Ok((lease(kubectl, version).await? != before).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn lease(kubectl: &Kubectl, what: &str) -> Result<String> {
    let words = format!("get leases -o jsonpath={what}");
    Ok(kubectl.in_namespace("kube-node-lease").run(&words).await?.trim().to_owned())
}

/// Debian's library, unpacked and not installed.
fn faketime() -> Result<PathBuf> {
    let folder = repository().join("target/debian-faketime");
    let library = folder.join("debian/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let library = library.join("faketime/libfaketimeMT.so.1");
    if !library.exists() {
        std::fs::create_dir_all(&folder)?;
        run(&folder, "apt-get", &["-q", "-o", "APT::Sandbox::User=root", "download", "libfaketime"])?;
        let mut entries = std::fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
        let package =
            entries.find(|path| path.extension().is_some_and(|e| e == "deb")).context("no package")?;
        run(&folder, "dpkg-deb", &["-x", &package.display().to_string(), "debian"])?;
    }
    Ok(library.canonicalize()?)
}

fn run(folder: &Path, program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program).args(words).current_dir(folder).output()?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
