//! Where a remote is, as people write it.

use std::path::PathBuf;

/// A remote's place.
///
/// Whether a state is written by one machine only is up to it: buckets need conditional writes (`If-None-Match`), which
/// not all servers have; SSH needs hard links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `s3://bucket/prefix`
    S3 {
        /// The bucket.
        bucket: String,
        /// What keys begin with; without slashes around, may be empty.
        prefix: String,
    },
    /// `sftp://[user@]host[:port]/path`
    Sftp(Host),
    /// `file:///path`
    Directory(PathBuf),
}

/// A directory on another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Who logs in there; without it as ssh is configured.
    pub user: Option<String>,
    /// The machine.
    pub host: String,
    /// Its port; without it as ssh is configured.
    pub port: Option<u16>,
    /// The directory there; absolute, or with `~/` relative to where one is after login.
    pub path: String,
}

impl Place {
    /// Whether a text is meant as a URL.
    pub fn is_url(text: &str) -> bool {
        text.contains("://")
    }

    /// Reads a URL. An error says what is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            format!(
                "'{url}' is no URL: write s3://BUCKET/PREFIX, sftp://USER@HOST/PATH or file:///PATH"
            )
        })?;
        if rest.chars().any(char::is_control) {
            return Err(format!("'{}' has control characters", url.escape_debug()));
        }
        match scheme {
            "s3" => Self::s3(url, rest),
            "sftp" | "ssh" => Self::sftp(url, rest),
            "file" => {
                let path = rest.trim_end_matches('/');
                if !path.starts_with('/') || has_dots(path) {
                    return Err(format!(
                        "'{url}' must be file:// and an absolute path without . and .."
                    ));
                }
                Ok(Self::Directory(path.into()))
            }
            _ => Err(format!(
                "'{scheme}' is not known: s3://, sftp:// and file:// are"
            )),
        }
    }

    fn s3(url: &str, rest: &str) -> Result<Self, String> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if bucket.is_empty() || bucket.starts_with(['-', '.']) || !bucket.chars().all(is_plain) {
            // A key that stands there by mistake is not repeated.
            let shown = bucket.rsplit('@').next().unwrap_or_default();
            return Err(format!("'{shown}' in an s3:// URL cannot be a bucket"));
        }
        let prefix = prefix.trim_matches('/');
        if has_dots(prefix) {
            return Err(format!("'{url}' has empty parts, . or .. in it"));
        }
        Ok(Self::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    fn sftp(url: &str, rest: &str) -> Result<Self, String> {
        // A password is not repeated.
        let url = &match url.split_once("://").zip(rest.rsplit_once('@')) {
            Some(((scheme, _), (_, place))) => format!("{scheme}://...@{place}"),
            None => url.to_owned(),
        };
        let (who, path) = rest
            .split_once('/')
            .ok_or_else(|| format!("'{url}' names no directory"))?;
        let (user, host) = match who.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, who),
        };
        let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            // An IPv6 address.
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => host
                .rsplit_once(':')
                .map_or((host, None), |(host, port)| (host, Some(port))),
        };
        // What ssh would take for an option, or hand to a shell (`ProxyCommand` with %h and %r).
        let is_name = |name: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
            !name.is_empty() && !name.starts_with('-') && name.chars().all(is_plain)
        };
        if !is_name(host) {
            return Err(format!("'{host}' in '{url}' cannot be a host"));
        }
        if user.is_some_and(|user| !is_name(user) || user.contains([':', '%'])) {
            return Err(format!(
                "what stands before @ in '{url}' cannot be a user; passwords are not understood, use a key"
            ));
        }
        let port = port.map(|port| {
            let known = port.parse().ok().filter(|port| *port != 0);
            known.ok_or_else(|| format!("'{port}' in '{url}' is no port"))
        });
        let path = path.trim_end_matches('/');
        let path = match path.strip_prefix("~/") {
            Some(below) => below.to_owned(),
            None if path == "~" => String::new(),
            None => format!("/{path}"),
        };
        if has_dots(path.trim_start_matches('/')) {
            return Err(format!("'{url}' has empty parts, . or .. in it"));
        }
        Ok(Self::Sftp(Host {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port: port.transpose()?,
            path,
        }))
    }

    /// The place of a directory in it.
    #[must_use]
    pub fn join(&self, below: &str) -> Self {
        let below = below.trim_matches('/');
        let mut place = self.clone();
        match &mut place {
            _ if below.is_empty() => {}
            Self::S3 { prefix, .. } if prefix.is_empty() => below.clone_into(prefix),
            Self::S3 { prefix: path, .. } | Self::Sftp(Host { path, .. }) => {
                *path = match path.trim_end_matches('/') {
                    "" if path.is_empty() => below.to_owned(),
                    path => format!("{path}/{below}"),
                };
            }
            Self::Directory(path) => path.push(below),
        }
        place
    }

    /// The path of `inner` below this place, if it lies in it.
    pub fn below(&self, inner: &Self) -> Option<String> {
        let under = |outer: &str, inner: &str| {
            let rest = inner.strip_prefix(outer.trim_end_matches('/'))?;
            let is_below = rest.is_empty() || rest.starts_with('/') || outer.is_empty();
            is_below.then(|| rest.trim_matches('/').to_owned())
        };
        match (self, inner) {
            (
                Self::S3 { bucket, prefix },
                Self::S3 {
                    bucket: other,
                    prefix: inner,
                },
            ) if bucket == other => under(prefix, inner),
            (Self::Sftp(outer), Self::Sftp(inner))
                if (&outer.user, &outer.host, outer.port)
                    == (&inner.user, &inner.host, inner.port) =>
            {
                under(&outer.path, &inner.path)
            }
            (Self::Directory(outer), Self::Directory(inner)) => {
                let rest = inner.strip_prefix(outer).ok()?;
                Some(rest.to_str()?.to_owned())
            }
            _ => None,
        }
    }
}

fn has_dots(path: &str) -> bool {
    let mut parts = path.trim_start_matches('/').split('/');
    !path.is_empty() && parts.any(|part| part.is_empty() || part == "." || part == "..")
}

#[cfg(test)]
mod tests {
    use super::{Host, Place};

    #[test]
    fn places_are_read_as_people_write_them() {
        let sftp = |user: Option<&str>, host: &str, port, path: &str| {
            Place::Sftp(Host {
                user: user.map(str::to_owned),
                host: host.to_owned(),
                port,
                path: path.to_owned(),
            })
        };
        let s3 = |bucket: &str, prefix: &str| Place::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        let cases = [
            ("s3://b", s3("b", "")),
            ("s3://my.bucket/", s3("my.bucket", "")),
            ("s3://b/a/c/", s3("b", "a/c")),
            (
                "sftp://ada@host/srv/b",
                sftp(Some("ada"), "host", None, "/srv/b"),
            ),
            ("sftp://host:2222/b", sftp(None, "host", Some(2222), "/b")),
            (
                "ssh://ada@[::1]:22/b",
                sftp(Some("ada"), "::1", Some(22), "/b"),
            ),
            ("sftp://host/~/b c", sftp(None, "host", None, "b c")),
            ("sftp://host/~/", sftp(None, "host", None, "")),
            ("file:///mnt/disk/", Place::Directory("/mnt/disk".into())),
        ];
        for (text, place) in cases {
            assert_eq!(Place::parse(text), Ok(place), "{text}");
        }
    }

    #[test]
    fn f6_what_could_become_an_option_or_a_command_is_refused() {
        let bad = [
            "sftp://-oProxyCommand=id/b",
            "sftp://-l@host/b",
            "sftp://a@-host/b",
            "sftp://$(id)@host/b",
            "sftp://host`id`/b",
            "sftp://a b@host/b",
            "sftp://a:secret@host/b",
            "sftp://host/b\n-x",
            "sftp://host",
            "sftp://host:0/b",
            "sftp://host:ssh/b",
            "sftp://@host/b",
            "sftp:///b",
            "sftp://host/a/../b",
            "s3://",
            "s3:///b",
            "s3://-b/x",
            "s3://b?x=1/c",
            "s3://b/a//c",
            "s3://b/../c",
            "file://relative",
            "file:///a/../b",
            "http://host/b",
            "nothing",
        ];
        for text in bad {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn passwords_are_not_repeated() {
        for text in [
            "sftp://ada:hunter2@host/x",
            "s3://AKID:hunter2@bucket/x",
            "sftp://a:hunter2@-h/x",
        ] {
            let error = Place::parse(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn places_lie_in_each_other() {
        let place = |text: &str| Place::parse(text).unwrap();
        for (outer, inner, below) in [
            ("s3://b", "s3://b/a/c", Some("a/c")),
            ("s3://b/a", "s3://b/a/c/d", Some("c/d")),
            ("s3://b/a", "s3://b/a", Some("")),
            ("s3://b/a", "s3://b/ac", None),
            ("s3://b/a", "s3://c/a/d", None),
            ("sftp://h/x", "sftp://h/x/y", Some("y")),
            ("sftp://h/x", "sftp://u@h/x/y", None),
            ("file:///m", "file:///m/home", Some("home")),
            ("file:///m", "s3://m/home", None),
        ] {
            let (outer, inner) = (place(outer), place(inner));
            assert_eq!(outer.below(&inner).as_deref(), below);
            if let Some(below) = below {
                assert_eq!(outer.join(below), inner);
            }
        }
    }
}
