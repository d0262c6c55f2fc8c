//! Runs the component: health from the start, controllers while this process leads.

use crate::context::Context;
use crate::credentials;
use crate::options::Config;
use crate::registry::CONTROLLERS;
use anyhow::Context as _;
use client::leader::Lead;
use client::serving::{self, Health};
use client::{Client, SharedInformerFactory, Tasks};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs until `token` is cancelled and everything has stopped, or until the lead is lost.
pub async fn run(config: Config, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let tasks = Tasks::child_of(&token);
    let health = Health::new();
    if let Some(election) = &config.election {
        health.add("leaderElection", election.check());
    }
    if let Some(address) = config.serve {
        let health = health.clone();
        tasks.spawn_critical("serving", move |token| serving::serve(address, health, token));
    }
    let outcome = tokio::select! {
        outcome = lead(&config, &client, &health, &token) => outcome,
        failed = tasks.wait() => failed.context("a part of the controller manager failed"),
    };
    let _ = tasks.shut_down().await;
    outcome
}

async fn lead(
    config: &Arc<Config>,
    client: &Client,
    health: &Health,
    token: &CancellationToken,
) -> anyhow::Result<()> {
    let work = |lead: Lead| control(config.clone(), health.clone(), lead);
    match &config.election {
        Some(election) => election
            .run(client.clone(), token.clone(), work)
            .await
            .context("the lead is lost, so control ends"),
        None => {
            work(Lead::alone(client.clone(), token.clone())).await;
            Ok(())
        }
    }
}

/// Starts every selected controller and stops them all when the lead is to end.
async fn control(config: Arc<Config>, health: Health, lead: Lead) {
    let tasks = Tasks::child_of(&lead.token);
    let anonymous = config.anonymous.clone().map(|client| lead.fence(client));
    let context = Context {
        informers: SharedInformerFactory::new(lead.client.clone(), &tasks),
        client: lead.client,
        tasks: tasks.clone(),
        config,
    };
    for entry in CONTROLLERS.iter().filter(|entry| context.config.controllers.contains(&entry.name)) {
        tracing::debug!(controller = entry.name, "starting");
        // Caches are shared and read with the process's own rights; writes are each controller's own.
        let client = match &anonymous {
            Some(anonymous) if !entry.account.is_empty() => credentials::client(
                anonymous.clone(),
                context.client.clone(),
                entry.account,
                context.config.clock,
            ),
            _ => context.client.clone(),
        };
        (entry.start)(&Context { client, ..context.clone() });
        // As upstream's BuildControllers: a controller that runs is healthy, whatever becomes of its keys.
        health.add(entry.name, || Ok(()));
    }
    lead.token.cancelled().await;
    let _ = tasks.shut_down().await;
}
