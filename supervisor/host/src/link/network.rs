//! Addresses with the networks they are in. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address together with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Text or numbers that are no address with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address with a prefix, such as 192.0.2.1/24")]
pub struct BadNetwork(String);

impl Network {
    /// An address in a network; the prefix must fit the address family.
    ///
    /// # Errors
    /// [`BadNetwork`] when the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Network, BadNetwork> {
        if u32::from(prefix) > width(address) {
            return Err(BadNetwork(format!("{address}/{prefix}")));
        }
        Ok(Network { address, prefix })
    }

    /// The address itself.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The lowest address of the network.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        let host = width(self.address) - u32::from(self.prefix);
        let mask = u128::MAX.checked_shl(host).unwrap_or(0);
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(host).unwrap_or(0);
                Ipv4Addr::from(u32::from(address) & mask).into()
            }
            IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & mask).into(),
        }
    }

    /// Leading bits that the network's addresses share.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the two networks have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Network) -> bool {
        if self.address.is_ipv4() != other.address.is_ipv4() {
            return false;
        }
        let ignored = width(self.address) - u32::from(self.prefix.min(other.prefix));
        let difference = bits(self.address) ^ bits(other.address);
        difference.checked_shr(ignored).unwrap_or(0) == 0
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Network, BadNetwork> {
        let bad = || BadNetwork(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address = address.parse().map_err(|_| bad())?;
        Network::new(address, prefix.parse().map_err(|_| bad())?).map_err(|_| bad())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address as a number; an IPv4 address has 32 bits of it.
pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_address_of_a_network_has_no_host_part() {
        for (text, first) in [
            ("10.213.7.9/24", "10.213.7.0"),
            ("10.213.7.9/32", "10.213.7.9"),
            ("10.213.7.9/0", "0.0.0.0"),
            ("fd12:3:4::5/32", "fd12:3::"),
            ("fd12::5/0", "::"),
        ] {
            assert_eq!(network(text).first().to_string(), first);
        }
    }

    #[test]
    fn networks_overlap_when_one_contains_the_other() {
        for (one, other, expected) in [
            ("10.213.0.0/16", "10.213.7.9/24", true),
            ("10.213.0.0/16", "10.0.0.5/8", true),
            ("10.213.0.0/16", "10.214.0.1/16", false),
            ("10.213.0.0/16", "0.0.0.0/0", true),
            ("192.0.2.1/32", "192.0.2.1/32", true),
            ("192.0.2.1/32", "192.0.2.2/32", false),
            ("fd00::/8", "fd12::1/64", true),
            ("fd00::/64", "fe80::1/64", false),
            ("::/0", "0.0.0.0/0", false),
        ] {
            assert_eq!(network(one).overlaps(&network(other)), expected, "{one} {other}");
            assert_eq!(network(other).overlaps(&network(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_network_reads_as_it_is_written() {
        for text in ["192.0.2.1/24", "fd00::1/64", "0.0.0.0/0"] {
            assert_eq!(network(text).to_string(), text);
        }
        for text in ["192.0.2.1", "192.0.2.1/33", "::/129", "x/8", "192.0.2.1/-1"] {
            let error = text.parse::<Network>().unwrap_err();
            assert_eq!(error, BadNetwork(text.to_owned()));
        }
    }
}
