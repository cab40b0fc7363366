//! Buckets of Amazon S3 and of servers that speak its protocol, by `opendal`.
//!
//! Every file is one PUT with its CRC-32C, so nothing is ever half there.

use std::ops::Range;
use std::time::Duration;

use futures::TryStreamExt;
use opendal::options::{ListOptions, ReadOptions, WriteOptions};
use opendal::services::S3 as Service;
use opendal::{ErrorKind, HttpTransporter, OperationContext, Operator};
use tokio::runtime::Runtime;

use super::http::Transport;
use super::{Entry, FILE_MAX_BYTES, FarDigests, Put, Remote, fault};
use crate::error::{RemoteError, RemoteFault};

const AMAZON: &str = "https://s3.amazonaws.com";
/// A request may take so long, and in addition what its bytes need at [`SLOWEST`].
const PATIENCE: Duration = Duration::from_mins(2);
/// Bytes a second. A server that is slower, for ever, would hold up everything.
const SLOWEST: u64 = 16 << 10;
/// More names in a remote than any store has: an endless listing ends.
const ENTRIES_MAX: usize = 5_000_000;

/// How a bucket is reached. What is not set comes from the environment and the AWS configuration.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The server's URL; without it `AWS_ENDPOINT_URL`, else Amazon.
    pub endpoint: Option<String>,
    /// The region; without it asked of the server or, for other servers than Amazon's, `us-east-1`.
    pub region: Option<String>,
    /// Bucket names in the path (`true`) or the host name; without it as the server's kind does it.
    pub path_style: Option<bool>,
    /// Whether the server may be asked without TLS though it is another machine.
    pub allow_http: bool,
    /// The class of storage that files are written to.
    pub storage_class: Option<String>,
    /// Encryption by the server.
    pub encryption: Option<Encryption>,
    /// Key, secret, and session token.
    pub key: Option<(String, String, Option<String>)>,
    /// The profile of the AWS configuration.
    pub profile: Option<String>,
}

/// Encryption by the server, with keys that it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// As the server does it by itself.
    Default,
    /// By keys that the server has for the bucket.
    Aes256,
    /// By its key management, with the key of this name if there is one.
    Kms(Option<String>),
}

/// A bucket, or what begins with a prefix in it.
pub(super) struct S3 {
    name: String,
    /// Server and bucket, for messages.
    place: String,
    operator: Operator,
    runtime: Runtime,
}

impl S3 {
    pub fn open(
        name: String,
        bucket: &str,
        prefix: &str,
        access: &Access,
    ) -> Result<Self, RemoteError> {
        let bad = |detail: String| fault(&name, "use", "the bucket", RemoteFault::Other, detail);
        let endpoint = access.endpoint.as_deref();
        let endpoint = endpoint.map_or(AMAZON, |url| url.trim_end_matches('/'));
        let is_amazon = is_amazon(endpoint);
        if endpoint.starts_with("http://") && !access.allow_http && !is_loopback(endpoint) {
            return Err(bad(format!(
                "{endpoint} has no TLS: use https, or set allow_http = true for this remote"
            )));
        }
        let service = service(bucket, prefix, endpoint, access);
        let runtime = runtime().map_err(|error| bad(error.to_string()))?;
        let plain_host = endpoint.starts_with("http://").then(|| host(endpoint));
        let transport = Transport::new(plain_host).map_err(bad)?;
        // For temporary keys; the first call of the process counts.
        HttpTransporter::install_default(Transport::new(plain_host).map_err(bad)?);
        let region = match &access.region {
            Some(region) => region.clone(),
            None if is_amazon => runtime
                .block_on(transport.region(&format!("{endpoint}/{bucket}")))
                .ok_or_else(|| bad("its region cannot be found out: set region".into()))?,
            None => "us-east-1".to_owned(),
        };
        let context = OperationContext::new().with_http_transport(HttpTransporter::new(transport));
        // Some parts start tasks when they are made.
        let guard = runtime.enter();
        let operator =
            Operator::new(service.region(&region)).map_err(|error| bad(error.to_string()))?;
        drop(guard);
        Ok(Self {
            place: format!("{endpoint}, bucket {bucket}"),
            name,
            operator: operator.with_context(context),
            runtime,
        })
    }

    /// Waits for an answer, not for ever.
    fn wait<T>(
        &self,
        (op, path, bytes): (&'static str, &str, u64),
        work: impl Future<Output = opendal::Result<T>>,
    ) -> Result<T, RemoteError> {
        let patience = PATIENCE + Duration::from_secs(bytes / SLOWEST);
        let result = self
            .runtime
            .block_on(async { tokio::time::timeout(patience, work).await });
        let late = |_| {
            let detail = format!("no complete answer within {} s", patience.as_secs());
            fault(&self.name, op, path, RemoteFault::Temporary, detail)
        };
        result
            .map_err(late)?
            .map_err(|error| self.error(op, path, &error))
    }

    fn error(&self, op: &'static str, path: &str, error: &opendal::Error) -> RemoteError {
        let class = match error.kind() {
            ErrorKind::NotFound => RemoteFault::Missing,
            ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists => RemoteFault::Exists,
            ErrorKind::PermissionDenied => RemoteFault::Denied,
            _ if error.is_temporary() => RemoteFault::Temporary,
            ErrorKind::RateLimited => RemoteFault::Temporary,
            _ => RemoteFault::Other,
        };
        let mut detail = plain(error.message());
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            detail = format!("{detail}: {inner}");
            cause = inner.source();
        }
        if detail.contains("failed to load signing credential") {
            detail = String::from(
                "there are no keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials",
            );
        }
        fault(
            &self.name,
            op,
            path,
            class,
            format!("{detail} ({})", self.place),
        )
    }
}

/// What opendal is told of a bucket; the region is still missing.
fn service(bucket: &str, prefix: &str, endpoint: &str, access: &Access) -> Service {
    let is_amazon = is_amazon(endpoint);
    let mut service = Service::default()
        .bucket(bucket)
        .root(&format!("/{prefix}"))
        .endpoint(endpoint)
        .checksum_algorithm("crc32c");
    if !access.path_style.unwrap_or(!is_amazon) {
        service = service.enable_virtual_host_style();
    }
    if !is_amazon {
        // Nobody answers there, after a long time.
        service = service.disable_ec2_metadata();
    }
    if let Some(class) = &access.storage_class {
        service = service.default_storage_class(class);
    }
    service = match access.encryption.as_ref() {
        Some(Encryption::Aes256) => service.server_side_encryption_with_s3_key(),
        None if is_amazon => service.server_side_encryption_with_s3_key(),
        None | Some(Encryption::Default) => service,
        Some(Encryption::Kms(None)) => service.server_side_encryption_with_aws_managed_kms_key(),
        Some(Encryption::Kms(Some(key))) => {
            service.server_side_encryption_with_customer_managed_kms_key(key)
        }
    };
    if let Some((key, secret, token)) = &access.key {
        service = service.access_key_id(key).secret_access_key(secret);
        if let Some(token) = token {
            service = service.session_token(token);
        }
    }
    if let Some(profile) = &access.profile {
        service = service.profile(profile);
    }
    service
}

/// What a server says is handed on as a dump of the answer: its code and its words are enough.
fn plain(message: &str) -> String {
    let field = |name: &str| {
        let rest = message.split_once(&format!("{name}: \""))?.1;
        Some(rest.split_once("\", ").map_or(rest, |(value, _)| value))
    };
    match (
        message.starts_with("S3Error"),
        field("code"),
        field("message"),
    ) {
        (true, Some(code), Some("")) => code.to_owned(),
        (true, Some(code), Some(words)) => format!("{code}: {words}"),
        _ => message.to_owned(),
    }
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

fn host(endpoint: &str) -> &str {
    let rest = endpoint
        .split_once("://")
        .map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    match authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn is_amazon(endpoint: &str) -> bool {
    let host = host(endpoint);
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

fn is_loopback(endpoint: &str) -> bool {
    let host = host(endpoint);
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl Remote for S3 {
    fn name(&self) -> &str {
        &self.name
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, RemoteError> {
        let all = async {
            let options = ListOptions {
                recursive: true,
                ..ListOptions::default()
            };
            let mut lister = self.operator.lister_options(prefix, options).await?;
            let mut entries = Vec::new();
            while let Some(entry) = lister.try_next().await? {
                if entry.metadata().is_file() {
                    entries.push(Entry {
                        path: entry.path().to_owned(),
                        len: entry.metadata().content_length(),
                    });
                }
                if entries.len() > ENTRIES_MAX {
                    let endless = "the listing does not end";
                    return Err(opendal::Error::new(ErrorKind::Unexpected, endless));
                }
            }
            Ok(entries)
        };
        // 1000 names a request; no single one is waited for longer than its parts' own time limits.
        self.wait(("list", prefix, 1 << 26), all)
    }

    fn read(&self, path: &str, range: Option<Range<u64>>) -> Result<Vec<u8>, RemoteError> {
        let bytes = range
            .as_ref()
            .map_or(FILE_MAX_BYTES as u64, |range| range.end - range.start);
        let options = ReadOptions {
            range: range.map_or_else(|| (..).into(), Into::into),
            ..ReadOptions::default()
        };
        let expected = options.range.size();
        let read = self.operator.read_options(path, options);
        let content = self.wait(("read", path, bytes), read)?.to_vec();
        if expected.is_some_and(|expected| expected != content.len() as u64) {
            let detail = "the answer has another length than what was asked for";
            return Err(fault(&self.name, "read", path, RemoteFault::Other, detail));
        }
        Ok(content)
    }

    fn write(&self, path: &str, content: &[u8], put: Put) -> Result<(), RemoteError> {
        let options = WriteOptions {
            if_not_exists: put == Put::New,
            ..WriteOptions::default()
        };
        let body = bytes::Bytes::copy_from_slice(content);
        let write = self.operator.write_options(path, body, options);
        self.wait(("write", path, content.len() as u64), write)
            .map(drop)
    }

    fn remove(&self, path: &str) -> Result<(), RemoteError> {
        self.wait(("remove", path, 0), self.operator.delete(path))
    }

    fn digests(&self, _: &[String]) -> Result<Option<FarDigests>, RemoteError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::{is_amazon, is_loopback, plain};

    #[test]
    fn answers_are_said_in_short() {
        let long = "S3Error { code: \"NoSuchBucket\", message: \"It is \\\"gone\\\"\", resource: \"/x\", request_id: \"\" }";
        assert_eq!(plain(long), "NoSuchBucket: It is \\\"gone\\\"");
        assert_eq!(plain("anything"), "anything");
    }

    #[test]
    fn f7_which_servers_are_this_machine_or_amazons() {
        for (endpoint, amazon, loopback) in [
            ("https://s3.eu-west-1.amazonaws.com", true, false),
            ("https://amazonaws.com.evil.example", false, false),
            ("http://127.0.0.1:9000", false, true),
            ("http://[::1]:9000/", false, true),
            ("http://localhost", false, true),
            ("http://localhost.evil.example", false, false),
            ("http://127.0.0.1.evil.example", false, false),
        ] {
            assert_eq!(is_amazon(endpoint), amazon, "{endpoint}");
            assert_eq!(is_loopback(endpoint), loopback, "{endpoint}");
        }
    }
}
