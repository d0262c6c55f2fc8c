//! gRPC contracts, compiled from the `.proto` files of this crate without `protoc`.
//!
//! Values and generated clients and servers only; who speaks them lives elsewhere. The files under `proto/` are ours;
//! names and numbers in them are the wire contracts of others and never change.

/// Container runtime interface `runtime.v1`: what a kubelet asks of a container runtime.
#[allow(missing_docs, clippy::all, reason = "generated from proto/cri.proto")]
pub mod cri {
    tonic::include_proto!("runtime.v1");
}
