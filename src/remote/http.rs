//! HTTP for buckets: no redirects, bounded answers, no waiting for ever.
//!
//! A redirect is never followed: it could send what is signed for one host to another, or to one without TLS.

use std::net::IpAddr;
use std::time::Duration;

use ::http::{Request, Response};
use futures::StreamExt;
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, Result};
use opendal_http_transport_reqwest::ReqwestTransport;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// More than any file and any page of a listing.
const ANSWER_MAX_BYTES: u64 = 80 << 20;

/// The way requests take.
pub(super) struct Transport {
    inner: ReqwestTransport,
    client: reqwest::Client,
    /// The host that may be asked without TLS.
    plain_host: Option<String>,
}

impl Transport {
    /// A client that needs TLS, unless it asks this host, or this machine and its own network for keys.
    pub fn new(plain_host: Option<&str>) -> std::result::Result<Self, String> {
        // The first call of the process counts.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("btw-backup/", env!("CARGO_PKG_VERSION")))
            .build();
        let client = client.map_err(|error| error.to_string())?;
        Ok(Self {
            inner: ReqwestTransport::new(client.clone()),
            client,
            plain_host: plain_host.map(str::to_owned),
        })
    }

    /// The region that a server says a bucket is in.
    pub async fn region(&self, url: &str) -> Option<String> {
        let answer = self.client.head(url).send().await.ok()?;
        let region = answer.headers().get("x-amz-bucket-region")?;
        region.to_str().ok().map(str::to_owned)
    }

    /// Amazon's machines get the keys of their roles by plain HTTP, from addresses that no other machine can have.
    fn may_ask(&self, uri: &::http::Uri) -> bool {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_near = host.parse().is_ok_and(|address| match address {
            IpAddr::V4(address) => address.is_link_local() || address.is_loopback(),
            IpAddr::V6(address) => address.is_loopback() || host == "fd00:ec2::254",
        });
        uri.scheme_str() == Some("https") || is_near || self.plain_host.as_deref() == Some(host)
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        if !self.may_ask(request.uri()) {
            let host = request.uri().host().unwrap_or_default();
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                format!("{host} would be asked without TLS"),
            ));
        }
        let (mut parts, body) = self.inner.fetch(request).await?.into_parts();
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

#[cfg(test)]
mod tests {
    use super::Transport;

    #[test]
    fn f7_who_may_be_asked_without_tls() {
        let strict = Transport::new(None).unwrap();
        let plain = Transport::new(Some("minio.lan")).unwrap();
        for (url, is_strict, is_plain) in [
            ("https://s3.example.org/b", true, true),
            ("http://s3.example.org/b", false, false),
            ("http://minio.lan:9000/b", false, true),
            ("http://minio.lan.evil.example/b", false, false),
            // Where the keys of a machine's or a container's role are.
            ("http://169.254.169.254/latest", true, true),
            ("http://169.254.170.2/v2", true, true),
            ("http://[fd00:ec2::254]/latest", true, true),
            ("http://127.0.0.1:51678/x", true, true),
            ("http://10.0.0.1/x", false, false),
            ("http://169.254.169.254.evil.example/x", false, false),
        ] {
            let uri = url.parse().unwrap();
            assert_eq!(
                (strict.may_ask(&uri), plain.may_ask(&uri)),
                (is_strict, is_plain),
                "{url}"
            );
        }
    }
}
