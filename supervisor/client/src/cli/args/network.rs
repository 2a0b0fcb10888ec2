//! Who may reach whom, and by which name.

use clap::{Args, Subcommand};

use super::party;

#[derive(Debug, Args)]
pub(in crate::cli) struct NetworkArgs {
    #[command(subcommand)]
    pub command: NetworkCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum NetworkCommand {
    /// Show who is on which network, by which address, and who reaches them.
    Status,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyArgs {
    #[command(subcommand)]
    pub command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PolicyCommand {
    /// Say whether a connection is allowed or denied, and by which rule.
    Debug {
        /// Who begins: NAME, NAMESPACE/NAME or an IP address.
        #[arg(value_parser = party)]
        from: String,
        /// With whom, in the same way.
        #[arg(value_parser = party)]
        to: String,
        /// The port, e.g. 5432 or 53/udp; without it, every declared one.
        port: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DnsArgs {
    #[command(subcommand)]
    pub command: DnsCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DnsCommand {
    /// Say what a bundle is told when it asks for a name.
    Lookup {
        /// A name, e.g. db, db.default, _http._tcp.db or 3.128.213.10.in-addr.arpa.
        name: String,
        /// Who asks: NAME or NAMESPACE/NAME.
        #[arg(long, value_name = "BUNDLE", value_parser = party)]
        from: String,
    },
}
