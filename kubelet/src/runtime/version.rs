//! What a runtime says about itself.

/// Name and version of a runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// Name, for example `containerd`; also the scheme of container identities.
    pub name: String,
    /// Version, for example `1.6.20`.
    pub version: String,
    /// Version of the interface it speaks.
    pub api_version: String,
}

impl RuntimeVersion {
    /// As a node's status reports it: `containerd://1.6.20`.
    #[must_use]
    pub fn node_info(&self) -> String {
        format!("{}://{}", self.name, self.version)
    }
}
