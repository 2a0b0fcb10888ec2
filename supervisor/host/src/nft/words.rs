//! Short names for the expressions and statements that most rules are made of.

use std::collections::HashSet;
use std::net::IpAddr;

use nftables::expr::{
    self, CT, Expression, Fib, FibFlag, FibResult, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix,
    Range, SetItem,
};
use nftables::stmt::{Accept, Drop, JumpTarget, Match, Operator, Reject, RejectType, Statement, VerdictMap};
use nftables::types::RejectCode;

use crate::link::Network;

/// A field of a packet's header, such as `ip`, `daddr`.
#[must_use]
pub fn field(protocol: &'static str, field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    })))
}

/// Something the kernel knows about a packet, such as the name of the link it came in by.
#[must_use]
pub fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

/// Text: a name, an address; `@name` for a set or map.
#[must_use]
pub fn text(text: impl Into<String>) -> Expression<'static> {
    Expression::String(text.into().into())
}

/// An address as text.
#[must_use]
pub fn address(address: IpAddr) -> Expression<'static> {
    text(address.to_string())
}

/// A number, such as a port.
#[must_use]
pub fn number(number: impl Into<u32>) -> Expression<'static> {
    Expression::Number(number.into())
}

/// All addresses of a network.
#[must_use]
pub fn network(network: Network) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(address(network.first())),
        len: network.prefix().into(),
    }))
}

/// Several values as one, such as an address and a port.
#[must_use]
pub fn concat(parts: Vec<Expression<'static>>) -> Expression<'static> {
    Expression::Named(NamedExpression::Concat(parts))
}

/// What a map holds for a key; a rule ends where the map has no such key.
#[must_use]
pub fn lookup(key: Expression<'static>, map: &str) -> Expression<'static> {
    Expression::Named(NamedExpression::Map(Box::new(expr::Map { key, data: text(format!("@{map}")) })))
}

/// Goes on with the rule if both sides are equal, or the left is in the set on the right.
#[must_use]
pub fn equal(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    matching(left, Operator::EQ, right)
}

/// Goes on with the rule if both sides differ, or the left is not in the set on the right.
#[must_use]
pub fn unequal(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    matching(left, Operator::NEQ, right)
}

/// Goes on with the rule if the comparison holds.
#[must_use]
pub fn matching(left: Expression<'static>, op: Operator, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}

/// Something connection tracking knows of a packet, such as `state`.
#[must_use]
pub fn conntrack(key: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

/// What kind of address a packet goes to: `local` for one of this machine.
#[must_use]
pub fn kind_of_destination() -> Expression<'static> {
    Expression::Named(NamedExpression::Fib(Fib { result: FibResult::Type, flags: HashSet::from([FibFlag::Daddr]) }))
}

/// All values from the first to the last; one alone is itself.
#[must_use]
pub fn range(first: Expression<'static>, last: Expression<'static>) -> Expression<'static> {
    if first == last {
        return first;
    }
    Expression::Range(Box::new(Range { range: [first, last] }))
}

/// Any of several values, or ranges that do not touch.
#[must_use]
pub fn any_of(values: Vec<Expression<'static>>) -> Expression<'static> {
    Expression::Named(NamedExpression::Set(values.into_iter().map(SetItem::Element).collect()))
}

/// Goes to the chain that is noted for a key, and does not come back; goes on where there is none.
#[must_use]
pub fn dispatch(key: Expression<'static>, chains: Vec<(Expression<'static>, String)>) -> Statement<'static> {
    let items = chains.into_iter().map(|(value, chain)| SetItem::MappingStatement(value, goto(&chain)));
    Statement::VerdictMap(VerdictMap { key, data: Expression::Named(NamedExpression::Set(items.collect())) })
}

/// Goes to another chain and does not come back.
#[must_use]
pub fn goto(chain: &str) -> Statement<'static> {
    Statement::Goto(JumpTarget { target: chain.to_owned().into() })
}

/// Goes through another chain first.
#[must_use]
pub fn jump(chain: &str) -> Statement<'static> {
    Statement::Jump(JumpTarget { target: chain.to_owned().into() })
}

/// Back to where the jump was.
#[must_use]
pub fn back() -> Statement<'static> {
    Statement::Return(None)
}

/// Lets the packet pass.
#[must_use]
pub fn accept() -> Statement<'static> {
    Statement::Accept(Some(Accept {}))
}

/// Drops the packet without a word.
#[must_use]
pub fn drop() -> Statement<'static> {
    Statement::Drop(Some(Drop {}))
}

/// Drops a TCP packet and tells its sender that nobody listens. Unlike [`refuse`] it is not held
/// back when there are many.
#[must_use]
pub fn reset() -> Statement<'static> {
    Statement::Reject(Some(Reject::new(Some(RejectType::TCPReset), None)))
}

/// Drops the packet and tells its sender that it may not.
#[must_use]
pub fn refuse() -> Statement<'static> {
    Statement::Reject(Some(Reject::new(Some(RejectType::ICMPX), Some(RejectCode::AdminProhibited))))
}
