//! What etcd's refusals mean.

use tonic::{Code, Status};

use crate::Error;

/// The history asked for has been compacted.
pub(super) fn is_compacted(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("compacted")
}

/// The revision asked for has not been reached.
pub(super) fn is_future(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("future revision")
}

/// The token of the session is not (or no longer) valid.
pub(super) fn is_signed_out(status: &Status) -> bool {
    status.code() == Code::Unauthenticated || status.message().contains("invalid auth token")
}

/// The request never reached a server.
pub(super) fn is_not_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Another member, or the same one later, may answer.
pub(super) fn is_passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        || is_not_sent(status)
}

/// The backend broke its contract.
pub(super) fn broken(what: &str) -> Error {
    Error::Damaged { reason: format!("etcd sent {what}") }
}

/// Any other refusal.
pub(super) fn of(status: &Status) -> Error {
    let reason = describe(status);
    match status.code() {
        Code::DataLoss => Error::Damaged { reason },
        _ => Error::Unavailable { reason },
    }
}

/// The refusal of a write of `size` bytes.
pub(super) fn of_write(status: &Status, key: &str, size: usize) -> Error {
    let text = status.message();
    if text.contains("request is too large") || text.contains("message larger than max") {
        return Error::TooLarge { key: key.to_owned(), size };
    }
    of(status)
}

/// The message with its causes: for a failed connection the cause is all that tells.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let compacted = Status::out_of_range("etcdserver: mvcc: required revision has been compacted");
        let future = Status::out_of_range("etcdserver: mvcc: required revision is a future revision");
        assert!(is_compacted(&compacted) && !is_future(&compacted));
        assert!(is_future(&future) && !is_compacted(&future));
        let large = Status::invalid_argument("etcdserver: request is too large");
        assert!(matches!(of_write(&large, "/a", 7), Error::TooLarge { size: 7, .. }));
        assert!(matches!(of(&Status::data_loss("etcdserver: corrupt cluster")), Error::Damaged { .. }));
        assert!(matches!(of(&Status::unavailable("etcdserver: no leader")), Error::Unavailable { .. }));
        assert!(is_passing(&Status::unavailable("x")) && !is_not_sent(&Status::unavailable("x")));
    }
}
