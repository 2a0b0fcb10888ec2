//! `berth-dns`: names for bundles, in a process of its own.
//!
//! ```text
//!  berthd --zone file, replaced atomically--> watch.rs --> listen.rs   one server per address of a bridge
//!                                                 '------> answer.rs   what the zone says of the asker's question
//!  resolv.conf of the machine ----------------------------> upstream.rs  everything else
//!  host name ---------------------------------------------> local.rs     <hostname>.local, for the LAN, if the zone says so
//! ```
//!
//! It needs nobody while it runs: with the daemon dead it goes on with the zone it has. It holds no
//! state, and the right to listen on low ports is the only one it has.

mod answer;
mod listen;
mod local;
mod upstream;
mod watch;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use answer::Names;
use listen::Listeners;
use local::{LocalName, OnRequest};
use upstream::Upstream;
use watch::ZoneFile;

/// Answers bundles that ask for names.
#[derive(Debug, Parser)]
#[command(name = "berth-dns", version)]
struct Arguments {
    /// What the supervisor has written of names and askers.
    #[arg(long, value_name = "FILE", default_value = "/run/berth/dns/zone.json")]
    zone: PathBuf,
    /// The machine's own resolvers.
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    resolvers: PathBuf,
    /// The port to listen on.
    #[arg(long, default_value_t = berth_model::network::DNS_PORT)]
    port: u16,
    /// Where the machine's neighbours are told that its API is.
    #[arg(long, default_value_t = 6443)]
    api_port: u16,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The libraries would tell of every question: who asks for what is the asker's business.
    let filter = EnvFilter::new("warn,berth_dns=info");
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time().with_target(false);
    log.with_writer(std::io::stderr).init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let causes = std::iter::successors(Some(failure.as_ref() as &dyn Error), |cause| (*cause).source());
            error!("{}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut file = ZoneFile::open(&arguments.zone)?;
    let names = Names::new(Arc::new(Upstream::new(arguments.resolvers)));
    let mut listeners = Listeners::new(names.clone(), arguments.port);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut told = false;
    let mut local = OnRequest::default();
    loop {
        match file.read() {
            Ok(zone) => {
                info!(bundles = zone.hosts.len(), addresses = zone.listen.len(), "the zone is read");
                local.follow(zone.multicast_dns, || local_name(arguments.api_port)).await;
                listeners.follow(&zone.listen).await;
                names.replace(zone);
            }
            // What was read before stays.
            Err(failure) => error!(error = &failure as &dyn Error, "the zone stays as it was"),
        }
        if !std::mem::replace(&mut told, true) {
            sd_notify::notify(&[sd_notify::NotifyState::Ready])?;
        }
        tokio::select! {
            changed = file.changed() => changed?,
            name = renamed(local.present()) => warn!(name, "another machine has this one's name, so it goes by another"),
            _ = terminate.recv() => return Ok(()),
        }
    }
}

/// What services need does not depend on whether neighbours hear of the machine.
fn local_name(port: u16) -> Option<LocalName> {
    match LocalName::tell(port) {
        Ok(local) => {
            info!(name = local.name, "the machine's neighbours are told its name");
            Some(local)
        }
        Err(failure) => {
            warn!(error = &failure as &dyn Error, "the machine's neighbours are not told its name");
            None
        }
    }
}

async fn renamed(local: Option<&LocalName>) -> String {
    match local {
        Some(local) => local.renamed().await,
        None => std::future::pending().await,
    }
}
