//! How commands fail: in upstream's words, with upstream's exit codes.

use std::fmt;

use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The server refused.
    Server(Box<Status>),
    /// The server could not be reached.
    Refused {
        /// Host and port.
        host: String,
        /// What happened.
        reason: String,
    },
    /// Something on our side.
    Local(String),
    /// In these words and no others.
    Plain(String),
    /// A command in a container ended with this code.
    Exit(u8),
}

/// What a command returns.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure in these words.
    pub fn local(text: impl Into<String>) -> Self {
        Self::Local(text.into())
    }

    /// The HTTP code of the server's refusal; 0 for other failures.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::Server(status) => status.code.unwrap_or(0),
            _ => 0,
        }
    }

    /// What the server said, or what happened, without words of ours before it.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Server(status) => status.message.clone().unwrap_or_else(|| "unknown".to_owned()),
            Self::Local(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// Whether the server said that the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exit(code) => *code,
            _ => 1,
        }
    }
}

impl From<api::jsonpath::Error> for Failure {
    fn from(error: api::jsonpath::Error) -> Self {
        Self::local(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(status) => {
                let message = status.message.as_deref().unwrap_or("unknown");
                let reason = status.reason.as_deref().unwrap_or_default();
                if reason == "Invalid" {
                    return write!(f, "The {}", invalid(status));
                }
                if reason.is_empty() {
                    return write!(f, "Error from server: {message}");
                }
                write!(f, "Error from server ({reason}): {message}")
            }
            Self::Refused { host, reason } if reason.contains("refused") => {
                write!(
                    f,
                    "The connection to the server {host} was refused - did you specify the right host or port?"
                )
            }
            Self::Refused { host, reason } => write!(f, "Unable to connect to the server: {host}: {reason}"),
            Self::Local(text) => write!(f, "error: {text}"),
            Self::Plain(text) => f.write_str(text),
            Self::Exit(code) => write!(f, "command terminated with exit code {code}"),
        }
    }
}

/// `Pod "x" is invalid: ` and the causes, one a line if there are several.
fn invalid(status: &Status) -> String {
    let details = status.details.clone().unwrap_or_default();
    let causes: Vec<_> = details.causes.unwrap_or_default();
    let (kind, name) = (details.kind.unwrap_or_default(), details.name.unwrap_or_default());
    let lines: Vec<_> = causes
        .iter()
        .map(|c| {
            format!(
                "{}: {}",
                c.field.as_deref().unwrap_or_default(),
                c.message.as_deref().unwrap_or_default()
            )
        })
        .collect();
    match lines.as_slice() {
        [] => status.message.clone().unwrap_or_default(),
        [only] => format!("{kind} {name:?} is invalid: {only}"),
        many => format!("{kind} {name:?} is invalid: \n* {}", many.join("\n* ")),
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let text = serde_json::to_value(&*status).and_then(serde_json::from_value::<Status>);
                text.map_or_else(
                    |_| Self::local(status.message.clone()),
                    |status| Self::Server(Box::new(status)),
                )
            }
            other => Self::local(client::chain(&other)),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::local(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::local(error.to_string())
    }
}
