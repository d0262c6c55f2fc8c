//! `/containerLogs`: the log of a container.

use std::path::PathBuf;
use std::sync::Arc;

use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::Server;
use super::query::Query;
use super::respond::{Body, stream, text, with_type};
use super::target::{Target, logged_container};
use crate::logs::{Options, Stream, read};
use crate::{runtime, types};

/// Pieces that wait for a slow reader.
const PIECES: usize = 64;

/// Answers with the log.
pub async fn logs(
    server: &Arc<Server>,
    namespace: &str,
    pod_name: &str,
    container: &str,
    query: &Query,
) -> Response<Body> {
    let options = match options(query, Timestamp::now()) {
        Ok(options) => options,
        Err(status) => {
            let message = if status == StatusCode::BAD_REQUEST {
                "Unable to decode query."
            } else {
                "Invalid request."
            };
            return text(status, format!("{{\"message\": \"{message}\"}}"));
        }
    };
    let Some(target) = Target::of_container(&[namespace, pod_name, container]) else {
        return text(StatusCode::BAD_REQUEST, "{\"message\": \"Missing podID.\"}");
    };
    let Some(pod) = target.find(server) else {
        return text(StatusCode::NOT_FOUND, format!("pod {pod_name:?} does not exist"));
    };
    if types::find_container(types::spec(&pod), container).is_none() {
        return text(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {pod_name:?}"));
    }
    let own = server.deps.status.pod_status(types::uid(&pod));
    let status = own.as_deref().or(pod.status.as_ref()).cloned().unwrap_or_default();
    let found = match logged_container(pod_name, &status, container, query.is_set("previous")) {
        Ok(id) => {
            server.deps.runtime.container_status(&id).await.map(|found| (id, PathBuf::from(found.log_path)))
        }
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    match found {
        Ok((id, path)) => send(server, id, path, options).await,
        Err(error) => text(
            StatusCode::BAD_REQUEST,
            format!("failed to try resolving symlinks: {}", client::chain(&error)),
        ),
    }
}

async fn send(server: &Arc<Server>, id: String, path: PathBuf, options: Options) -> Response<Body> {
    if let Err(error) = tokio::fs::metadata(&path).await {
        return text(
            StatusCode::BAD_REQUEST,
            format!("failed to try resolving symlinks in path {:?}: {error}", path.display().to_string()),
        );
    }
    let (sender, receiver) = mpsc::channel(PIECES);
    let runtime = server.deps.runtime.clone();
    server.tasks.spawn("container-log", |token| async move {
        let is_running = || is_running(&runtime, &id);
        let reading = read(&path, &options, &sender, is_running);
        let ended = tokio::select! {
            () = token.cancelled() => return,
            ended = reading => ended,
        };
        if let Err(error) = ended {
            // The reader sees a broken answer rather than a short log.
            let _ = sender.send(Err(error)).await;
        }
    });
    with_type(StatusCode::OK, "text/plain", stream(receiver))
}

async fn is_running(runtime: &runtime::Runtime, id: &str) -> bool {
    match runtime.container_status(id).await {
        Ok(status) => status.state == proto::cri::ContainerState::ContainerRunning as i32,
        // A runtime that restarts has not ended its containers.
        Err(error) => !error.is_not_found(),
    }
}

fn options(query: &Query, now: Timestamp) -> Result<Options, StatusCode> {
    let number = |name: &str| match query.first(name) {
        None => Ok(None),
        Some(text) => text.parse::<i64>().map(Some).map_err(|_| StatusCode::BAD_REQUEST),
    };
    let tail = if query.first("tail").is_some_and(|tail| tail != "all") {
        number("tail")?
    } else {
        number("tailLines")?
    };
    let (limit, seconds) = (number("limitBytes")?, number("sinceSeconds")?);
    let time = query
        .first("sinceTime")
        .map(|text| text.parse::<Timestamp>())
        .transpose()
        .map_err(|_| StatusCode::BAD_REQUEST)?;
    let invalid = tail.is_some_and(|tail| tail < 0)
        || limit.is_some_and(|limit| limit < 1)
        || seconds.is_some_and(|seconds| seconds < 1)
        || (seconds.is_some() && time.is_some());
    let stream = match query.first("stream") {
        None | Some("" | "All") => None,
        Some("Stdout") => Some(Stream::Stdout),
        Some("Stderr") => Some(Stream::Stderr),
        Some(_) => return Err(StatusCode::UNPROCESSABLE_ENTITY),
    };
    if invalid || (stream.is_some() && tail.is_some()) {
        return Err(StatusCode::UNPROCESSABLE_ENTITY);
    }
    let since = seconds.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok()).or(time);
    let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    Ok(Options {
        follow: query.is_set("follow"),
        since,
        tail: positive(tail),
        limit: positive(limit),
        timestamps: query.is_set("timestamps"),
        stream,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (query, want) in [
            ("", Ok("false None None None false None")),
            ("follow=true&tailLines=5&timestamps=1&limitBytes=9", Ok("true None Some(5) Some(9) true None")),
            ("sinceSeconds=10", Ok("false Some(1970-01-12T13:46:30Z) None None false None")),
            (
                "sinceTime=2026-01-01T00:00:00Z&stream=Stderr",
                Ok("false Some(2026-01-01T00:00:00Z) None None false Some(Stderr)"),
            ),
            ("tail=3", Ok("false None Some(3) None false None")),
            ("tail=all", Ok("false None None None false None")),
            ("tailLines=x", Err(400)),
            ("tailLines=-1", Err(422)),
            ("limitBytes=0", Err(422)),
            ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", Err(422)),
            ("stream=Stdout&tailLines=1", Err(422)),
            ("stream=stdin", Err(422)),
        ] {
            let got = options(&Query::parse(query), now);
            let got = got.map(|o| {
                format!(
                    "{} {:?} {:?} {:?} {} {:?}",
                    o.follow, o.since, o.tail, o.limit, o.timestamps, o.stream
                )
            });
            assert_eq!(got.map_err(|status| status.as_u16()), want.map(str::to_owned), "{query}");
        }
    }
}
