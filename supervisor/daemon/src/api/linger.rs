//! A request that is answered before its body was read, such as one that is refused: what is still on its way of the body
//! is taken in first. A connection that is closed with something unread is reset, and a reset may reach the client in
//! the middle of what it sends, or overtake the answer (RFC 9112, 9.6).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::request::BODY_LIMIT;

/// For how long a body is waited for that nobody wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body, lent to whoever answers.
pub(super) struct Lent<B> {
    body: Option<B>,
    back: Option<oneshot::Sender<B>>,
}

/// What comes back of it.
pub(super) struct Left<B>(Option<oneshot::Receiver<B>>);

/// Lends a request's body. HTTP/2 needs none of this, and who waits to be told to go on has not begun to send.
pub(super) fn lend<B: Body>(request: Request<B>) -> (Request<Lent<B>>, Left<B>) {
    let matters = request.version() < Version::HTTP_2 && !request.headers().contains_key(header::EXPECT);
    let (back, left) = oneshot::channel();
    let lent = request.map(|body| Lent { body: Some(body), back: matters.then_some(back) });
    (lent, Left(matters.then_some(left)))
}

impl<B: Body<Data = Bytes> + Unpin> Left<B> {
    /// Takes in what was left unread, within reason. Nothing is left while the body is still in use.
    pub(super) async fn take_in(self) {
        let Some(body) = self.0.and_then(|mut left| left.try_recv().ok()) else { return };
        let mut bytes = 0;
        let rest = body.into_data_stream().take_while(|read| {
            bytes += read.as_ref().map_or(0, Bytes::len);
            std::future::ready(read.is_ok() && bytes <= BODY_LIMIT)
        });
        // Whoever sends too much or too slowly is answered all the same.
        let _: Result<(), _> = tokio::time::timeout(PATIENCE, rest.for_each(|_| std::future::ready(()))).await;
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Lent<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Nobody is there any more whom it matters to if it cannot be given back.
            drop(back.send(body));
        }
    }
}
