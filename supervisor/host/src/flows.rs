//! Connections that the kernel keeps track of.
//!
//! A packet of a connection that was once let through is let through until the connection ends,
//! whoever has its addresses by then. So the connections of an address are forgotten before it is
//! given to somebody else.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use futures_util::TryStreamExt;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, Tuple,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::proto::{self, ConnectionHandle};
use rtnetlink::sys::SocketAddr;

/// From `SYN_SENT` to `CLOSE_WAIT` in `enum tcp_conntrack` of the kernel's `nf_conntrack_tcp.h`.
const OPEN: RangeInclusive<u8> = 1..=5;

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

/// TCP connections to these addresses that are not at their end yet, however they came there: of one that was
/// translated, it is who answers that counts. (What a program at such an address has opened itself is no connection to it.)
///
/// # Errors
/// The kernel has no connection tracking, or this process may not.
pub async fn at_work(to: &BTreeSet<IpAddr>) -> Result<usize, FlowError> {
    with_kernel(async |kernel| {
        let mut count = 0;
        for family in families(to) {
            let all = list(kernel, family).await?;
            count += all.iter().filter(|flow| is_open(flow) && answers(flow, to)).count();
        }
        Ok(count)
    })
    .await
}

/// Forgets all connections from or to these addresses, translated ones included; how many they were.
/// The next packet of one of them is looked at as a new one.
///
/// # Errors
/// The kernel has no connection tracking, or this process may not.
pub async fn forget(gone: &BTreeSet<IpAddr>) -> Result<usize, FlowError> {
    with_kernel(async |kernel| forget_each(kernel, gone).await).await
}

async fn with_kernel<T>(work: impl AsyncFnOnce(&Kernel) -> Result<T, FlowError>) -> Result<T, FlowError> {
    let (connection, kernel, _) = proto::new_connection::<NetfilterMessage>(protocol()).map_err(FlowError::Open)?;
    let server = tokio::spawn(connection);
    let done = work(&kernel).await;
    server.abort();
    done
}

fn protocol() -> isize {
    rtnetlink::sys::protocols::NETLINK_NETFILTER
}

async fn forget_each(kernel: &Kernel, gone: &BTreeSet<IpAddr>) -> Result<usize, FlowError> {
    let mut forgotten = 0;
    for family in families(gone) {
        for flow in list(kernel, family).await?.iter().filter(|flow| touches(flow, gone)) {
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

/// Those that one of these addresses belongs to.
fn families(of: &BTreeSet<IpAddr>) -> impl Iterator<Item = NetfilterProtoFamily> {
    let v4 = of.iter().any(IpAddr::is_ipv4).then_some(NetfilterProtoFamily::IPv4);
    let v6 = of.iter().any(IpAddr::is_ipv6).then_some(NetfilterProtoFamily::IPv6);
    v4.into_iter().chain(v6)
}

async fn list(kernel: &Kernel, family: NetfilterProtoFamily) -> Result<Vec<Flow>, FlowError> {
    ask(kernel, family, ConntrackMessage::Get(vec![]), NLM_F_DUMP, "listing connections").await
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
    tuples.flat_map(|tuple| ends(tuple)).any(|one| match one {
        IPTuple::SourceAddress(address) | IPTuple::DestinationAddress(address) => gone.contains(address),
        _ => false,
    })
}

/// Whether the one who answers in it has one of these addresses.
fn answers(flow: &Flow, whom: &BTreeSet<IpAddr>) -> bool {
    let tuples = flow.iter().filter_map(|part| match part {
        ConntrackAttribute::CtaTupleReply(tuple) => Some(tuple),
        _ => None,
    });
    tuples
        .flat_map(|tuple| ends(tuple))
        .any(|one| matches!(one, IPTuple::SourceAddress(address) if whom.contains(address)))
}

fn ends(tuple: &[Tuple]) -> impl Iterator<Item = &IPTuple> {
    let addresses = tuple.iter().filter_map(|part| match part {
        Tuple::Ip(addresses) => Some(addresses),
        _ => None,
    });
    addresses.flatten()
}

/// Of TCP, and before the last acknowledgement of its end.
fn is_open(flow: &Flow) -> bool {
    let protocols = flow.iter().filter_map(|part| match part {
        ConntrackAttribute::CtaProtoInfo(protocols) => Some(protocols),
        _ => None,
    });
    let of_tcp = protocols.flatten().filter_map(|protocol| match protocol {
        ProtoInfo::TCP(parts) => Some(parts),
        _ => None,
    });
    of_tcp.flatten().any(|part| matches!(part, ProtoInfoTCP::State(state) if OPEN.contains(state)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

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
    async fn netns_a_connection_is_at_work_until_both_have_ended_it_and_for_who_answers_alone() {
        if !netns::enter() {
            return;
        }
        let links = Links::open().unwrap();
        links.set_up(&links.link("lo").await.unwrap().unwrap()).await.unwrap();
        nft::apply(&tracking()).await.unwrap();
        say_something("127.0.0.1");
        let who = |text: &str| BTreeSet::from([text.parse::<IpAddr>().unwrap()]);
        let server = TcpListener::bind("[::1]:0").unwrap();
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (theirs, _) = server.accept().unwrap();
        assert_eq!(at_work(&who("::1")).await.unwrap(), 1);
        assert_eq!(at_work(&who("127.0.0.1")).await.unwrap(), 0, "nobody is connected there");
        drop(theirs);
        assert_eq!(at_work(&who("::1")).await.unwrap(), 1, "the other side may still have something to say");
        drop(client);
        assert_eq!(at_work(&who("::1")).await.unwrap(), 0);
        let server = TcpListener::bind("127.0.0.2:0").unwrap();
        let from = tokio::net::TcpSocket::new_v4().unwrap();
        from.bind("127.0.0.3:0".parse().unwrap()).unwrap();
        let client = from.connect(server.local_addr().unwrap()).await.unwrap();
        assert_eq!(at_work(&who("127.0.0.2")).await.unwrap(), 1);
        assert_eq!(at_work(&who("127.0.0.3")).await.unwrap(), 0, "who asked is not who answers");
        drop(client);
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
