//! Speaks to a Berth server: the typed client, the watch, and the `berth` command on top.
//!
//! Flow: [`server`] decides which server is meant, and [`session`] and [`identity`] who asks there; [`request`] is one request as a plain value;
//! [`transport`] sends it, or prints it as a [`curl`] command; [`client`] gives the verbs their
//! types; [`watch`] keeps a list up to date; [`cli`] is what a person types. Nothing here knows
//! the daemon but by its API, and everything a person can do goes through [`client`].

pub mod channels;
pub mod cli;
pub mod client;
pub mod curl;
pub mod error;
pub mod identity;
pub mod kubeconfig;
pub mod pinned;
pub mod request;
pub mod resource;
pub mod server;
pub mod session;
pub mod transport;
pub mod watch;
pub mod yaml;

pub use client::Client;
pub use error::ClientError;
pub use request::Request;
pub use resource::ResourceType;
pub use server::Server;
