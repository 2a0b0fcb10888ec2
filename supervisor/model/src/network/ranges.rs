//! Sets of addresses as sorted ranges that do not touch: what rules match, however it was written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A set of IPv4 and IPv6 addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

/// Text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network: write e.g. `192.0.2.0/24` or `2001:db8::/32`")]
pub struct BadBlock(String);

impl Ranges {
    /// Single addresses.
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut ranges = Self::default();
        for address in addresses {
            ranges.family(address.is_ipv4()).push((bits(address), bits(address)));
        }
        ranges.in_order()
    }

    /// A network, such as `192.0.2.0/24`; bits beyond the prefix do not matter.
    ///
    /// # Errors
    /// [`BadBlock`].
    pub fn block(text: &str) -> Result<Self, BadBlock> {
        let bad = || BadBlock(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let canonical = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u32 = prefix.parse().ok().filter(|prefix| canonical && *prefix <= width).ok_or_else(bad)?;
        let rest = 1_u128.checked_shl(width - prefix).map_or(u128::MAX, |size| size - 1);
        let first = bits(address) & !rest;
        let mut ranges = Self::default();
        ranges.family(address.is_ipv4()).push((first, first | rest));
        Ok(ranges)
    }

    /// Networks known to be written right; a wrong one is left out.
    pub fn blocks(texts: &[&str]) -> Self {
        texts.iter().filter_map(|text| Self::block(text).ok()).fold(Self::default(), Self::and)
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.v4.extend(other.v4);
        self.v6.extend(other.v6);
        self.in_order()
    }

    /// This without the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self { v4: cut(&self.v4, &other.v4), v6: cut(&self.v6, &other.v6) }
    }

    /// Whether an address is in it.
    pub fn holds(&self, address: IpAddr) -> bool {
        let ranges = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let at = ranges.partition_point(|(_, last)| *last < bits(address));
        ranges.get(at).is_some_and(|(first, _)| *first <= bits(address))
    }

    /// Whether there is no address in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// First and last addresses of one family, in order.
    pub fn pairs(&self, ipv4: bool) -> Vec<(IpAddr, IpAddr)> {
        let ranges = if ipv4 { &self.v4 } else { &self.v6 };
        ranges.iter().map(|(first, last)| (address(*first, ipv4), address(*last, ipv4))).collect()
    }

    fn family(&mut self, ipv4: bool) -> &mut Vec<(u128, u128)> {
        if ipv4 { &mut self.v4 } else { &mut self.v6 }
    }

    fn in_order(self) -> Self {
        Self { v4: merged(self.v4), v6: merged(self.v6) }
    }
}

/// Sorted ranges, with those that overlap or touch made one: the kernel refuses others.
pub(super) fn merged<N: Ord + Copy + Next>(mut ranges: Vec<(N, N)>) -> Vec<(N, N)> {
    ranges.sort_unstable();
    let mut out: Vec<(N, N)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some((_, before)) if before.next().is_none_or(|next| first <= next) => *before = last.max(*before),
            _ => out.push((first, last)),
        }
    }
    out
}

/// Numbers that follow one another.
pub(super) trait Next: Sized {
    /// The one after, if there is one.
    fn next(self) -> Option<Self>;
}

impl Next for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Next for u16 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// Sorted ranges without other sorted ranges, in one pass over both.
fn cut(ranges: &[(u128, u128)], without: &[(u128, u128)]) -> Vec<(u128, u128)> {
    let mut out = Vec::new();
    for &(first, last) in ranges {
        let mut from = Some(first);
        let begin = without.partition_point(|(_, end)| *end < first);
        for &(hole, end) in without[begin..].iter().take_while(|(hole, _)| *hole <= last) {
            if let Some(start) = from.filter(|start| *start < hole) {
                out.push((start, hole - 1));
            }
            from = end.checked_add(1);
        }
        out.extend(from.filter(|start| *start <= last).map(|start| (start, last)));
    }
    out
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The other way; IPv4 ranges never leave 32 bits.
fn address(bits: u128, ipv4: bool) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if ipv4 => Ipv4Addr::from(bits).into(),
        _ => Ipv6Addr::from(bits).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ranges: &Ranges) -> Vec<String> {
        let all = ranges.pairs(true).into_iter().chain(ranges.pairs(false));
        all.map(|(first, last)| format!("{first}-{last}")).collect()
    }

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        let ranges = Ranges::blocks(&["10.0.0.0/25", "10.0.0.128/25", "10.0.0.7/32", "10.0.2.0/24"]);
        assert_eq!(shown(&ranges), ["10.0.0.0-10.0.0.255", "10.0.2.0-10.0.2.255"]);
    }

    #[test]
    fn what_is_cut_out_leaves_what_is_around_it() {
        let all = Ranges::blocks(&["0.0.0.0/0", "::/0"]);
        let rest = all.without(&Ranges::blocks(&["0.0.0.0/8", "10.0.0.0/8", "255.255.255.255/32", "8000::/1"]));
        assert_eq!(
            shown(&rest),
            ["1.0.0.0-9.255.255.255", "11.0.0.0-255.255.255.254", "::-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
        );
        assert!(all.without(&all).is_empty());
    }

    #[test]
    fn an_address_is_looked_up_in_its_own_family() {
        let ranges = Ranges::blocks(&["10.0.0.0/8", "fd00::/8"]);
        for (address, is_in) in [("10.1.2.3", true), ("11.0.0.0", false), ("fd00::1", true), ("::a00:1", false)] {
            assert_eq!(ranges.holds(address.parse().unwrap()), is_in, "{address}");
        }
    }

    #[test]
    fn a_block_has_an_address_and_a_prefix_that_fits() {
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "::/129", "10.0.0.0/+8", "10.0.0.0/", ""] {
            assert_eq!(Ranges::block(bad), Err(BadBlock(bad.to_owned())));
        }
        assert_eq!(shown(&Ranges::block("10.1.2.3/8").unwrap()), ["10.0.0.0-10.255.255.255"]);
    }
}
