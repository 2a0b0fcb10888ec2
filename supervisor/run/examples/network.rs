//! Makes the network of a container again and again: microseconds of each, one per line. For `just bench`; it wants a
//! network namespace of its own, with a bridge named `bench` that is up.

use std::error::Error;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use berth_model::plan::{InterfaceAddress, Network};
use berth_run::network;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let rounds: u32 = std::env::args().nth(1).ok_or("how many rounds?")?.parse()?;
    let network = plan()?;
    for _ in 0..rounds {
        println!("{}", round(&network)?);
        // The kernel takes the last one away in its own time; nobody's start waits for that.
        while if_nametoindex(network.host_link.as_str()).is_ok() {
            thread::yield_now();
        }
    }
    Ok(())
}

/// As the supervisor plans it for a bundle.
fn plan() -> Result<Network, Failure> {
    let addresses = [("10.213.0.9", 32), ("fdbe::9", 128)];
    let addresses = addresses.map(|(address, prefix)| Ok(InterfaceAddress { address: address.parse()?, prefix }));
    Ok(Network {
        bridge: "bench".to_owned(),
        host_link: "bench0".to_owned(),
        addresses: addresses.into_iter().collect::<Result<_, Failure>>()?,
        gateways: vec!["169.254.1.1".parse()?, "fe80::1".parse()?],
        nameservers: vec![],
    })
}

/// A thread stands for the container: it goes into a new namespace, and waits there for its network.
fn round(network: &Network) -> Result<u128, Failure> {
    let (tell, told) = mpsc::channel::<Pid>();
    let (end, ended) = mpsc::channel::<()>();
    let began = Instant::now();
    let container = thread::spawn(move || -> Result<(), Failure> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        tell.send(gettid())?;
        // Ends when the other side is dropped, which is no message.
        Ok(ended.recv().or(Ok::<(), mpsc::RecvError>(()))?)
    });
    let took = told.recv().map_err(Failure::from).and_then(|pid| {
        network::connect(Some(network), pid)?;
        Ok(began.elapsed().as_micros())
    });
    drop(end);
    container.join().map_err(|_| "the thread ended badly")??;
    took
}
