//! Connections that the kernel keeps track of.
//!
//! A packet of a connection that was once let through is let through until the connection ends,
//! whoever has its addresses by then. So the connections of an address are forgotten before it is
//! given to somebody else.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, Tuple};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::proto::{self, ConnectionHandle};
use rtnetlink::sys::SocketAddr;

/// What went wrong between the kernel and here.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// No netlink socket.
    #[error("opening a netlink socket")]
    Open(#[source] std::io::Error),
    /// The question did not go out, or what came was no answer.
    #[error("asking the kernel for its connections")]
    Exchange(#[source] proto::NetlinkProtoError),
    /// The kernel refused.
    #[error("{doing}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// The refusal.
        #[source]
        source: std::io::Error,
    },
}

/// Forgets all connections from or to these addresses, translated ones included; how many they were.
/// The next packet of one of them is looked at as a new one.
///
/// # Errors
/// The kernel has no connection tracking, or this process may not.
pub async fn forget(gone: &BTreeSet<IpAddr>) -> Result<usize, FlowError> {
    let (connection, kernel, _) = proto::new_connection::<NetfilterMessage>(protocol()).map_err(FlowError::Open)?;
    let server = tokio::spawn(connection);
    let forgotten = forget_each(&kernel, gone).await;
    server.abort();
    forgotten
}

fn protocol() -> isize {
    rtnetlink::sys::protocols::NETLINK_NETFILTER
}

async fn forget_each(kernel: &Kernel, gone: &BTreeSet<IpAddr>) -> Result<usize, FlowError> {
    let mut forgotten = 0;
    for (family, of_family) in [
        (NetfilterProtoFamily::IPv4, IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
        (NetfilterProtoFamily::IPv6, IpAddr::is_ipv6),
    ] {
        if !gone.iter().any(of_family) {
            continue;
        }
        let all = ask(kernel, family, ConntrackMessage::Get(vec![]), NLM_F_DUMP, "listing connections").await?;
        for flow in all.iter().filter(|flow| touches(flow, gone)) {
            // Which one is told by its first packet's addresses and ports, all of them.
            let original = flow.iter().filter(|part| matches!(part, ConntrackAttribute::CtaTupleOrig(_)));
            let which = ConntrackMessage::Delete(original.cloned().collect());
            match ask(kernel, family, which, NLM_F_ACK, "forgetting a connection").await {
                Ok(_) => forgotten += 1,
                // It has ended meanwhile.
                Err(FlowError::Refused { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(forgotten)
}

type Kernel = ConnectionHandle<NetfilterMessage>;
type Flow = Vec<ConntrackAttribute>;

/// Sends one message and takes in all that comes of it.
async fn ask(
    kernel: &Kernel,
    family: NetfilterProtoFamily,
    message: ConntrackMessage,
    flags: u16,
    doing: &'static str,
) -> Result<Vec<Flow>, FlowError> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    let answers = kernel.request(request, SocketAddr::new(0, 0)).map_err(FlowError::Exchange)?;
    let read = |answer: NetlinkMessage<NetfilterMessage>| async move {
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => {
                Err(FlowError::Refused { doing, source: error.to_io() })
            }
            NetlinkPayload::InnerMessage(NetfilterMessage {
                inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(flow)),
                ..
            }) => Ok(Some(flow)),
            _ => Ok(None),
        }
    };
    futures_util::StreamExt::map(answers, Ok).try_filter_map(read).try_collect().await
}

/// Whether one of these addresses has a part in it, before translation or after.
fn touches(flow: &Flow, gone: &BTreeSet<IpAddr>) -> bool {
    let tuples = flow.iter().filter_map(|part| match part {
        ConntrackAttribute::CtaTupleOrig(tuple) | ConntrackAttribute::CtaTupleReply(tuple) => Some(tuple),
        _ => None,
    });
    let mut addresses = tuples.flatten().filter_map(|part| match part {
        Tuple::Ip(addresses) => Some(addresses),
        _ => None,
    });
    addresses.any(|pair| {
        pair.iter().any(|one| match one {
            IPTuple::SourceAddress(address) | IPTuple::DestinationAddress(address) => gone.contains(address),
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::link::Links;
    use crate::netns;
    use crate::nft::stmt::Operator;
    use crate::nft::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
    use crate::nft::{self, Hook, Ruleset};

    /// The kernel tracks connections once a rule asks about them.
    fn tracking() -> Ruleset {
        let kind = NfChainType::Filter;
        let hook = Hook { kind, hook: NfHook::Output, priority: 0, policy: NfChainPolicy::Accept };
        Ruleset::new(NfFamily::INet, "x").chain("out", Some(hook)).rule(
            "out",
            "",
            vec![nft::matching(nft::conntrack("state"), Operator::IN, nft::text("established")), nft::accept()],
        )
    }

    fn say_something(to: &str) {
        let server = UdpSocket::bind((to, 0)).unwrap();
        let client = UdpSocket::bind((to, 0)).unwrap();
        client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn netns_the_connections_of_an_address_are_forgotten_and_no_others() {
        if !netns::enter() {
            return;
        }
        let links = Links::open().unwrap();
        links.set_up(&links.link("lo").await.unwrap().unwrap()).await.unwrap();
        nft::apply(&tracking()).await.unwrap();
        for _ in 0..3 {
            say_something("127.0.0.1");
            say_something("127.0.0.2");
        }
        say_something("::1");
        let both = BTreeSet::from(["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]);
        assert_eq!(forget(&both).await.unwrap(), 4);
        assert_eq!(forget(&both).await.unwrap(), 0);
        assert_eq!(forget(&BTreeSet::from(["127.0.0.2".parse().unwrap()])).await.unwrap(), 3);
        assert_eq!(forget(&BTreeSet::new()).await.unwrap(), 0);
    }
}
