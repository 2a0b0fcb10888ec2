//! What goes over the network: a configuration that is fetched, a report that is sent.

use std::time::Duration;

use reqwest::Client;
use ring::digest::{SHA256, digest};
use ring::hmac;

use crate::config::Notify;

/// A configuration is text that people write.
const LONGEST: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);
/// A machine that has just started may not have an address yet.
const TRIES: u32 = 8;
/// Carries the HMAC of the body.
const SIGNATURE: &str = "X-Berth-Signature";

/// What does not work out.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody answered, or not as hoped for.
    #[error("asking {url}")]
    Ask {
        /// Who was asked.
        url: String,
        /// What happened at the last try.
        #[source]
        source: reqwest::Error,
    },
    /// What came is something else than was meant.
    #[error("what {url} sends has the SHA-256 {found}, and {wanted} was asked for")]
    Sum {
        /// Who was asked.
        url: String,
        /// As the kernel's command line has it.
        wanted: String,
        /// Of what came.
        found: String,
    },
    /// It is no text that could be a configuration.
    #[error("what {url} sends is no text of at most {LONGEST} bytes")]
    Text {
        /// Who was asked.
        url: String,
    },
}

fn client() -> Result<Client, reqwest::Error> {
    // Whoever was first is good enough; there is one provider.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder().timeout(PATIENCE).user_agent("berth-installer").build()
}

/// The text behind a URL, if it is the one that was meant.
///
/// # Errors
/// [`HttpError`]
pub async fn fetch(url: &str, sum: &str) -> Result<String, HttpError> {
    let asked = |source| HttpError::Ask { url: url.to_owned(), source };
    let client = client().map_err(asked)?;
    let bytes =
        again(|| async { client.get(url).send().await?.error_for_status()?.bytes().await }).await.map_err(asked)?;
    let found: String = digest(&SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if !found.eq_ignore_ascii_case(sum) {
        return Err(HttpError::Sum { url: url.to_owned(), wanted: sum.to_owned(), found });
    }
    let text = String::from_utf8(bytes.to_vec()).ok().filter(|text| text.len() <= LONGEST);
    text.ok_or_else(|| HttpError::Text { url: url.to_owned() })
}

/// Sends a report to whoever wants it, with an HMAC-SHA256 of the body.
///
/// # Errors
/// [`HttpError::Ask`]
pub async fn report(to: &Notify, body: &str) -> Result<(), HttpError> {
    let asked = |source| HttpError::Ask { url: to.url.to_string(), source };
    let client = client().map_err(asked)?;
    let signature = signature(to.secret.reveal(), body);
    let send = || async {
        let request = client.post(to.url.as_str()).header("Content-Type", "application/json");
        request.header(SIGNATURE, &signature).body(body.to_owned()).send().await?.error_for_status().map(drop)
    };
    again(send).await.map_err(asked)
}

/// `sha256=` and the HMAC in hexadecimal digits.
fn signature(secret: &str, body: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body.as_bytes());
    tag.as_ref().iter().fold("sha256=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Tries some times, with longer and longer pauses: 1 s, 2 s, up to about two minutes in all.
async fn again<T, F: Future<Output = Result<T, reqwest::Error>>>(
    mut work: impl FnMut() -> F,
) -> Result<T, reqwest::Error> {
    let mut tries = 0;
    loop {
        match work().await {
            Err(error) if tries < TRIES && !error.is_status() => {
                tokio::time::sleep(Duration::from_secs(1 << tries.min(4))).await;
                tries += 1;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_signed_as_others_can_check_it() {
        // RFC 4231, test case 2.
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature("Jefe", "what do ya want for nothing?"), expected);
    }
}
