//! Answers hold their seats until they are sent; watches only until they have told what was there when they began. Large
//! answers of limited levels are sent in turns.

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
    let in_turns = seat.is_limited();
    response.map(|inner| Sending { inner, seat: Some(seat), watch, in_turns, sent: 0 }.boxed_unsync())
}

/// After so many bytes others get their turn: a client that takes fast would keep a thread for a whole list.
const TURN: usize = 128 * 1024;

struct Sending {
    inner: Body,
    seat: Option<Seat>,
    watch: Option<Registered>,
    in_turns: bool,
    /// How much has been sent in this turn.
    sent: usize,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.in_turns && self.sent >= TURN {
            self.sent = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.sent += frame.data_ref().map_or(0, Bytes::len);
        }
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

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;
    use crate::body::segments;

    /// How much of a body comes in each turn.
    async fn turns(in_turns: bool) -> Vec<usize> {
        let inner = segments((0..6).map(|_| Bytes::from(vec![b'x'; TURN / 2])));
        let mut body = Sending { inner, seat: None, watch: None, in_turns, sent: 0 };
        let mut turns = vec![0];
        std::future::poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(Some(frame)) => {
                let length = frame.expect("infallible").into_data().expect("data").len();
                *turns.last_mut().expect("a turn") += length;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(()),
            // It has asked to be polled again.
            Poll::Pending => {
                turns.push(0);
                Poll::Pending
            }
        })
        .await;
        turns
    }

    #[tokio::test]
    async fn large_bodies_of_limited_levels_let_others_have_their_turn() {
        assert_eq!(turns(true).await, [TURN, TURN, TURN, 0]);
        assert_eq!(turns(false).await, [3 * TURN]);
    }
}
