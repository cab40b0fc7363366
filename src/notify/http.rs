//! Requests that tell somebody something. What is answered is not read.

use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Networks come and go.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];

/// The host of a URL: all of it that is not secret.
pub(super) fn host(url: &str) -> String {
    let parsed: Option<::http::Uri> = url.parse().ok();
    let host = parsed.and_then(|uri| uri.host().map(str::to_owned));
    host.unwrap_or_else(|| "?".to_owned())
}

pub(super) fn get(url: &str) -> Result<(), String> {
    ask(url, &|client| client.get(url))
}

pub(super) fn post(url: &str, document: &str) -> Result<(), String> {
    ask(url, &|client| {
        client
            .post(url)
            .header("content-type", "application/json")
            .body(document.to_owned())
    })
}

fn ask(
    url: &str,
    request: &dyn Fn(&reqwest::Client) -> reqwest::RequestBuilder,
) -> Result<(), String> {
    // The first call of the process counts.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .user_agent(concat!("btw-backup/", env!("CARGO_PKG_VERSION")))
        .build();
    let client = client.map_err(|error| error.without_url().to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut pauses = PAUSES.into_iter();
        loop {
            let why = match request(&client).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) if !answer.status().is_server_error() => {
                    return Err(format!("{} answers {}", host(url), answer.status()));
                }
                Ok(answer) => format!("{} answers {}", host(url), answer.status()),
                Err(error) => {
                    let error = error.without_url();
                    format!("{}: {}", host(url), crate::error::with_causes(&error))
                }
            };
            match pauses.next() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(why),
            }
        }
    })
}
