//! Commands in bundles, for the API: which container that is, and the helper that enters it.

use std::path::{Path, PathBuf};

use berth_model::resource::bundle::Phase;
use berth_model::resource::revision::serving;
use berth_model::resource::{Bundle, Revision};
use berth_model::session::Begin;
use futures_util::future::BoxFuture;

use crate::api::{Begun, CommandRequest, CommandsPort, PortError};
use crate::bundle::view::{container_id, container_of};
use crate::session::{CommandError, Session};
use crate::store::{ReadTx, Store, StoreError};

/// Where systemd listens for the helper, below the runtime directory.
pub(super) const SOCKET: &str = "exec.sock";
/// What the helper says of Berth's own failures, a container that is not running among them.
const OURS: u8 = 125;

/// The helper's socket as the API's way into containers.
pub struct Commands {
    store: Store,
    socket: PathBuf,
}

impl Commands {
    /// Bundles are looked up in `store`.
    pub fn new(store: Store, runtime: &Path) -> Self {
        Self { store, socket: runtime.join(SOCKET) }
    }

    async fn run(&self, request: CommandRequest) -> Result<Begun, PortError> {
        let id = self.container(&request).await?;
        let CommandRequest { command, terminal, input, user, .. } = request;
        let begin = Begin { id, command, terminal, input, user, env: Vec::new() };
        match Session::begin(&self.socket, begin).await {
            Ok(session) => Ok(Begun::Running(session)),
            Err(CommandError::Refused(refusal)) if refusal.code == OURS => Err(PortError::Request(refusal.message)),
            Err(CommandError::Refused(refusal)) => Ok(Begun::Refused(refusal)),
            Err(error) => Err(PortError::Failed(Box::new(error))),
        }
    }

    async fn container(&self, request: &CommandRequest) -> Result<String, PortError> {
        let (namespace, name) = (request.namespace.clone(), request.bundle.clone());
        let find = move |tx: &ReadTx<'_>| -> Result<_, StoreError> {
            let revisions = tx.list_about::<Revision>(&namespace, &name)?;
            Ok((tx.get::<Bundle>(&namespace, &name)?, serving(&revisions).map(container_id)))
        };
        let found = self.store.read(find).await;
        let (bundle, serves) = found.map_err(|error| PortError::Failed(Box::new(error)))?;
        let (namespace, name) = (&request.namespace, &request.bundle);
        let absent = || {
            PortError::Absent(format!("there is no bundle {namespace}/{name}; `berth status -A` lists what there is"))
        };
        let status = bundle.ok_or_else(absent)?.status.unwrap_or_default();
        let unit = status.unit.filter(|_| !matches!(status.phase, Phase::Stopped | Phase::Pending));
        // Right after an update the status still names the revision before.
        let id = unit.as_deref().and_then(container_of).map(|id| serves.unwrap_or_else(|| id.to_owned()));
        let down = || PortError::Request(format!("bundle {name} is not running; `berth start {name}` starts it"));
        id.ok_or_else(down)
    }
}

impl CommandsPort for Commands {
    fn begin(&self, request: CommandRequest) -> BoxFuture<'_, Result<Begun, PortError>> {
        Box::pin(self.run(request))
    }
}
