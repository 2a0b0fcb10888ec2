//! One nftables table, replaced as a whole.
//!
//! A [`Ruleset`] is a plain value: sets and maps, chains and rules of one table, in the words of
//! nftables' own JSON. [`apply`] hands it to `nft` as one transaction: packets meet the old table
//! or the new one, and a mistake anywhere leaves the old one in place. Connections that are
//! established live on, since the kernel keeps them elsewhere.
//!
//! A packet should not pay for the number of services: dispatch by map ([`Ruleset::map`],
//! [`lookup`]) instead of by one rule each.

mod shape;
mod words;

pub use nftables::{expr, schema, stmt, types};

use expr::Expression;
use schema::{Chain, Map, NfCmd, NfListObject, NfObject, Nftables, Rule, SetType, Table};
use schema::{SetFlag, SetTypeValue};
use serde_json::Value;
use stmt::Statement;
use types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use crate::cmd::{CmdError, Command, Ended};
pub use words::{
    accept, address, any_of, back, concat, conntrack, dispatch, drop, equal, field, goto, jump, kind_of_destination,
    lookup, matching, meta, network, number, range, refuse, reset, text, unequal,
};

const NFT: &str = "/usr/sbin/nft";

/// Why a table is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The ruleset could not be written down.
    #[error("writing a ruleset as JSON")]
    Render(#[source] serde_json::Error),
    /// `nft` is missing, or refused; nothing has changed then.
    #[error("{doing} table {table}")]
    Nft {
        /// What was being done, as a verb.
        doing: &'static str,
        /// Name of the table.
        table: String,
        /// The refusal.
        #[source]
        source: CmdError,
    },
    /// `nft` answered with something else than JSON.
    #[error("understanding the listing of table {table}")]
    Listing {
        /// Name of the table.
        table: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// A table with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    family: NfFamily,
    table: String,
    maps: Vec<NfListObject<'static>>,
    chains: Vec<NfListObject<'static>>,
    rules: Vec<NfListObject<'static>>,
}

/// Where in the path of a packet a chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Filter, nat or route.
    pub kind: NfChainType,
    /// At which point.
    pub hook: NfHook,
    /// Before those with a higher number: -100 is `dstnat`, 0 `filter`, 100 `srcnat`.
    pub priority: i32,
    /// What happens to packets that no rule decides.
    pub policy: NfChainPolicy,
}

impl Ruleset {
    /// An empty table.
    #[must_use]
    pub fn new(family: NfFamily, table: impl Into<String>) -> Ruleset {
        Ruleset { family, table: table.into(), maps: Vec::new(), chains: Vec::new(), rules: Vec::new() }
    }

    /// A map that rules can look things up in ([`lookup`]). A key of several types is a
    /// concatenation ([`concat`]); a value has one type, since the JSON of many an nft in use
    /// knows no other. An address and a port are two maps with the same keys.
    #[must_use]
    pub fn map(
        mut self,
        name: &str,
        key: &[SetType],
        value: SetType,
        elements: Vec<(Expression<'static>, Expression<'static>)>,
    ) -> Ruleset {
        let elements: Vec<_> = elements.into_iter().map(|(key, value)| Expression::List(vec![key, value])).collect();
        self.maps.push(NfListObject::Map(Box::new(Map {
            family: self.family,
            table: self.table.clone().into(),
            name: name.to_owned().into(),
            set_type: set_type(key),
            map: SetTypeValue::Single(value),
            elem: (!elements.is_empty()).then(|| elements.into()),
            ..Map::default()
        })));
        self
    }

    /// A set that rules can match against; with `ranges` its elements may be networks.
    #[must_use]
    pub fn set(mut self, name: &str, types: &[SetType], ranges: bool, elements: Vec<Expression<'static>>) -> Ruleset {
        self.maps.push(NfListObject::Set(Box::new(schema::Set {
            family: self.family,
            table: self.table.clone().into(),
            name: name.to_owned().into(),
            set_type: set_type(types),
            flags: ranges.then(|| [SetFlag::Interval].into()),
            elem: (!elements.is_empty()).then(|| elements.into()),
            ..schema::Set::default()
        })));
        self
    }

    /// A chain: one that packets pass by themselves, or with no hook one to jump to.
    #[must_use]
    pub fn chain(mut self, name: &str, hook: Option<Hook>) -> Ruleset {
        self.chains.push(NfListObject::Chain(Chain {
            family: self.family,
            table: self.table.clone().into(),
            name: name.to_owned().into(),
            _type: hook.map(|hook| hook.kind),
            hook: hook.map(|hook| hook.hook),
            prio: hook.map(|hook| hook.priority),
            policy: hook.map(|hook| hook.policy),
            ..Chain::default()
        }));
        self
    }

    /// A rule at the end of a chain, with a comment for people who list it.
    #[must_use]
    pub fn rule(mut self, chain: &str, comment: &str, statements: Vec<Statement<'static>>) -> Ruleset {
        self.rules.push(NfListObject::Rule(Rule {
            family: self.family,
            table: self.table.clone().into(),
            chain: chain.to_owned().into(),
            expr: statements.into(),
            comment: (!comment.is_empty()).then(|| comment.to_owned().into()),
            ..Rule::default()
        }));
        self
    }

    /// The transaction. The table is added first so that deleting it cannot fail.
    fn transaction(&self) -> Nftables<'static> {
        commands(self.commands())
    }

    fn commands(&self) -> impl Iterator<Item = NfCmd<'static>> {
        let table = || table(self.family, &self.table);
        let head = [NfCmd::Add(table()), NfCmd::Delete(table()), NfCmd::Add(table())];
        let body = [&self.maps, &self.chains, &self.rules];
        head.into_iter().chain(body.into_iter().flatten().cloned().map(NfCmd::Add))
    }

    /// The transaction as `nft -j` reads it, for people and golden files.
    ///
    /// # Errors
    /// [`NftError::Render`].
    pub fn to_json(&self) -> Result<String, NftError> {
        serde_json::to_string_pretty(&self.transaction()).map_err(NftError::Render)
    }
}

/// Replaces the table by the ruleset, whether or not there is one.
///
/// # Errors
/// [`NftError`]; the table is as it was before.
pub async fn apply(ruleset: &Ruleset) -> Result<(), NftError> {
    run("replacing", &ruleset.table, &["-f", "-"], Some(&ruleset.transaction())).await?;
    Ok(())
}

/// Replaces several tables at once: packets meet all the old ones or all the new ones.
///
/// # Errors
/// [`NftError`]; the tables are as they were before.
pub async fn apply_together(rulesets: &[Ruleset]) -> Result<(), NftError> {
    let whole = commands(rulesets.iter().flat_map(Ruleset::commands));
    let names: Vec<&str> = rulesets.iter().map(|ruleset| ruleset.table.as_str()).collect();
    run("replacing", &names.join(" and "), &["-f", "-"], Some(&whole)).await?;
    Ok(())
}

/// Has the kernel check the ruleset, and changes nothing.
///
/// # Errors
/// [`NftError`] when [`apply`] would fail.
pub async fn check(ruleset: &Ruleset) -> Result<(), NftError> {
    run("checking", &ruleset.table, &["-c", "-f", "-"], Some(&ruleset.transaction())).await?;
    Ok(())
}

/// Deletes the table; fine when there is none.
///
/// # Errors
/// [`NftError`].
pub async fn delete(family: NfFamily, name: &str) -> Result<(), NftError> {
    let both = [NfCmd::Add(table(family, name)), NfCmd::Delete(table(family, name))];
    run("deleting", name, &["-f", "-"], Some(&commands(both))).await?;
    Ok(())
}

/// The table as the kernel has it, `None` when there is none: the objects of nftables' own
/// listing, without the numbers that the kernel gives them.
///
/// # Errors
/// [`NftError`].
pub async fn read(family: NfFamily, name: &str) -> Result<Option<Vec<Value>>, NftError> {
    let family = family_word(family);
    let listed = match run("listing", name, &["list", "table", family, name], None).await {
        Err(NftError::Nft { source, .. }) if is_absent(&source) => return Ok(None),
        listed => listed?,
    };
    let mut listing: Value =
        serde_json::from_slice(&listed).map_err(|source| NftError::Listing { table: name.to_owned(), source })?;
    let objects = listing["nftables"].as_array_mut().map(std::mem::take).unwrap_or_default();
    Ok(Some(objects.into_iter().filter_map(without_numbers).collect()))
}

/// The tables there are, by family and name; cheap, however much is in them.
///
/// # Errors
/// [`NftError`].
pub async fn tables() -> Result<Vec<(String, String)>, NftError> {
    let listed = run("listing", "names", &["list", "tables"], None).await?;
    let listing: Value =
        serde_json::from_slice(&listed).map_err(|source| NftError::Listing { table: "names".to_owned(), source })?;
    let objects = listing["nftables"].as_array().into_iter().flatten().map(|object| &object["table"]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(objects.filter_map(|table| Some((text(&table["family"])?, text(&table["name"])?))).collect())
}

async fn run(
    doing: &'static str,
    table: &str,
    args: &[&str],
    input: Option<&Nftables<'_>>,
) -> Result<Vec<u8>, NftError> {
    let mut command = Command::new(NFT).arg("-j").args(args.iter().copied());
    if let Some(input) = input {
        command = command.stdin(serde_json::to_vec(input).map_err(NftError::Render)?);
    }
    let output = command.run().await.map_err(|source| NftError::Nft { doing, table: table.to_owned(), source })?;
    Ok(output.stdout)
}

fn is_absent(error: &CmdError) -> bool {
    matches!(error, CmdError::Failed { ended: Ended::Code(1), stderr, .. }
        if stderr.contains("No such file or directory"))
}

fn without_numbers(mut object: Value) -> Option<Value> {
    let (kind, content) = object.as_object_mut()?.iter_mut().next()?;
    if kind == "metainfo" {
        return None;
    }
    if let Some(content) = content.as_object_mut() {
        content.remove("handle");
    }
    Some(object)
}

fn commands(commands: impl IntoIterator<Item = NfCmd<'static>>) -> Nftables<'static> {
    let objects: Vec<_> = commands.into_iter().map(NfObject::CmdObject).collect();
    Nftables { objects: objects.into() }
}

fn table(family: NfFamily, name: &str) -> NfListObject<'static> {
    NfListObject::Table(Table { family, name: name.to_owned().into(), handle: None })
}

fn set_type(types: &[SetType]) -> SetTypeValue<'static> {
    match types {
        [single] => SetTypeValue::Single(*single),
        several => SetTypeValue::Concatenated(several.to_vec().into()),
    }
}

fn family_word(family: NfFamily) -> &'static str {
    match family {
        NfFamily::IP => "ip",
        NfFamily::IP6 => "ip6",
        NfFamily::INet => "inet",
        NfFamily::ARP => "arp",
        NfFamily::Bridge => "bridge",
        NfFamily::NetDev => "netdev",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use expr::{CT, MetaKey, NamedExpression};
    use stmt::{Counter, NAT, NATFamily, Operator};

    use super::*;
    use crate::link::Links;
    use crate::netns;

    const DNAT: Hook =
        Hook { kind: NfChainType::NAT, hook: NfHook::Output, priority: -100, policy: NfChainPolicy::Accept };

    /// What arrives at this address and port goes to port `to` of 127.0.0.1.
    fn forwarding(to: u16) -> Ruleset {
        let arrived = || concat(vec![field("ip", "daddr"), field("tcp", "dport")]);
        let service = || concat(vec![text("192.0.2.1"), number(80u16)]);
        let key = [SetType::Ipv4Addr, SetType::InetService];
        let translate = Statement::DNAT(Some(NAT {
            family: Some(NATFamily::IP),
            addr: Some(lookup(arrived(), "addresses")),
            port: Some(lookup(arrived(), "ports")),
            flags: None,
        }));
        let addresses = vec![(service(), text("127.0.0.1"))];
        Ruleset::new(NfFamily::INet, "x")
            .map("addresses", &key, SetType::Ipv4Addr, addresses)
            .map("ports", &key, SetType::InetService, vec![(service(), number(to))])
            .chain("out", Some(DNAT))
            .rule("out", "services", vec![translate])
    }

    /// Everything that the builder knows.
    fn whole() -> Ruleset {
        let filter =
            Hook { kind: NfChainType::Filter, hook: NfHook::Forward, priority: 0, policy: NfChainPolicy::Drop };
        let masquerade =
            Hook { kind: NfChainType::NAT, hook: NfHook::Postrouting, priority: 100, policy: NfChainPolicy::Accept };
        let established = Expression::Named(NamedExpression::CT(CT { key: "state".into(), family: None, dir: None }));
        let inside = network("10.213.1.1/24".parse().unwrap());
        forwarding(8080)
            .set("inside", &[SetType::Ipv4Addr], true, vec![inside])
            .chain("forward", Some(filter))
            .chain("known", None)
            .chain("masquerade", Some(masquerade))
            .rule(
                "forward",
                "answers",
                vec![matching(established, Operator::IN, text("established")), Statement::Accept(None)],
            )
            .rule(
                "forward",
                "",
                vec![
                    equal(meta(MetaKey::Iifname), text("x1")),
                    Statement::Counter(Counter::Anonymous(None)),
                    Statement::Jump(stmt::JumpTarget { target: "known".into() }),
                ],
            )
            .rule(
                "masquerade",
                "to the outside",
                vec![
                    equal(field("ip", "saddr"), text("@inside")),
                    unequal(field("ip", "daddr"), text("@inside")),
                    Statement::Masquerade(None),
                ],
            )
    }

    #[test]
    fn a_ruleset_is_one_transaction_as_in_the_golden_file() {
        let golden = include_str!("../tests/golden/ruleset.json");
        assert_eq!(whole().to_json().unwrap(), golden.trim_end());
    }

    #[tokio::test]
    async fn netns_a_ruleset_is_applied_whole_and_can_be_read_back() {
        if !netns::enter() {
            return;
        }
        check(&whole()).await.unwrap();
        assert_eq!(read(NfFamily::INet, "x").await.unwrap(), None);
        assert_eq!(tables().await.unwrap(), []);
        apply(&whole()).await.unwrap();
        assert_eq!(tables().await.unwrap(), [("inet".to_owned(), "x".to_owned())]);
        let listed = read(NfFamily::INet, "x").await.unwrap().unwrap();
        let mut found: Vec<String> = listed.iter().map(name_of).collect();
        found.sort();
        let expected = [
            "chain forward",
            "chain known",
            "chain masquerade",
            "chain out",
            "map addresses 192.0.2.1 80 127.0.0.1",
            "map ports 192.0.2.1 80 8080",
            "rule ",
            "rule answers",
            "rule services",
            "rule to the outside",
            "set inside 10.213.1.0 24",
            "table x",
        ];
        assert_eq!(found, expected);
    }

    /// Kind and name of a listed object, and the values it holds.
    fn name_of(object: &Value) -> String {
        let (kind, content) = object.as_object().unwrap().iter().next().unwrap();
        let name = content.get("name").or(content.get("comment"));
        let mut words = vec![kind.clone(), leaves(name.unwrap_or(&Value::Null))];
        words.extend(content.get("elem").map(leaves));
        words.join(" ")
    }

    fn leaves(value: &Value) -> String {
        let all = |values: Vec<String>| values.join(" ");
        match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Array(values) => all(values.iter().map(leaves).collect()),
            Value::Object(fields) => all(fields.values().map(leaves).collect()),
            other => other.to_string(),
        }
    }

    #[tokio::test]
    async fn netns_a_table_is_replaced_and_the_tables_of_others_stay() {
        if !netns::enter() {
            return;
        }
        apply(&Ruleset::new(NfFamily::INet, "others").chain("c", None)).await.unwrap();
        apply(&whole()).await.unwrap();
        apply(&Ruleset::new(NfFamily::INet, "x").chain("only", None)).await.unwrap();
        let listed = read(NfFamily::INet, "x").await.unwrap().unwrap();
        assert_eq!(listed.len(), 2, "{listed:?}");
        delete(NfFamily::INet, "x").await.unwrap();
        delete(NfFamily::INet, "x").await.unwrap();
        assert_eq!(read(NfFamily::INet, "x").await.unwrap(), None);
        assert!(read(NfFamily::INet, "others").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn netns_a_mistake_anywhere_leaves_the_old_table_in_place() {
        if !netns::enter() {
            return;
        }
        apply(&whole()).await.unwrap();
        let before = read(NfFamily::INet, "x").await.unwrap();
        let jump = Statement::Jump(stmt::JumpTarget { target: "nowhere".into() });
        let wrong = forwarding(9090).rule("out", "", vec![jump]);
        let refused = check(&wrong).await.unwrap_err();
        assert_eq!(refused.to_string(), "checking table x");
        assert!(apply(&wrong).await.is_err());
        assert_eq!(read(NfFamily::INet, "x").await.unwrap(), before);
    }

    /// Connects to the service address and returns what is said there.
    fn answer() -> String {
        let mut text = String::new();
        TcpStream::connect("192.0.2.1:80").unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn serve(listener: &TcpListener, text: &str) {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(text.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn netns_a_map_leads_a_connection_to_another_address_and_port() {
        if !netns::enter() {
            return;
        }
        let links = Links::open().unwrap();
        let loopback = links.link("lo").await.unwrap().unwrap();
        links.set_up(&loopback).await.unwrap();
        let _made = links.ensure_bridge("x1", &["192.0.2.1/32".parse().unwrap()]).await.unwrap();
        for said in ["old", "new"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            apply(&forwarding(port)).await.unwrap();
            let heard = std::thread::scope(|scope| {
                let server = scope.spawn(|| serve(&listener, said));
                let heard = answer();
                server.join().unwrap();
                heard
            });
            assert_eq!(heard, said);
        }
    }
}
