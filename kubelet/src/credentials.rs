//! The kubelet from its flags on: gets credentials, connects, runs; connects anew when its certificate was renewed.

use anyhow::Context;
use client::component::BadConfiguration;
use tokio_util::sync::CancellationToken;

use crate::{Config, Flags, certificates};

/// Runs the kubelet that `flags` describe until `token` is cancelled.
///
/// # Errors
/// The flags cannot be used, there are no credentials to be had, or the kubelet fails for good.
pub async fn run(flags: Flags, token: CancellationToken) -> anyhow::Result<()> {
    let options = flags.connect_options();
    let config = flags.into_config().map_err(|error| BadConfiguration(format!("{error:#}")))?;
    let Some(options) = options else { return crate::run(config, None, token).await };
    if let (Some(bootstrap), Some(kubeconfig)) = (&config.bootstrap_kubeconfig, &config.kubeconfig) {
        let ready = certificates::bootstrap(bootstrap, kubeconfig, &config.cert_dir, &config.node_name);
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            ready = ready => ready.context("bootstrap the client certificate")?,
        }
    }
    while !token.is_cancelled() {
        let client = client::connect(&options).await?;
        // Pods do not notice: the kubelet starts over with the new certificate, as after any restart.
        let round = token.child_token();
        let renewal = tokio::spawn(renew(config.clone(), client.clone(), round.clone()));
        let ended = crate::run(config.clone(), client, round.clone()).await;
        round.cancel();
        renewal.await.context("certificate renewal")?;
        ended?;
    }
    Ok(())
}

/// Renews the client certificate in time, and ends the round when there is a new one.
async fn renew(config: Config, client: client::Client, round: CancellationToken) {
    if !config.kubelet.rotate_certificates {
        return;
    }
    let end = round.clone();
    certificates::rotate(client, config.cert_dir, config.node_name, move || end.cancel(), round).await;
}
