//! A real S3 server (s3s-fs) on loopback, and in front of it whatever can go wrong on the way.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::runtime::Runtime;

pub const KEY: &str = "AKIDTEST";
pub const SECRET: &str = "a-secret-of-the-tests";
pub const BUCKET: &str = "backups";

/// A request as the server saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    /// Without the bucket.
    pub path: String,
    pub query: String,
    pub range: String,
    pub body_bytes: usize,
    pub status: u16,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends after so many bytes of its body; what is left does not come.
    CutAfter(usize),
    /// It is done, and the connection ends before the answer.
    CutAnswer,
    /// This status instead of doing it.
    Status(u16),
    /// Done only with the first so many bytes, and answered as if all were well.
    Truncate(usize),
    /// Done with other bytes of the same length, and answered as if all were well.
    Other,
    /// "Done", and nothing was.
    Lie,
    /// An answer that never ends.
    Endless,
    /// To another place.
    Redirect(String),
}

type Rule = Box<dyn FnMut(usize, &Seen) -> Option<Fault> + Send>;

#[derive(Default)]
struct Shared {
    root: PathBuf,
    seen: Vec<Seen>,
    rule: Option<Rule>,
}

/// A running server. It ends with this.
pub struct Server {
    pub endpoint: String,
    pub dir: tempfile::TempDir,
    shared: Arc<Mutex<Shared>>,
    _runtime: Runtime,
}

impl Server {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let shared: Arc<Mutex<Shared>> = Arc::default();
        shared.lock().unwrap().root = dir.path().to_path_buf();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let of_server = Arc::clone(&shared);
        runtime.spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                let (service, shared) = (service.clone(), Arc::clone(&of_server));
                let handler = service_fn(move |request| {
                    let (service, shared) = (service.clone(), Arc::clone(&shared));
                    async move { handle(&service, &shared, request).await }
                });
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), handler)
                        .await;
                });
            }
        });
        Self {
            endpoint,
            dir,
            shared,
            _runtime: runtime,
        }
    }

    /// The requests so far; they are forgotten.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.lock().unwrap().seen)
    }

    /// How many requests came since.
    pub fn seen_count(&self) -> usize {
        self.shared.lock().unwrap().seen.len()
    }

    /// What happens to requests from now on, numbered from 0.
    pub fn rule(&self, rule: impl FnMut(usize, &Seen) -> Option<Fault> + Send + 'static) {
        let mut shared = self.shared.lock().unwrap();
        shared.seen.clear();
        shared.rule = Some(Box::new(rule));
    }

    pub fn no_rule(&self) {
        self.shared.lock().unwrap().rule = None;
    }

    /// Where the bucket's files are on the disk.
    pub fn bucket(&self) -> PathBuf {
        self.dir.path().join(BUCKET)
    }

    /// The configuration of a remote in it.
    pub fn config(&self, name: &str, prefix: &str) -> String {
        format!(
            "[remote.{name}]\nurl = \"s3://{BUCKET}/{prefix}\"\nendpoint = \"{}\"\nattempts = 3\n",
            self.endpoint
        )
    }

    /// The environment in which it is reached.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
        ]
    }
}

/// The connection is ended by an error.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cut {}

type Body =
    http_body_util::combinators::UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into())
        .map_err(|error: Infallible| match error {})
        .boxed_unsync()
}

async fn handle(
    service: &S3Service,
    shared: &Mutex<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let (parts, mut body) = request.into_parts();
    let path = parts.uri.path().trim_start_matches('/');
    let declared = parts.headers.get("content-length");
    let declared = declared.and_then(|len| len.to_str().ok()?.parse().ok());
    let mut seen = Seen {
        method: parts.method.to_string(),
        path: path
            .strip_prefix(BUCKET)
            .unwrap_or(path)
            .trim_start_matches('/')
            .to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        range: parts
            .headers
            .get("range")
            .map(|range| range.to_str().unwrap().to_owned())
            .unwrap_or_default(),
        body_bytes: declared.unwrap_or(0),
        status: 0,
    };
    let (number, fault) = {
        let mut shared = shared.lock().unwrap();
        let number = shared.seen.len();
        shared.seen.push(seen.clone());
        let fault = shared.rule.as_mut().and_then(|rule| rule(number, &seen));
        (number, fault)
    };
    let mut content = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Cut) };
        content.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if let Some(Fault::CutAfter(bytes)) = fault
            && content.len() >= bytes
        {
            return Err(Cut);
        }
    }
    let answer = match &fault {
        Some(Fault::CutAfter(_)) => return Err(Cut),
        Some(Fault::Status(status)) => error(*status),
        Some(Fault::Lie) => Response::new(full("")),
        Some(Fault::Endless) => endless(),
        Some(Fault::Redirect(to)) => {
            let answer = Response::builder().status(StatusCode::TEMPORARY_REDIRECT);
            answer.header("location", to).body(full("")).unwrap()
        }
        Some(Fault::Truncate(_) | Fault::Other) if parts.method == Method::PUT => {
            // As a disk does it that loses bytes behind the server's back.
            seen.status = 200;
            let answer = forward(service, parts, content.clone()).await?;
            let path = shared.lock().unwrap().root.join(BUCKET).join(&seen.path);
            match fault {
                Some(Fault::Truncate(bytes)) => content.truncate(bytes),
                _ => content.iter_mut().for_each(|byte| *byte ^= 0x55),
            }
            std::fs::write(path, content).unwrap();
            answer
        }
        _ => forward(service, parts, content).await?,
    };
    if let Some(seen) = shared.lock().unwrap().seen.get_mut(number) {
        seen.status = answer.status().as_u16();
    }
    if fault == Some(Fault::CutAnswer) {
        return Err(Cut);
    }
    Ok(answer)
}

async fn forward(
    service: &S3Service,
    parts: hyper::http::request::Parts,
    content: Vec<u8>,
) -> Result<Response<Body>, Cut> {
    // s3s-fs looks whether there is one, then writes: another request must not come between.
    static CONDITIONAL: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _one = if parts.headers.contains_key("if-none-match") {
        Some(CONDITIONAL.lock().await)
    } else {
        None
    };
    let request = Request::from_parts(parts, s3s::Body::from(content));
    let answer = service.call(request).await.map_err(|_| Cut)?;
    let (parts, body) = answer.into_parts();
    let body = body
        .map_err(|error| error.to_string().into())
        .boxed_unsync();
    Ok(Response::from_parts(parts, body))
}

fn error(status: u16) -> Response<Body> {
    let code = match status {
        403 => "AccessDenied",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "SlowDown",
        _ => "Unexpected",
    };
    let text = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as the test wants it</Message><RequestId>1</RequestId><Resource>/</Resource></Error>"
    );
    Response::builder().status(status).body(full(text)).unwrap()
}

/// Names without end.
fn endless() -> Response<Body> {
    let piece = Bytes::from(vec![b' '; 1 << 20]);
    let stream = futures::stream::repeat_with(move || {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(hyper::body::Frame::data(piece.clone()))
    });
    Response::new(http_body_util::StreamBody::new(stream).boxed_unsync())
}
