//! Service account tokens, cached until they should be renewed.

use std::collections::HashMap;
use std::future::Future;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestStatus};
use parking_lot::Mutex;
use tracing::warn;

/// Tokens are renewed after a day at the latest, whatever they live.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    namespace: String,
    account: String,
    audiences: Vec<String>,
    seconds: i64,
    bound_uid: String,
}

#[derive(Clone)]
struct Held {
    token: String,
    issued: Timestamp,
    expires: Timestamp,
}

/// The cache.
#[derive(Default)]
pub struct Tokens {
    held: Mutex<HashMap<Key, Held>>,
}

impl Held {
    fn new(status: &TokenRequestStatus, seconds: i64) -> Self {
        let expires = status.expiration_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
        let issued = expires.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(expires);
        Self { token: status.token.clone().unwrap_or_default(), issued, expires }
    }

    /// 80 % of its life have passed, or a day.
    fn is_due(&self, now: Timestamp) -> bool {
        let age = now.duration_since(self.issued);
        let life = self.expires.duration_since(self.issued);
        age >= MAX_AGE || age >= life * 4 / 5
    }
}

impl Tokens {
    /// The cached token, or one from `fetch`. While a token still lives, a failed renewal only warns.
    pub async fn get<F, Fut, E>(
        &self,
        namespace: &str,
        account: &str,
        request: &TokenRequest,
        fetch: F,
    ) -> Result<String, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<TokenRequest, E>>,
        E: std::fmt::Display,
    {
        let spec = request.spec.clone().unwrap_or_default();
        let key = Key {
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            audiences: spec.audiences.unwrap_or_default(),
            seconds: spec.expiration_seconds.unwrap_or_default(),
            bound_uid: spec.bound_object_ref.and_then(|bound| bound.uid).unwrap_or_default(),
        };
        let now = Timestamp::now();
        let held = self.held.lock().get(&key).cloned();
        if let Some(held) = held.as_ref().filter(|held| !held.is_due(now)) {
            return Ok(held.token.clone());
        }
        match (fetch().await, held) {
            (Ok(response), _) => {
                let seconds = response.spec.and_then(|spec| spec.expiration_seconds).unwrap_or(key.seconds);
                let new = Held::new(&response.status.unwrap_or_default(), seconds);
                self.held.lock().insert(key, new.clone());
                Ok(new.token)
            }
            (Err(error), Some(held)) if held.expires > now => {
                warn!(namespace, account, %error, "could not renew a service account token that still lives");
                Ok(held.token)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Drops the tokens bound to a pod.
    pub fn forget(&self, pod_uid: &str) {
        self.held.lock().retain(|key, _| key.bound_uid != pod_uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::TokenRequestSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn token_is_due_at_four_fifths_of_its_life_or_after_a_day() {
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        for (seconds, age, due) in [
            (3600, 0, false),
            (3600, 2879, false),
            (3600, 2880, true),
            (400_000, 86_399, false),
            (400_000, 86_400, true),
        ] {
            let expires = start + SignedDuration::from_secs(seconds);
            let held = Held::new(
                &TokenRequestStatus { expiration_timestamp: Some(Time(expires)), token: None },
                seconds,
            );
            assert_eq!(held.is_due(start + SignedDuration::from_secs(age)), due, "{seconds} {age}");
        }
    }

    #[tokio::test]
    async fn token_is_fetched_once_and_again_after_its_pod_is_forgotten() {
        let tokens = Tokens::default();
        let request = TokenRequest::default();
        let fetch = |name: &'static str| {
            move || async move {
                let expires = Timestamp::now() + SignedDuration::from_secs(3600);
                let status = TokenRequestStatus {
                    expiration_timestamp: Some(Time(expires)),
                    token: Some(name.to_owned()),
                };
                let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
                Ok::<_, String>(TokenRequest {
                    spec: Some(spec),
                    status: Some(status),
                    ..TokenRequest::default()
                })
            }
        };
        assert_eq!(tokens.get("ns", "sa", &request, fetch("one")).await.unwrap(), "one");
        assert_eq!(tokens.get("ns", "sa", &request, fetch("two")).await.unwrap(), "one");
        tokens.forget("");
        assert_eq!(tokens.get("ns", "sa", &request, fetch("two")).await.unwrap(), "two");
    }
}
