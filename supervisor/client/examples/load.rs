//! Asks for one address so many times a second, whether answers come or not, and prints the microseconds from when each
//! was due until it was answered: whoever waits for a slow answer before he asks again would not see the others wait.
//!
//! `load URL CA-FILE TOKEN-FILE RATE SECONDS`; a token file `-` is none.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Client};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Connections, and requests before it counts, so that they are there. Who is asked too much is waited for on them, and
/// not with ever new ones.
const WARM: u32 = 32;

async fn ask(
    client: Client,
    turns: Arc<Semaphore>,
    url: String,
    token: Option<String>,
    due: Instant,
) -> Result<u128, reqwest::Error> {
    let _turn = turns.acquire().await;
    let request = client.get(url);
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    request.send().await?.error_for_status()?.bytes().await?;
    Ok(due.elapsed().as_micros())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [url, authority, token, rate, seconds] = words.as_slice() else {
        return Err("usage: load URL CA-FILE TOKEN-FILE RATE SECONDS".into());
    };
    let token = match token.as_str() {
        "-" => None,
        file => Some(std::fs::read_to_string(file)?.trim().to_owned()),
    };
    // Fails if one is there already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let authority = Certificate::from_pem(&std::fs::read(authority)?)?;
    let client = Client::builder().tls_certs_only([authority]).http1_only().build()?;
    let (rate, seconds): (u32, u32) = (rate.parse()?, seconds.parse()?);
    let turns = Arc::new(Semaphore::new(WARM as usize));
    let mut asked = JoinSet::new();
    for _ in 0..WARM {
        asked.spawn(ask(client.clone(), Arc::clone(&turns), url.clone(), token.clone(), Instant::now()));
    }
    while let Some(answered) = asked.join_next().await {
        answered??;
    }
    let began = Instant::now();
    for number in 0..rate * seconds {
        let due = began + Duration::from_secs(1) * number / rate;
        sleep_until(due).await;
        asked.spawn(ask(client.clone(), Arc::clone(&turns), url.clone(), token.clone(), due));
    }
    while let Some(answered) = asked.join_next().await {
        println!("{}", answered??);
    }
    Ok(())
}
