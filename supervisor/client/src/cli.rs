//! What a person types. Each command is a file below; they share the [`Context`], which knows the
//! server, the namespace and how to print, and end in `Ok` or one [`Failure`], which alone knows
//! exit codes and how an error is told.
//!
//! Flow of a command that changes something: build a request, send it, follow the Operation that
//! answers it ([`follow`]) with progress on stderr, print the outcome on stdout.

mod account;
mod apply;
mod args;
mod audit;
mod bounded;
mod certificate;
mod changeset;
mod config;
mod delete;
mod describe;
mod device;
mod device_login;
mod diagnostics;
mod edit;
mod enrolment;
mod events;
mod exec;
mod failure;
mod follow;
mod get;
mod health;
mod image;
mod install;
mod invitation;
mod lifecycle;
mod local;
mod login;
mod logs;
mod manifest;
mod network;
mod operations;
mod output;
mod ports;
mod progress;
mod report;
mod revisions;
mod second_factor;
mod settings;
mod setup;
mod sheet;
mod shell;
mod status;
mod support;
mod system;
mod top;
mod values;
mod version;
mod versions;
mod views;
mod volume;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;

pub use args::Cli;
use args::{Command, Global};
pub use failure::Failure;
use output::Output;

use crate::client::Client;
use crate::error::ClientError;
use crate::resource::ResourceType;
use crate::server::Server;
use crate::transport::Transport;

/// What the commands take from outside: time and randomness.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// The time now.
    pub clock: fn() -> Timestamp,
    /// A new idempotency key.
    pub new_key: fn() -> String,
    /// Fills it with random bytes that nobody can guess.
    pub random: fn(&mut [u8]) -> std::io::Result<()>,
}

/// So long a command waits for work to end if nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// What every command is given.
struct Context {
    client: Client,
    /// What the machine is called, if somebody is logged in there.
    name: Option<String>,
    namespace: String,
    output: Output,
    wait: Option<bool>,
    timeout: Duration,
    surroundings: Surroundings,
}

/// Runs one command line and tells how it went.
pub fn main(cli: Cli, surroundings: Surroundings) -> ExitCode {
    // What needs no server.
    match &cli.command {
        Command::Completions { shell } => return ended(shell::completions(*shell)),
        Command::Manual { directory } => return ended(shell::manual(directory)),
        _ => {}
    }
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli, surroundings)),
        Err(source) => Err(Failure::Runtime(source)),
    };
    ended(outcome)
}

fn ended(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => tell(&failure),
    }
}

fn tell(failure: &Failure) -> ExitCode {
    let written = match failure {
        Failure::Client(ClientError::Printed(command)) => writeln!(std::io::stdout(), "{command}"),
        failure => write!(std::io::stderr(), "{}", failure.report()),
    };
    match written {
        Ok(()) => ExitCode::from(failure.exit_code()),
        Err(_) => ExitCode::FAILURE,
    }
}

async fn run(cli: Cli, surroundings: Surroundings) -> Result<(), Failure> {
    let context = Context::new(cli.global, surroundings).await?;
    match cli.command {
        Command::Install(args) => install::run(&context, args).await,
        Command::Start(args) => lifecycle::run(&context, lifecycle::START, &args).await,
        Command::Stop(args) => lifecycle::run(&context, lifecycle::STOP, &args).await,
        Command::Restart(args) => lifecycle::run(&context, lifecycle::RESTART, &args).await,
        Command::Uninstall(args) => lifecycle::uninstall(&context, &args).await,
        Command::Update(args) => lifecycle::update(&context, &args).await,
        Command::Rollback(args) => revisions::roll_back(&context, &args).await,
        Command::Revisions(args) => revisions::list(&context, &args).await,
        Command::Status(args) => status::run(&context, args).await,
        Command::Top(args) => top::run(&context, &args).await,
        Command::Logs(args) => logs::run(&context, &args).await,
        Command::Exec(args) => exec::run(&context, &args).await,
        Command::Get(args) => get::run(&context, args).await,
        Command::Describe(args) => describe::run(&context, &args).await,
        Command::Edit(args) => edit::run(&context, &args).await,
        Command::Apply(args) => apply::run(&context, &args).await,
        Command::ChangeSet(args) => changeset::run(&context, &args.command).await,
        Command::Delete(args) => delete::run(&context, &args).await,
        Command::Events(args) => events::run(&context, &args).await,
        Command::Operations(args) => operations::list(&context, &args).await,
        Command::Operation(args) => operations::run(&context, &args.command).await,
        Command::Secret(args) => values::secret(&context, args.command).await,
        Command::ConfigMap(args) => values::config_map(&context, args.command).await,
        Command::Image(args) => image::run(&context, args.command).await,
        Command::Network(args) => network::status(&context, args.command).await,
        Command::Policy(args) => network::debug(&context, args.command).await,
        Command::Dns(args) => network::look_up(&context, args.command).await,
        Command::Volume(args) => volume::run(&context, &args.command).await,
        Command::Claim(args) => login::claim(&context, args).await,
        Command::Login(args) => login::run(&context, &args).await,
        Command::Logout => login::logout(&context).await,
        Command::Whoami => account::who_am_i(&context).await,
        Command::CanI(args) => account::can_i(&context, &args).await,
        Command::User(args) => account::user(&context, args.command).await,
        Command::Invite(args) => invitation::invite(&context, args).await,
        Command::Accept(args) => invitation::accept(&context, args).await,
        Command::Invitation(args) => invitation::invitation(&context, args.command).await,
        Command::Role(args) => account::role(&context, args.command).await,
        Command::ApiKey(args) => account::api_key(&context, args.command).await,
        Command::Session(args) => account::session(&context, args.command).await,
        Command::Device(args) => device::run(&context, args.command).await,
        Command::Enrol(args) => enrolment::run(&context, args).await,
        Command::Ca(args) => certificate::run(&context, args).await,
        Command::Audit(args) => audit::run(&context, args.command).await,
        Command::Token(args) => account::token(&context, args).await,
        Command::Setup(args) => setup::run(&context, &args).await,
        Command::Diagnostics(args) => diagnostics::run(&context, &args).await,
        Command::SupportBundle(args) => support::run(&context, &args).await,
        Command::System(args) => system::run(&context, args.command).await,
        Command::Config(args) => config::run(&context, &args),
        Command::Version(args) => version::run(&context, &args).await,
        Command::Completions { shell } => shell::completions(shell),
        Command::Manual { directory } => shell::manual(&directory),
    }
}

impl Context {
    async fn new(global: Global, surroundings: Surroundings) -> Result<Self, Failure> {
        let server = match &global.context {
            None => Server::choose(global.server.as_deref(), global.token_file, global.ca)?
                .with_identity(global.certificate),
            Some(context) => login::server(context, surroundings.clock).await?,
        };
        let transport = match global.curl {
            true => Transport::printing(server),
            false => Transport::new(server)?,
        };
        Ok(Self {
            client: Client::new(transport),
            name: global.context,
            namespace: global.namespace,
            output: global.output,
            wait: if global.wait { Some(true) } else { global.no_wait.then_some(false) },
            timeout: global.timeout.unwrap_or(DEFAULT_TIMEOUT),
            surroundings,
        })
    }

    fn now(&self) -> Timestamp {
        (self.surroundings.clock)()
    }

    fn new_key(&self) -> String {
        (self.surroundings.new_key)()
    }

    /// Whether requests are printed instead of sent.
    fn is_printing(&self) -> bool {
        self.client.transport().is_printing()
    }

    /// A client that asks, though requests are printed: for what the request to print is made from.
    fn reader(&self) -> Result<Client, Failure> {
        Ok(Client::new(self.client.transport().sending()?))
    }

    /// The type a person means by a word; one this client does not know is asked of the server.
    async fn kind(&self, word: &str) -> Result<ResourceType, Failure> {
        let known = ResourceType::by_word(word);
        let unknown = || Failure::Usage(format!("there is no kind {word:?}; try bundles, operations, configmaps"));
        if known.is_some() || self.is_printing() {
            return known.ok_or_else(unknown);
        }
        let means = |name: &str| name.eq_ignore_ascii_case(word);
        for group in ["v1", "berth.dev/v1", "networking.k8s.io/v1"] {
            let found = self.client.discover(group, |one| means(&one.name) || means(&one.kind)).await?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(unknown())
    }

    /// Writes a line, or several, to stdout.
    fn say(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        write!(out, "{text}{end}").and_then(|()| out.flush()).map_err(Failure::Output)
    }

    /// Writes a line to stderr, for people.
    fn note(&self, text: &str) -> Result<(), Failure> {
        writeln!(std::io::stderr(), "{text}").map_err(Failure::Output)
    }

    /// A person is reading what is said.
    fn shows_on_terminal(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    /// A person is watching the progress.
    fn on_terminal(&self) -> bool {
        std::io::stderr().is_terminal()
    }
}
