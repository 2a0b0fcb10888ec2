//! `--port` and `--publish`.

use std::str::FromStr;

use berth_model::resource::bundle::{Expose, Port, Protocol};

/// `NAME:PORT[/udp][:HOSTPORT][=lan|none]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortFlag(pub Port);

/// `HOSTPORT[:PORT][/udp]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublishFlag(pub Port);

impl FromStr for PortFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, expose) = match text.split_once('=') {
            Some((place, expose)) => (place, Some(read_expose(expose)?)),
            None => (text, None),
        };
        let (name, rest) = place.split_once(':').ok_or("write it like http:80 or http:80:8080=lan")?;
        let (inner, host) = match rest.split_once(':') {
            Some((inner, host)) => (inner, Some(number(host)?)),
            None => (rest, None),
        };
        let (container_port, protocol) = port(inner)?;
        let implied = if host.is_some() { Expose::Lan } else { Expose::None };
        let expose = expose.unwrap_or(implied);
        if name.is_empty() {
            return Err("the port has no name; write it like http:80".to_owned());
        }
        if host.is_some() && expose == Expose::None {
            return Err("a port that nobody outside reaches has no host port".to_owned());
        }
        Ok(Self(Port { name: name.to_owned(), container_port, protocol, expose, host_port: host }))
    }
}

impl FromStr for PublishFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, inner) = text.split_once(':').unwrap_or((text.split('/').next().unwrap_or(text), text));
        let (container_port, protocol) = port(inner)?;
        let end = if protocol == Protocol::Udp { "-udp" } else { "" };
        let name = format!("port-{container_port}{end}");
        let host_port = Some(number(host)?);
        Ok(Self(Port { name, container_port, protocol, expose: Expose::Lan, host_port }))
    }
}

fn read_expose(text: &str) -> Result<Expose, String> {
    match text {
        "lan" => Ok(Expose::Lan),
        "none" => Ok(Expose::None),
        other => Err(format!("a port is reached from `lan` or `none`, not {other:?}")),
    }
}

fn port(text: &str) -> Result<(u16, Protocol), String> {
    match text.split_once('/') {
        None => Ok((number(text)?, Protocol::Tcp)),
        Some((text, "tcp")) => Ok((number(text)?, Protocol::Tcp)),
        Some((text, "udp")) => Ok((number(text)?, Protocol::Udp)),
        Some((_, other)) => Err(format!("the protocol is tcp or udp, not {other:?}")),
    }
}

fn number(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|port| *port != 0);
    number.ok_or_else(|| format!("{text:?} is no port; ports go from 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(text: &str) -> Result<Port, String> {
        text.parse::<PortFlag>().map(|flag| flag.0)
    }

    fn publish(text: &str) -> Result<Port, String> {
        text.parse::<PublishFlag>().map(|flag| flag.0)
    }

    fn http() -> Port {
        Port { name: "http".into(), container_port: 80, ..Port::default() }
    }

    #[test]
    fn a_port_is_private_unless_it_says_otherwise() {
        assert_eq!(port("http:80"), Ok(http()));
        assert_eq!(port("http:80=lan"), Ok(Port { expose: Expose::Lan, ..http() }));
        assert_eq!(port("http:80:8080"), Ok(Port { expose: Expose::Lan, host_port: Some(8080), ..http() }));
        assert_eq!(port("http:80:8080=lan"), port("http:80:8080"));
    }

    #[test]
    fn the_protocol_stands_beside_the_port() {
        let dns = Port { name: "dns".into(), container_port: 53, protocol: Protocol::Udp, ..Port::default() };
        assert_eq!(port("dns:53/udp"), Ok(dns));
        assert_eq!(port("http:80/tcp"), Ok(http()));
    }

    #[test]
    fn publish_names_the_machines_port_first() {
        let expected = Port {
            name: "port-80".into(),
            container_port: 80,
            protocol: Protocol::Tcp,
            expose: Expose::Lan,
            host_port: Some(8080),
        };
        assert_eq!(publish("8080:80"), Ok(expected));
        let same = publish("53/udp").unwrap();
        assert_eq!((same.name.as_str(), same.container_port, same.host_port), ("port-53-udp", 53, Some(53)));
    }

    #[test]
    fn a_mistake_is_explained() {
        let explained = |text| port(text).unwrap_err();
        assert_eq!(explained("80"), "write it like http:80 or http:80:8080=lan");
        assert_eq!(explained("http:0"), "\"0\" is no port; ports go from 1 to 65535");
        assert_eq!(explained("http:80=wan"), "a port is reached from `lan` or `none`, not \"wan\"");
        assert_eq!(explained("http:80/sctp"), "the protocol is tcp or udp, not \"sctp\"");
        assert_eq!(explained("http:80:8080=none"), "a port that nobody outside reaches has no host port");
        assert_eq!(publish("http:80").unwrap_err(), "\"http\" is no port; ports go from 1 to 65535");
    }
}
