//! Answers hold their seats until they are sent; watches only until they have told what was there when they began.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::Pass;
use super::level::Seat;
use super::watches::Registered;
use crate::body::{Body, BoxError};

/// An answer whose seats are given back at its end, or, if it is a watch, when there is nothing more to send for now; it is
/// counted among the watches until it ends.
#[must_use]
pub fn hold_while_sending(response: Response<Body>, pass: Pass) -> Response<Body> {
    let Pass { seat, watch } = pass;
    response.map(|inner| Sending { inner, seat: Some(seat), watch }.boxed_unsync())
}

struct Sending {
    inner: Body,
    seat: Option<Seat>,
    watch: Option<Registered>,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let over = match &polled {
            Poll::Ready(Some(Ok(_))) => false,
            Poll::Pending => self.watch.is_some(),
            Poll::Ready(_) => true,
        };
        if over {
            self.seat = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
