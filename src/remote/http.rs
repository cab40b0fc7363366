//! HTTP for buckets: no redirects, bounded answers, no waiting for ever.
//!
//! A redirect is never followed: it could send what is signed for one host to another, or to one without TLS.

use std::time::Duration;

use ::http::{Request, Response};
use futures::StreamExt;
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, Result};
use opendal_http_transport_reqwest::ReqwestTransport;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// More than any file and any page of a listing.
const ANSWER_MAX_BYTES: u64 = 80 << 20;

/// The way requests take.
pub(super) struct Transport(ReqwestTransport);

impl Transport {
    /// A client that needs TLS, unless plain HTTP is allowed.
    pub fn new(allow_http: bool) -> std::result::Result<Self, String> {
        // The first call of the process counts.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .https_only(!allow_http)
            .user_agent(concat!("btw-backup/", env!("CARGO_PKG_VERSION")))
            .build();
        client
            .map(|client| Self(ReqwestTransport::new(client)))
            .map_err(|error| error.to_string())
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        let (mut parts, body) = self.0.fetch(request).await?.into_parts();
        if parts.status.is_redirection() && parts.status != ::http::StatusCode::NOT_MODIFIED {
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                format!(
                    "the server answers {} and redirects; redirects are not followed: set the region and the endpoint of this bucket",
                    parts.status
                ),
            ));
        }
        let declared = parts.headers.get(::http::header::CONTENT_LENGTH);
        let declared: Option<u64> = declared.and_then(|len| len.to_str().ok()?.parse().ok());
        if declared.is_some_and(|len| len > ANSWER_MAX_BYTES) {
            return Err(too_long());
        }
        parts.extensions.clear();
        let mut seen = 0;
        let bounded = body.map_inner(|stream| {
            Box::new(stream.map(move |piece| {
                let piece = piece?;
                seen += piece.len() as u64;
                if seen > ANSWER_MAX_BYTES {
                    return Err(too_long());
                }
                Ok(piece)
            }))
        });
        Ok(Response::from_parts(parts, bounded))
    }
}

fn too_long() -> Error {
    Error::new(
        ErrorKind::Unexpected,
        "the answer is longer than any that is expected",
    )
}
