//! What authentication, authorization, admission and flow control add to a create: the same creates against servers of
//! which each has one of them more than the one before. The first knows its client by the certificate of the connection,
//! which costs nothing for a request. All servers are there from the start, and are driven in turn for several rounds;
//! each round is compared within itself, and the median of the rounds is told, as the machine does other things as well.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use deploy::layout::Layout;
use deploy::{kubeconfig, pki, processes};
use e2e::process::Process;
use e2e::wait;
use http::Method;

use crate::cases::{Until, drive, pod};
use crate::connection::{Connection, Content};
use crate::figures::{Figure, Requests};
use crate::target::Target;

/// What is compared, and how long.
#[derive(Args, Debug, Clone)]
pub struct CostsArgs {
    /// The kube-apiserver to start
    #[arg(long, default_value = "target/release/kube-apiserver")]
    server: PathBuf,
    /// Pods created by each round
    #[arg(long, default_value_t = 2000)]
    pods: usize,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Clients
    #[arg(long, default_value_t = 32)]
    clients: usize,
}

/// A user without special rights, whose token the servers know.
const TOKEN: &str = "the-token-of-the-writer";
/// All that can be switched off without hurting the API itself.
const PLUGINS: &str = "NamespaceLifecycle,LimitRanger,ServiceAccount,TaintNodesByCondition,PodSecurity,Priority,\
    DefaultTolerationSeconds,DefaultStorageClass,StorageObjectInUseProtection,PersistentVolumeClaimResize,RuntimeClass,\
    CertificateApproval,CertificateSigning,CertificateSubjectRestriction,DefaultIngressClass,PodTopologyLabels,\
    NodeDeclaredFeatureValidator,PodResizeValidator,MutatingAdmissionPolicy,MutatingAdmissionWebhook,ValidatingAdmissionPolicy,\
    ValidatingAdmissionWebhook,ResourceQuota";

/// One server: what it has more than the one before, and how it is told.
const STEPS: [(&str, &[&str], bool); 5] = [
    (
        "certificate of the connection",
        &["--authorization-mode=AlwaysAllow", "--enable-priority-and-fairness=false"],
        false,
    ),
    (
        "+ token with each request",
        &["--authorization-mode=AlwaysAllow", "--enable-priority-and-fairness=false"],
        true,
    ),
    (
        "+ authorization (Node, RBAC)",
        &["--authorization-mode=Node,RBAC", "--enable-priority-and-fairness=false"],
        true,
    ),
    ("+ admission", &["--authorization-mode=Node,RBAC", "--enable-priority-and-fairness=false"], true),
    ("+ flow control", &["--authorization-mode=Node,RBAC"], true),
];
/// The first step that has admission.
const ADMISSION: usize = 3;

struct Step {
    name: &'static str,
    process: Process,
    target: Target,
    sum: Requests,
    /// Of the server, for one create, in microseconds; by round.
    cpu: Vec<f64>,
}

/// Runs all rounds and prints what each step costs.
///
/// # Errors
/// A server does not start or breaks off.
pub async fn run(args: &CostsArgs) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut steps = Vec::new();
    for (at, (name, flags, known)) in STEPS.into_iter().enumerate() {
        let admission = (at < ADMISSION).then(|| format!("--disable-admission-plugins={PLUGINS}"));
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).chain(admission).collect();
        let folder = folder.path().join(at.to_string());
        let (process, target) = start(&args.server, &folder, flags, known).await.context(name)?;
        steps.push(Step { name, process, target, sum: Requests::default(), cpu: Vec::new() });
    }
    for round in 0..args.rounds {
        for step in &mut steps {
            measure(step, args, round).await.context(step.name)?;
        }
    }
    print(&steps);
    Ok(())
}

async fn measure(step: &mut Step, args: &CostsArgs, round: usize) -> Result<()> {
    let path = format!("{}/pods", step.target.namespace);
    let first = round * args.pods;
    let bodies: Arc<[String]> = (first..first + args.pods).map(|number| pod(number).to_string()).collect();
    let request = move |number: usize| (Method::POST, path.clone(), "", bodies[number].clone());
    let pid = step.process.pid().context("the server is gone")?;
    let before = processes::cpu_seconds(pid);
    let done = drive(&step.target, args.clients, Until::Number(args.pods), request).await?;
    let Figure::Requests(done) = done else { anyhow::bail!("no requests") };
    step.cpu.push((processes::cpu_seconds(pid) - before) * 1e6 / args.pods.max(1) as f64);
    let elapsed = step.sum.elapsed + done.elapsed;
    step.sum.absorb(done);
    step.sum.elapsed = elapsed;
    ensure!(step.sum.errors == 0, "{} creates failed", step.sum.errors);
    Ok(())
}

fn print(steps: &[Step]) {
    println!("{:<32}{:>10} {:>12} {:>10}", "", "creates/s", "CPU us each", "added");
    for step in steps {
        let added = step.cpu.iter().zip(&steps[0].cpu).map(|(own, first)| (own / first - 1.0) * 100.0);
        let (each, added) = (median(step.cpu.iter().copied()), median(added));
        println!("{:<32}{:>10.0} {each:>12.0} {added:>8.1} %", step.name, step.sum.rate());
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Starts a server with a namespace in which the writer may write.
async fn start(server: &Path, folder: &Path, flags: Vec<String>, known: bool) -> Result<(Process, Target)> {
    let layout = Layout::new(&folder.join("data"), &folder.join("run"));
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let loopback = std::net::Ipv4Addr::LOCALHOST.into();
    let subjects = pki::Subjects {
        node_name: "none".to_owned(),
        node_addresses: vec![loopback],
        service_address: loopback,
        cluster_domain: "cluster.local".to_owned(),
    };
    pki::prepare(&layout, &subjects)?;
    let url = format!("https://127.0.0.1:{port}");
    kubeconfig::prepare(&layout, &url)?;
    let tokens = folder.join("tokens");
    std::fs::write(&tokens, format!("{TOKEN},writer,1,writers\n"))?;
    let file = |name: &str| layout.pki(name).display().to_string();
    let mut words = vec![
        server.display().to_string(),
        format!("--data-dir={}", layout.data.join("store").display()),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        format!("--token-auth-file={}", tokens.display()),
    ];
    words.extend(flags);
    let process = Process::start("kube-apiserver", words, folder)?;
    let admin = Target::connect(&layout.kubeconfig("admin"), None).await?;
    wait::until("the server is ready", || async {
        let Ok(mut connection) = Connection::open(&admin).await else { return Ok(None) };
        let (status, _) = connection.count(Method::GET, "/readyz", Content::default()).await?;
        Ok(status.is_success().then_some(()))
    })
    .await
    .with_context(|| process.log_tail())?;
    admin.prepare().await?;
    allow(&admin).await?;
    Ok((process, if known { admin.with_token(TOKEN)? } else { admin }))
}

async fn allow(admin: &Target) -> Result<()> {
    admin.grant("writers", &["create"]).await
}
