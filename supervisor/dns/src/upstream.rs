//! Names of others: asked of the machine's own resolvers, also when those are on loopback, since this
//! process lives in the machine's network.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hickory_resolver::config::{ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Resolver, TokioResolver};
use tokio::sync::Semaphore;
use tracing::warn;

/// Questions to others at a time; one more is answered with a failure.
const AT_ONCE: usize = 256;
/// Answers remembered.
const REMEMBERED: u64 = 4096;

/// The machine's resolvers cannot be had.
#[derive(Debug, thiserror::Error)]
enum ResolversError {
    #[error("reading {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("understanding {}", path.display())]
    Format {
        path: PathBuf,
        #[source]
        source: NetError,
    },
}

/// What others say.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
}

impl Said {
    pub(crate) fn nothing(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authorities: Vec::new() }
    }
}

/// The machine's resolvers, read again when their file is another one.
pub(crate) struct Upstream {
    file: PathBuf,
    known: Mutex<Option<(SystemTime, Arc<TokioResolver>)>>,
    room: Semaphore,
}

impl Upstream {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file, known: Mutex::new(None), room: Semaphore::new(AT_ONCE) }
    }

    /// What others say of a name. Failures are answers, too.
    pub(crate) async fn ask(&self, mut name: Name, kind: RecordType) -> Said {
        let Ok(_place) = self.room.try_acquire() else { return Said::nothing(ResponseCode::ServFail) };
        let resolver = match self.resolver() {
            Ok(resolver) => resolver,
            Err(failure) => {
                warn!(error = &failure as &dyn Error, "names outside cannot be looked up");
                return Said::nothing(ResponseCode::ServFail);
            }
        };
        // No search list of the machine's: the asker has its own.
        name.set_fqdn(true);
        match resolver.lookup(name, kind).await {
            Ok(found) => Said { answers: found.answers().to_vec(), ..Said::nothing(ResponseCode::NoError) },
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => Said {
                code: nothing.response_code,
                answers: Vec::new(),
                authorities: nothing.soa.map(|soa| (*soa).into_record_of_rdata()).into_iter().collect(),
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Said::nothing(code),
            Err(_) => Said::nothing(ResponseCode::ServFail),
        }
    }

    fn resolver(&self) -> Result<Arc<TokioResolver>, ResolversError> {
        let failed = |source| ResolversError::Read { path: self.file.clone(), source };
        let written = std::fs::metadata(&self.file).and_then(|about| about.modified()).map_err(failed)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, resolver)) = known.as_ref().filter(|(at, _)| *at == written) {
            return Ok(Arc::clone(resolver));
        }
        let resolver = Arc::new(self.read()?);
        *known = Some((written, Arc::clone(&resolver)));
        Ok(resolver)
    }

    fn read(&self) -> Result<TokioResolver, ResolversError> {
        let text = std::fs::read(&self.file);
        let text = text.map_err(|source| ResolversError::Read { path: self.file.clone(), source })?;
        let failed = |source| ResolversError::Format { path: self.file.clone(), source };
        let (config, mut options) = parse_resolv_conf(text).map_err(failed)?;
        options.cache_size = REMEMBERED;
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = true;
        let config = ResolverConfig::from_parts(None, Vec::new(), config.name_servers().to_vec());
        let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.with_options(options).build().map_err(failed)
    }
}
