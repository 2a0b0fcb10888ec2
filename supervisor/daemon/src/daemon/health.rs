//! One look at a service, for real. Requests and connections go over the bridge to the container's own
//! address, as a client's would; a command runs inside, confined as the service is, by the helper.
//!
//! What answers is nobody we trust: redirects are not followed, of an answer only the head is read,
//! and of a command's output only its end is kept.

use std::path::{Path, PathBuf};

use berth_model::redact::AND_SAID;
use berth_model::resource::bundle::health::{ExecLook, HttpLook, Look, TcpLook};
use berth_model::session::Begin;
use reqwest::redirect::Policy;
use tokio::net::TcpStream;

use super::commands::SOCKET;
use crate::log::chain;
use crate::session::Session;

/// Bytes of a failed command's output that are told.
const TOLD: usize = 200;

/// Looks at services.
pub(super) struct Health {
    socket: PathBuf,
}

impl Health {
    /// The helper listens below `runtime`.
    pub(super) fn new(runtime: &Path) -> Self {
        Self { socket: runtime.join(SOCKET) }
    }

    /// What is wrong, in one line. The caller limits its time.
    pub(super) async fn look(&self, id: &str, address: &str, look: Look<'_>) -> Result<(), String> {
        match look {
            Look::Http(look) => http(address, look).await,
            Look::Tcp(look) => tcp(address, look).await,
            Look::Exec(look) => self.exec(id, look).await,
        }
    }

    async fn exec(&self, id: &str, look: &ExecLook) -> Result<(), String> {
        let begin = Begin { id: id.to_owned(), command: look.command.clone(), ..Begin::default() };
        let session = Session::begin(&self.socket, begin).await.map_err(|error| chain(&error))?;
        let (code, said) = session.finish(TOLD).await.map_err(|error| chain(&error))?;
        let said = String::from_utf8_lossy(&said);
        let last = said.trim().lines().next_back().unwrap_or_default();
        match (code, last) {
            (0, _) => Ok(()),
            (code, "") => Err(format!("the command ended with exit code {code}")),
            (code, last) => Err(format!("the command ended with exit code {code} {AND_SAID} {last}")),
        }
    }
}

async fn tcp(address: &str, look: &TcpLook) -> Result<(), String> {
    let connected = TcpStream::connect((address, look.port)).await;
    connected.map(drop).map_err(|error| format!("port {}: {error}", look.port))
}

/// A client per look: a connection kept open would be part of what is looked at. It trusts no authority, since it
/// speaks plain HTTP and reading those of the system would take longer than all the rest.
async fn http(address: &str, look: &HttpLook) -> Result<(), String> {
    let path = if look.path.is_empty() { "/" } else { &look.path };
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let url = format!("http://{host}:{}{path}", look.port);
    let client = reqwest::Client::builder().redirect(Policy::none()).no_proxy().user_agent("berth-health");
    let client = client.tls_certs_only([]).build();
    let answer = client.map_err(|error| chain(&error))?.get(&url).send().await;
    match answer.map_err(|error| format!("GET {path} on port {}: {}", look.port, chain(&error.without_url())))?.status()
    {
        code if code.is_success() || code.is_redirection() => Ok(()),
        code => Err(format!("GET {path} on port {} was answered {code}", look.port)),
    }
}
