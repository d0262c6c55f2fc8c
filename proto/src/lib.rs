//! gRPC contracts, compiled from the `.proto` files of this crate without `protoc`.
//!
//! Values and generated clients and servers only; who speaks them lives elsewhere. The files under `proto/` are ours;
//! names and numbers in them are the wire contracts of others and never change.

/// Container runtime interface `runtime.v1`: what a kubelet asks of a container runtime.
#[allow(missing_docs, clippy::all, reason = "generated from proto/cri.proto")]
pub mod cri {
    tonic::include_proto!("runtime.v1");
}

/// etcd v3: the key-value store below an apiserver.
pub mod etcd {
    /// Stored values.
    #[allow(missing_docs, clippy::all, reason = "generated from proto/mvcc.proto")]
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    /// Services and their messages.
    #[allow(missing_docs, clippy::all, reason = "generated from proto/etcd.proto")]
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
}

/// Key management service `v2`: who keeps the key that an apiserver's keys are encrypted with.
#[allow(missing_docs, clippy::all, reason = "generated from proto/kms.proto")]
pub mod kms {
    tonic::include_proto!("v2");
}

/// Tunnels of the network proxy (konnectivity): how an API server reaches a network that it is not in.
#[allow(missing_docs, clippy::all, reason = "generated from proto/konnectivity.proto")]
pub mod konnectivity {
    tonic::include_proto!("_");
}

/// Container storage interface `v1`: what a kubelet asks of a driver of volumes.
#[allow(missing_docs, clippy::all, reason = "generated from proto/csi.proto")]
pub mod csi {
    tonic::include_proto!("csi.v1");
}

/// How plugins make themselves known to a kubelet.
#[allow(missing_docs, clippy::all, reason = "generated from proto/pluginregistration.proto")]
pub mod plugin_registration {
    tonic::include_proto!("pluginregistration");
}

/// Device plugins `v1beta1`: how devices of a node come to a kubelet and its containers.
#[allow(missing_docs, clippy::all, reason = "generated from proto/deviceplugin.proto")]
pub mod device_plugin {
    tonic::include_proto!("v1beta1");
}

/// Pod resources `v1`: what the containers of a node were given.
#[allow(missing_docs, clippy::all, reason = "generated from proto/podresources.proto")]
pub mod pod_resources {
    tonic::include_proto!("v1");
}

/// Drivers of dynamic resources.
pub mod dra {
    /// Version 1.
    #[allow(missing_docs, clippy::all, reason = "generated from proto/dra_v1.proto")]
    pub mod v1 {
        tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1");
    }
    /// Health of devices.
    #[allow(missing_docs, clippy::all, reason = "generated from proto/dra_health.proto")]
    pub mod health {
        tonic::include_proto!("v1alpha1");
    }
    /// Version 1 beta 1, for drivers that know no other.
    #[allow(missing_docs, clippy::all, reason = "generated from proto/dra_v1beta1.proto")]
    pub mod v1beta1 {
        tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1beta1");
    }
}
