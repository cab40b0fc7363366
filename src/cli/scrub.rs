//! What must not leave this machine in a message.

/// Names of variables whose values are secret, in part.
const SECRET: [&str; 5] = ["PASSWORD", "SECRET", "TOKEN", "PASSPHRASE", "CREDENTIAL"];
/// Their ends. `PWD` and `OLDPWD` are directories.
const ENDS: [&str; 3] = ["_PWD", "_PASS", "_KEY"];
/// Shorter values are no secrets, and may be parts of words.
const MIN_LEN: usize = 6;
const HIDDEN: &str = "***";

/// The text without secrets that are known: values of variables such as `PGPASSWORD`, passwords in URLs.
pub fn scrub(text: &str) -> String {
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str()?.to_uppercase();
        let is_named = SECRET.iter().any(|word| name.contains(word));
        let is_secret =
            (is_named || ENDS.iter().any(|end| name.ends_with(end))) && !name.ends_with("FILE");
        value
            .into_string()
            .ok()
            .filter(|value| is_secret && value.len() >= MIN_LEN)
    });
    let text = variables.fold(text.to_owned(), |text, value| text.replace(&value, HIDDEN));
    without_passwords(&text)
}

/// `scheme://user:password@host` without the password.
fn without_passwords(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + 3);
        out.push_str(before);
        let end = behind.find(|c: char| c == '/' || c.is_whitespace() || c == '"');
        let authority = &behind[..end.unwrap_or(behind.len())];
        rest = &behind[authority.len()..];
        match authority.rsplit_once('@') {
            Some((login, host)) if login.contains(':') => {
                let user = login.split(':').next().unwrap_or_default();
                out.push_str(&format!("{user}:{HIDDEN}@{host}"));
            }
            _ => out.push_str(authority),
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::without_passwords;

    #[test]
    fn g8_passwords_in_urls_are_hidden() {
        for (text, expected) in [
            (
                "a postgresql://ada:s3cr3t@db/shop b",
                "a postgresql://ada:***@db/shop b",
            ),
            ("https://u:p@x:q@host", "https://u:***@host"),
            (
                "s3://bucket/a@b https://host/x:y@z",
                "s3://bucket/a@b https://host/x:y@z",
            ),
            ("sftp://ada@host:22/x", "sftp://ada@host:22/x"),
            ("://", "://"),
        ] {
            assert_eq!(without_passwords(text), expected);
        }
    }
}
