//! Documents that say what is served here. They change with the program alone: each is made once, when somebody first
//! asks, and carries the hash of its bytes, by which a client that has it already need not fetch it again.

use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::reply;

/// To be asked for again each time, with the hash of what is there.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache, private");
/// Never to be asked for again: the address names the content. A year is the longest that caches heed (RFC 9111).
const FOREVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// A document, ready to be sent.
pub(super) struct Document {
    media_type: &'static str,
    bytes: Bytes,
    /// Of its bytes: 32 hexadecimal digits.
    pub(super) hash: String,
}

impl Document {
    pub(super) fn new(media_type: &'static str, content: &Value) -> Self {
        let bytes = Bytes::from(content.to_string());
        let hash = digest(&SHA256, &bytes).as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self { media_type, bytes, hash }
    }

    /// The document, or that the client has it already; to be asked for again.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        self.tagged(headers, ASK_AGAIN)
    }

    /// The same at an address that has the hash in it.
    pub(super) fn answer_for_good(&self, headers: &HeaderMap) -> Response {
        self.tagged(headers, FOREVER)
    }

    fn tagged(&self, headers: &HeaderMap, keep: HeaderValue) -> Response {
        let tag = format!("\"{}\"", self.hash);
        let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or("");
        let known = known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag);
        let mut response = match known {
            true => reply::with_code(StatusCode::NOT_MODIFIED, Response::default()),
            false => reply::text(self.media_type, self.bytes.clone()),
        };
        let headers = response.headers_mut();
        headers.extend([(CACHE_CONTROL, keep), (VARY, HeaderValue::from_static("Accept"))]);
        headers.extend(HeaderValue::from_str(&tag).ok().map(|tag| (ETAG, tag)));
        if known {
            headers.remove(CONTENT_TYPE);
        }
        response
    }
}
