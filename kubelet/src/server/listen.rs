//! Sockets, TLS and connections.

use std::sync::Arc;

use anyhow::Context;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Server, routes};
use crate::certificates::ServingConfig;

/// TLS that asks for a client certificate when there is an authority to judge it by.
pub fn tls_config(serving: &ServingConfig, client_ca: &str) -> anyhow::Result<TlsAcceptor> {
    let provider = client::tls::provider();
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = if client_ca.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        let authorities =
            CertificateDer::pem_file_iter(client_ca).with_context(|| format!("read {client_ca}"))?;
        for authority in authorities {
            roots
                .add(authority.with_context(|| format!("parse {client_ca}"))?)
                .with_context(|| format!("use {client_ca}"))?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
        builder.with_client_cert_verifier(verifier.build().context("judge client certificates")?)
    };
    let mut config = builder.with_cert_resolver(serving.resolver());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // As Go's servers do.
    config.ignore_client_order = true;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn next(listener: &TcpListener, token: &CancellationToken) -> Option<TcpStream> {
    loop {
        tokio::select! {
            biased;
            () = token.cancelled() => return None,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Without it, small frames of interactive streams would wait for each other.
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "cannot set TCP_NODELAY");
                    }
                    return Some(stream);
                }
                // Out of descriptors, or the peer is gone already: others may still come.
                Err(error) => {
                    warn!(%error, "accept");
                    tokio::task::yield_now().await;
                }
            },
        }
    }
}

/// Health alone, for whoever can reach the port.
pub async fn accept_plain(listener: TcpListener, server: Arc<Server>, token: CancellationToken) {
    while let Some(stream) = next(&listener, &token).await {
        let (server, tasks) = (server.clone(), server.tasks.clone());
        tasks.spawn("healthz-connection", |token| async move {
            let service = service_fn(|request: http::Request<Incoming>| {
                let response = routes::health(&server, request.uri().path());
                async { Ok::<_, std::convert::Infallible>(response) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = token.cancelled() => {}
                _ = connection => {}
            }
        });
    }
}

/// Everything, for whoever may.
pub async fn accept_tls(
    listener: TcpListener,
    tls: TlsAcceptor,
    server: Arc<Server>,
    token: CancellationToken,
) {
    while let Some(stream) = next(&listener, &token).await {
        let (server, tasks, tls) = (server.clone(), server.tasks.clone(), tls.clone());
        tasks.spawn("connection", |token| async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = connection(stream, &tls, server) => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, tls: &TlsAcceptor, server: Arc<Server>) {
    let stream = match tls.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => return debug!(%error, "TLS handshake"),
    };
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|first| first.clone().into_owned());
    let service = service_fn(|request| {
        let (server, certificate) = (server.clone(), certificate.clone());
        async move {
            Ok::<_, std::convert::Infallible>(routes::handle(&server, certificate.as_ref(), request).await)
        }
    });
    let builder = Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        debug!(error = %error, "connection ended");
    }
}
