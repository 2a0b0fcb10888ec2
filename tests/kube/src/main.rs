//! What a program does that was written with kube-rs, in a namespace of its own: `berth-kube <kubeconfig> <image>`.
//!
//! It says what is not as it should be, and ends with 1.

mod changes;
mod service;

use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

/// The namespace.
pub const PLACE: &str = "kube-rs";

/// Longer than anything takes in an emulated machine.
pub const PATIENCE: Duration = Duration::from_secs(900);

/// Anything that goes wrong.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let said = tokio::time::timeout(PATIENCE, all()).await;
    match said.unwrap_or_else(|_| Err("what was waited for did not come".into())) {
        Ok(()) => {
            println!("all is as it should be");
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("{wrong}");
            ExitCode::FAILURE
        }
    }
}

async fn all() -> Outcome {
    let mut words = std::env::args().skip(1);
    let (Some(config), Some(image)) = (words.next(), words.next()) else {
        return Err("say `berth-kube <kubeconfig> <image>`".into());
    };
    let client = client(&config).await?;
    let namespace: Namespace = serde_json::from_value(serde_json::json!({ "metadata": { "name": PLACE } }))?;
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    changes::written(&client).await?;
    changes::applied(&client).await?;
    changes::watched(&client).await?;
    changes::reflected(&client).await?;
    service::whole(&client, &image).await
}

async fn client(config: &str) -> Outcome<Client> {
    let config = Kubeconfig::read_from(config)?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Says what is wrong, unless it is as it should be.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Outcome {
    if found == wanted { Ok(()) } else { Err(format!("{what} is {found:?} and should be {wanted:?}").into()) }
}

/// The code with which something is refused.
pub fn code<T: std::fmt::Debug>(answer: kube::Result<T>) -> Outcome<u16> {
    match answer {
        Err(kube::Error::Api(status)) => Ok(status.code),
        other => Err(format!("it should have been refused, and was not: {other:?}").into()),
    }
}
