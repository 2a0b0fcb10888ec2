//! Short names for the expressions and statements that most rules are made of.

use std::net::IpAddr;

use nftables::expr::{self, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix};
use nftables::stmt::{Match, Operator, Statement};

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
