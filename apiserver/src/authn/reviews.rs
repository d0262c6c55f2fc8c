//! TokenReview and SelfSubjectReview (upstream `registry/authentication`).

use std::collections::BTreeMap;

use api::status::ApiError;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{TokenAuthenticator, User};

/// Says whom a token names. `audiences`: of this server, for reviews that name none.
pub async fn token_review(
    mut review: TokenReview,
    tokens: &dyn TokenAuthenticator,
    audiences: &[String],
) -> Result<TokenReview, ApiError> {
    let token = review.spec.token.clone();
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let asked = review.spec.audiences.clone().unwrap_or_default();
    let wanted = if asked.is_empty() { audiences } else { &asked };
    let mut status = TokenReviewStatus::default();
    match tokens.authenticate_token(&token, wanted).await {
        Ok(Some(found)) => {
            status.authenticated = Some(true);
            status.user = Some(user_info(&found.user));
            status.audiences = Some(found.audiences).filter(|list| !list.is_empty());
        }
        Ok(None) => status.error = Some("invalid bearer token".to_owned()),
        Err(error) => {
            status.error = Some(format!("[invalid bearer token, {error}]"));
        }
    }
    if status.user.is_none() {
        status.user = Some(UserInfo::default());
    }
    review.status = Some(status);
    Ok(review)
}

/// Says who asks.
#[must_use]
pub fn self_subject_review(mut review: SelfSubjectReview, user: &User) -> SelfSubjectReview {
    review.metadata.creation_timestamp = Some(Time(Timestamp::now()));
    review.status = Some(SelfSubjectReviewStatus { user_info: Some(user_info(user)) });
    review
}

/// A user in its API form.
#[must_use]
pub fn user_info(user: &User) -> UserInfo {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let extra: BTreeMap<_, _> =
        user.extra.iter().map(|(key, values)| (key.clone(), values.clone())).collect();
    UserInfo {
        username: some(&user.name),
        uid: some(&user.uid),
        groups: Some(user.groups.clone()).filter(|groups| !groups.is_empty()),
        extra: Some(extra).filter(|extra| !extra.is_empty()),
    }
}
