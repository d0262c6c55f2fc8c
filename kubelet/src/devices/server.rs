//! Where device plugins register: `device-plugins/kubelet.sock` under the kubelet's directory.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use client::Tasks;
use proto::device_plugin as api;
use proto::device_plugin::registration_server::{Registration, RegistrationServer};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::Devices;

/// The one version that is spoken.
const VERSION: &str = "v1beta1";
const SOCKET: &str = "kubelet.sock";

impl Devices {
    /// Starts taking in plugins. Sockets of a former run are removed, which tells plugins to register again.
    pub fn serve(&self, tasks: &Tasks) -> std::io::Result<()> {
        let directory = &self.inner.directory;
        clean(directory)?;
        let listener = UnixListener::bind(directory.join(SOCKET))?;
        let service = RegistrationServer::new(self.clone());
        tasks.spawn("device-plugin-registration", |token| async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let stopped = token.cancelled_owned();
            let served =
                server.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped).await;
            if let Err(error) = served {
                tracing::error!(error = client::chain(&error), "device plugins cannot register any more");
            }
        });
        Ok(())
    }

    /// Whether a plugin may register under this name; the text of a refusal is upstream's.
    pub(crate) fn validate(name: &str, versions: &[String]) -> Result<(), String> {
        if !versions.iter().any(|version| version == VERSION) {
            return Err(format!(
                "manager version, {VERSION}, is not among plugin supported versions [{}]",
                versions.join(" ")
            ));
        }
        if !is_extended(name) {
            return Err(format!(
                "invalid name of device plugin socket: the ResourceName {name:?} is invalid"
            ));
        }
        Ok(())
    }
}

/// Removes the sockets in the directory, which is made if need be. Other files stay.
fn clean(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for entry in std::fs::read_dir(directory)?.flatten() {
        if std::fs::symlink_metadata(entry.path()).is_ok_and(|m| m.file_type().is_socket()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a name may be one of a resource that Kubernetes does not know itself.
pub(crate) fn is_extended(name: &str) -> bool {
    name.contains('/')
        && !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && ::api::format::label_key(&format!("requests.{name}")).is_empty()
}

#[tonic::async_trait]
impl Registration for Devices {
    async fn register(&self, request: Request<api::RegisterRequest>) -> Result<Response<api::Empty>, Status> {
        let request = request.into_inner();
        let name = &request.resource_name;
        tracing::info!(resource = name, "device plugin registers");
        metrics::counter!("kubelet_device_plugin_registration_total", "resource_name" => name.clone())
            .increment(1);
        let refuse = |message: String| {
            tracing::error!(resource = name, message, "device plugin is refused");
            Err(Status::unknown(message))
        };
        if request.version != VERSION {
            return refuse(format!(
                "requested API version {:?} is not supported by kubelet. Supported version is [{VERSION:?}]",
                request.version
            ));
        }
        if !is_extended(name) {
            return refuse(format!("the ResourceName {name:?} is invalid"));
        }
        match self.connect(name, &self.inner.directory.join(&request.endpoint)).await {
            Ok(()) => Ok(Response::new(api::Empty {})),
            Err(error) => refuse(error),
        }
    }
}
