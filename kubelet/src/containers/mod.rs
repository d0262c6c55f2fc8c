//! From pod specs to what the runtime is asked for: labels, sandbox and container configuration, limits, security.

pub mod container_config;
pub mod hash;
pub mod labels;
pub mod resources;
pub mod sandbox_config;
pub mod security;
