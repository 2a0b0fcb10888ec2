//! Routing netlink, as much as one veth pair takes: messages are built as bytes, sent one at a time
//! over a socket that stays in the network namespace it was opened in, and answered by one number.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

/// An interface as the kernel numbers it in one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkIndex(pub u32);

const HEADER: usize = 16;
const UP: u32 = libc::IFF_UP as u32;
/// Nested attributes carry this bit.
const NESTED: u16 = libc::NLA_F_NESTED as u16;
/// From `linux/veth.h`: the attribute that describes the other end.
const VETH_INFO_PEER: u16 = 1;
/// From `linux/rtnetlink.h`: the gateway need not be in a network of ours.
const ON_LINK: u32 = 4;
const REQUEST: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// A veth pair to be made: its host end up on a bridge, the other in a process' network namespace.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'name> {
    /// Name of the host end.
    pub host: &'name str,
    /// The bridge, as numbered on the host.
    pub bridge: LinkIndex,
    /// Name of the end inside.
    pub inside: &'name str,
    /// Hardware address of the end inside.
    pub hardware: [u8; 6],
    /// The process.
    pub pid: u32,
}

/// A request, without its sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, body: Vec<u8>) -> Self {
        Self { kind, flags: REQUEST | flags, body }
    }

    /// Makes a veth pair, see [`Veth`].
    pub fn add_veth(veth: &Veth<'_>) -> Self {
        let mut peer = link_header(LinkIndex(0), 0, 0);
        push_name(&mut peer, veth.inside);
        push(&mut peer, libc::IFLA_ADDRESS, &veth.hardware);
        push(&mut peer, libc::IFLA_NET_NS_PID, &veth.pid.to_ne_bytes());

        let mut pair = Vec::new();
        push(&mut pair, VETH_INFO_PEER | NESTED, &peer);
        let mut info = Vec::new();
        push(&mut info, libc::IFLA_INFO_KIND, b"veth");
        push(&mut info, libc::IFLA_INFO_DATA | NESTED, &pair);

        let mut body = link_header(LinkIndex(0), UP, UP);
        push_name(&mut body, veth.host);
        push(&mut body, libc::IFLA_MASTER, &veth.bridge.0.to_ne_bytes());
        push(&mut body, libc::IFLA_LINKINFO | NESTED, &info);
        Self::new(libc::RTM_NEWLINK, CREATE, body)
    }

    /// Deletes the link called `name`, and with it the other end of a pair.
    pub fn delete_link(name: &str) -> Self {
        let mut body = link_header(LinkIndex(0), 0, 0);
        push_name(&mut body, name);
        Self::new(libc::RTM_DELLINK, 0, body)
    }

    /// Sets a link up.
    pub fn set_up(link: LinkIndex) -> Self {
        Self::new(libc::RTM_NEWLINK, 0, link_header(link, UP, UP))
    }

    /// Gives a link an address. IPv6 skips duplicate detection: the daemon has allocated it, and a
    /// tentative address cannot be bound in the first second.
    pub fn add_address(link: LinkIndex, address: IpAddr, prefix: u8) -> Self {
        let no_detection = match address {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => libc::IFA_F_NODAD as u8,
        };
        let mut body = vec![family(address), prefix, no_detection, 0];
        body.extend_from_slice(&link.0.to_ne_bytes());
        let octets = octets(address);
        push(&mut body, libc::IFA_LOCAL, &octets);
        push(&mut body, libc::IFA_ADDRESS, &octets);
        Self::new(libc::RTM_NEWADDR, CREATE, body)
    }

    /// Sends everything that has no better route to `gateway`, which is on the link although no
    /// network of the link's addresses has it.
    pub fn add_default_route(link: LinkIndex, gateway: IpAddr) -> Self {
        let mut body = vec![
            family(gateway),
            0,
            0,
            0,
            libc::RT_TABLE_MAIN,
            libc::RTPROT_STATIC,
            libc::RT_SCOPE_UNIVERSE,
            libc::RTN_UNICAST,
        ];
        body.extend_from_slice(&ON_LINK.to_ne_bytes());
        push(&mut body, libc::RTA_GATEWAY, &octets(gateway));
        push(&mut body, libc::RTA_OIF, &link.0.to_ne_bytes());
        Self::new(libc::RTM_NEWROUTE, CREATE, body)
    }

    fn encode(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.body.len());
        // No message here comes near 4 GiB.
        let length = (HEADER + self.body.len()) as u32;
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&self.flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// `struct ifinfomsg`.
fn link_header(link: LinkIndex, flags: u32, change: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&link.0.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&change.to_ne_bytes());
    bytes
}

fn push_name(bytes: &mut Vec<u8>, name: &str) {
    let mut terminated = name.as_bytes().to_vec();
    terminated.push(0);
    push(bytes, libc::IFLA_IFNAME, &terminated);
}

/// Appends an attribute: length, type, value, filled up to four bytes.
fn push(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // No value here comes near 64 KiB.
    let length = (4 + value.len()) as u16;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A socket in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens one in the current network namespace.
    pub fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and waits for the kernel's verdict.
    pub fn request(&mut self, message: &Message) -> io::Result<()> {
        self.sequence += 1;
        sendto(self.socket.as_raw_fd(), &message.encode(self.sequence), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        verdict(&answer[..length])
    }
}

/// The error of an acknowledgement: 0 is success.
fn verdict(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
    let code = answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok());
    match (kind.map(u16::from_ne_bytes), code.map(i32::from_ne_bytes)) {
        (Some(kind), Some(0)) if i32::from(kind) == libc::NLMSG_ERROR => Ok(()),
        (Some(kind), Some(code)) if i32::from(kind) == libc::NLMSG_ERROR => {
            Err(io::Error::from_raw_os_error(code.saturating_neg()))
        }
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_encoded_as_the_kernel_reads_it() {
        let message = Message::add_address(LinkIndex(2), "10.213.0.5".parse().unwrap(), 24);
        assert_eq!(
            message.encode(7),
            [
                40, 0, 0, 0, 20, 0, 0x05, 0x06, 7, 0, 0, 0, 0, 0, 0, 0, // header
                2, 24, 0, 0, 2, 0, 0, 0, // family, prefix, flags, scope, link
                8, 0, 2, 0, 10, 213, 0, 5, // local
                8, 0, 1, 0, 10, 213, 0, 5, // address
            ]
        );
    }

    #[test]
    fn an_ipv6_address_is_usable_at_once() {
        let message = Message::add_address(LinkIndex(2), "fd00::5".parse().unwrap(), 64);
        assert_eq!(message.body[..4], [10, 64, 2, 0]);
        assert_eq!(message.body.len(), 8 + 20 + 20);
    }

    #[test]
    fn attributes_are_filled_up_to_four_bytes() {
        let mut bytes = Vec::new();
        push_name(&mut bytes, "lo");
        assert_eq!(bytes, [7, 0, 3, 0, b'l', b'o', 0, 0]);
    }

    #[test]
    fn a_pair_names_both_ends_the_bridge_the_hardware_address_and_the_process() {
        let message = Message::add_veth(&Veth {
            host: "bv-web-7",
            bridge: LinkIndex(4),
            inside: "eth0",
            hardware: [2, 0xbe, 10, 213, 0, 5],
            pid: 1234,
        });
        let body = &message.body;
        let holds = |wanted: &[u8]| body.windows(wanted.len()).any(|window| window == wanted);
        assert!(holds(b"bv-web-7\0"));
        assert!(holds(b"eth0\0"));
        assert!(holds(&[8, 0, 10, 0, 4, 0, 0, 0]));
        assert!(holds(&[8, 0, 19, 0, 0xd2, 4, 0, 0]));
        assert!(holds(&[10, 0, 1, 0, 2, 0xbe, 10, 213, 0, 5, 0, 0]));
    }

    #[test]
    fn the_kernels_verdict_is_an_error_number() {
        let answer = |code: i32| {
            let mut bytes = vec![36, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes
        };
        assert!(verdict(&answer(0)).is_ok());
        assert_eq!(verdict(&answer(-libc::EEXIST)).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        assert!(verdict(&[]).is_err());
    }
}
