//! What the operator may set before the daemon starts: flag > environment > file > default.
//!
//! ```text
//! clap (flag, then environment)  ──┐
//! /etc/berth/berthd.toml         ──┼─> Config, complete and checked
//! defaults                       ──┘
//! ```
//!
//! The file is optional; an unknown key in it is an error that names its line. Everything an
//! administrator may change while Berth runs is a resource instead.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_model::allocation::{BadPool, Pool};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

/// Where the file is looked for unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/berth/berthd.toml";

/// The command line of `berthd`.
#[derive(Debug, Parser)]
#[command(name = "berthd", version, about = "The Berth supervisor")]
pub struct CommandLine {
    /// What to do; without it the daemon runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings by flag and environment.
    #[command(flatten)]
    pub settings: Settings,
}

/// What `berthd` can do besides running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Make what the first start needs: certificate authority, master key, owner token. Repeatable.
    Setup,
}

/// Settings given by flag or environment; absent ones come from the file or are defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Settings {
    /// Configuration file; an absent default file is no error.
    #[arg(long, env = "BERTH_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Address and port of the HTTPS API.
    #[arg(long, env = "BERTH_LISTEN", global = true)]
    pub listen: Option<SocketAddr>,
    /// Directory of the database, images and keys.
    #[arg(long, env = "BERTH_DATA", global = true)]
    pub data: Option<PathBuf>,
    /// Directory of the API socket and of plans.
    #[arg(long, env = "BERTH_RUNTIME", global = true)]
    pub runtime: Option<PathBuf>,
    /// What is logged, as `level` or `target=level,...`.
    #[arg(long, env = "BERTH_LOG_LEVEL", global = true)]
    pub log_level: Option<String>,
    /// Where the log goes and how it looks.
    #[arg(long, env = "BERTH_LOG_FORMAT", global = true)]
    pub log_format: Option<LogFormat>,
    /// Seconds between two looks at a resource that did not change.
    #[arg(long, env = "BERTH_RECONCILE_INTERVAL", global = true)]
    pub reconcile_interval: Option<u64>,
    /// Private /16 that the networks of namespaces are taken from.
    #[arg(long, env = "BERTH_NETWORK_POOL", global = true)]
    pub network_pool: Option<Pool>,
}

/// Where the log goes and how it looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// To the journal, with fields.
    #[default]
    Journal,
    /// Lines for people on standard error.
    Text,
    /// One JSON object per line on standard error.
    Json,
}

/// Everything the daemon is told before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address and port of the HTTPS API.
    pub listen: SocketAddr,
    /// Directory of the database, images and keys.
    pub data: PathBuf,
    /// Directory of the API socket and of plans.
    pub runtime: PathBuf,
    /// What is logged.
    pub log_level: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Between two looks at a resource that did not change.
    pub reconcile_interval: Duration,
    /// What the networks of namespaces are taken from.
    pub network_pool: Pool,
}

impl Config {
    /// Merges flags and environment with the file and the defaults.
    ///
    /// # Errors
    /// A file that was named and is absent, a file that is not understood, a setting out of range.
    pub fn load(settings: &Settings) -> Result<Self, ConfigError> {
        let file = match &settings.config {
            Some(path) => read(path)?.ok_or_else(|| ConfigError::Absent { path: path.clone() })?,
            None => read(Path::new(DEFAULT_FILE))?.unwrap_or_default(),
        };
        merge(settings, file)
    }

    /// The API on a unix socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("api.sock")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.data.join("berth.db")
    }

    /// Everything that must stay secret, readable by root alone.
    pub fn keys(&self) -> PathBuf {
        self.data.join("keys")
    }

    /// The owner's token.
    pub fn token(&self) -> PathBuf {
        self.data.join("token")
    }
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    data: Option<PathBuf>,
    runtime: Option<PathBuf>,
    reconcile_interval: Option<u64>,
    #[serde(default)]
    log: Log,
    #[serde(default)]
    network: Network,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    pool: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    level: Option<String>,
    format: Option<LogFormat>,
}

fn read(path: &Path) -> Result<Option<File>, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ConfigError::Read { path: path.to_path_buf(), source }),
    };
    parse(path, &text).map(Some)
}

fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let before = text.get(..offset).unwrap_or(text);
        ConfigError::Understand {
            path: path.to_path_buf(),
            line: before.matches('\n').count() + 1,
            message: error.message().to_owned(),
        }
    })
}

fn merge(settings: &Settings, file: File) -> Result<Config, ConfigError> {
    let seconds = settings.reconcile_interval.or(file.reconcile_interval).unwrap_or(30);
    if !(1..=3600).contains(&seconds) {
        return Err(ConfigError::Interval { seconds });
    }
    // What a flag overrules need not be right.
    let network_pool = match (settings.network_pool, file.network.pool) {
        (Some(pool), _) => pool,
        (None, Some(text)) => text.parse().map_err(ConfigError::Pool)?,
        (None, None) => Pool::default(),
    };
    let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 6443));
    Ok(Config {
        listen: settings.listen.or(file.listen).unwrap_or(any),
        data: settings.data.clone().or(file.data).unwrap_or_else(|| "/var/lib/berth".into()),
        runtime: settings.runtime.clone().or(file.runtime).unwrap_or_else(|| "/run/berth".into()),
        log_level: settings.log_level.clone().or(file.log.level).unwrap_or_else(|| "info".into()),
        log_format: settings.log_format.or(file.log.format).unwrap_or_default(),
        reconcile_interval: Duration::from_secs(seconds),
        network_pool,
    })
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named is not there.
    #[error("the configuration file {} does not exist; create it or leave --config out", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("reading the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something unknown or malformed.
    #[error("{}, line {line}: {message}", path.display())]
    Understand {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// The reconcile interval is out of range.
    #[error("reconcile_interval is {seconds} s; use 1 to 3600")]
    Interval {
        /// What was asked for.
        seconds: u64,
    },
    /// The pool of addresses cannot be used.
    #[error("`pool` below [network]")]
    Pool(#[source] BadPool),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<File, ConfigError> {
        parse(Path::new("berthd.toml"), text)
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = merge(&Settings::default(), parsed("").unwrap()).unwrap();
        assert_eq!(config.listen.to_string(), "[::]:6443");
        assert_eq!(config.socket(), Path::new("/run/berth/api.sock"));
        assert_eq!(config.database(), Path::new("/var/lib/berth/berth.db"));
        assert_eq!(config.reconcile_interval, Duration::from_secs(30));
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = parsed("listen = '127.0.0.1:1'\n[log]\nlevel = 'debug'\nformat = 'json'").unwrap();
        let flags = Settings { listen: Some("127.0.0.1:2".parse().unwrap()), ..Settings::default() };
        let config = merge(&flags, file).unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!((config.log_level.as_str(), config.log_format), ("debug", LogFormat::Json));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let error = parsed("listen = '127.0.0.1:1'\n\nlisten_port = 3\n").unwrap_err().to_string();
        assert!(error.starts_with("berthd.toml, line 3: unknown field `listen_port`"), "{error}");
    }

    #[test]
    fn a_key_of_the_wrong_type_is_an_error_with_its_line() {
        let error = parsed("# why\n[log]\nlevel = 3\n").unwrap_err().to_string();
        assert!(error.starts_with("berthd.toml, line 3: "), "{error}");
    }

    #[test]
    fn a_named_file_that_is_absent_is_an_error() {
        let settings = Settings { config: Some("/nonexistent/berthd.toml".into()), ..Settings::default() };
        assert!(matches!(Config::load(&settings), Err(ConfigError::Absent { .. })));
    }

    #[test]
    fn an_interval_out_of_range_is_refused() {
        let error = merge(&Settings::default(), parsed("reconcile_interval = 0").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "reconcile_interval is 0 s; use 1 to 3600");
    }

    #[test]
    fn the_pool_of_addresses_is_set_by_flag_or_file_and_a_bad_one_is_refused() {
        let of = |flag: Option<&str>, text: &str| {
            let settings = Settings { network_pool: flag.map(|text| text.parse().unwrap()), ..Settings::default() };
            merge(&settings, parsed(text).unwrap()).map(|config| config.network_pool.to_string())
        };
        let file = "[network]\npool = '172.20.0.0/16'";
        assert_eq!(of(None, "").unwrap(), "10.213.0.0/16");
        assert_eq!(of(None, file).unwrap(), "172.20.0.0/16");
        assert_eq!(of(Some("10.7.0.0/16"), file).unwrap(), "10.7.0.0/16");
        let error = of(None, "[network]\npool = '10.213.0.0/24'").unwrap_err();
        let said = crate::log::chain(&error);
        assert!(said.starts_with("`pool` below [network]: `10.213.0.0/24` is not as large"), "{said}");
        let line = ["berthd", "--network-pool", "8.8.0.0/16"];
        let said = CommandLine::try_parse_from(line).unwrap_err().to_string();
        assert!(said.contains("--network-pool") && said.contains("is no private network"), "{said}");
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
        let line = CommandLine::parse_from(["berthd", "setup", "--data", "/tmp/x"]);
        assert_eq!(line.command, Some(Command::Setup));
        assert_eq!(line.settings.data.as_deref(), Some(Path::new("/tmp/x")));
    }
}
