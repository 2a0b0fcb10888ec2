//! How a command can fail, what is said about it, and with which code it ends.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use berth_model::resource::operation::OperationError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause};

use crate::error::{ClientError, chain};
use crate::server::ServerError;
use crate::yaml::YamlError;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The server's address makes no sense.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The server refused, or did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] YamlError),
    /// A local file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Local files cannot be written.
    #[error("cannot write into {}", path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A step of setting the machine up failed.
    #[error("{what}: {why}")]
    Step {
        /// What it is for.
        what: String,
        /// What systemd says.
        why: String,
        /// What the unit wrote last.
        words: Vec<String>,
        /// The unit.
        unit: String,
    },
    /// A file that was to be made cannot be.
    #[error("cannot make {}", path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The record of who did what is not as it was written.
    #[error("the audit records are not whole")]
    Tampered(Vec<String>),
    /// It is not allowed, as the server says.
    #[error("{0}")]
    Denied(String),
    /// The session of a context cannot be read or kept.
    #[error("the session of {context} cannot be used")]
    Session {
        /// The context.
        context: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The client certificate of a context has ended.
    #[error("the certificate of {context} ended {at}")]
    Expired {
        /// The context.
        context: String,
        /// When.
        at: jiff::Timestamp,
    },
    /// Who answers is not the machine that was meant.
    #[error("who answers at {0} is not the machine that made this token; it was not sent")]
    Impostor(String),
    /// A text is too long for a QR code.
    #[error("cannot draw the code")]
    Code(#[source] berth_model::qr::QrError),
    /// A key cannot be made.
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    /// Nobody is logged in there.
    #[error("nobody is logged in at {0}")]
    NoSession(String),
    /// The editor did not run, or ended badly.
    #[error("cannot edit with {editor:?}")]
    Editor {
        /// As it was asked for.
        editor: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was edited was not taken.
    #[error("{source}")]
    Edited {
        /// Where the changes still are.
        kept: PathBuf,
        /// Why.
        source: Box<Failure>,
    },
    /// A local file is longer than anything that would be taken.
    #[error("{} is longer than {limit} bytes", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
        /// Bytes.
        limit: u64,
    },
    /// Something else is there under this name.
    #[error("{what} exists already, and differs in {fields}")]
    Differs {
        /// The object.
        what: String,
        /// Where it differs.
        fields: String,
        /// How to have it after all.
        instead: String,
    },
    /// An operation ended badly.
    #[error("{} failed: {}", .operation, .error.message)]
    Operation {
        /// Its name.
        operation: String,
        /// What it says.
        error: Box<OperationError>,
    },
    /// An operation was overtaken by a later wish, or cancelled by somebody.
    #[error("{what} was cancelled: {why}")]
    Cancelled {
        /// The operation.
        what: String,
        /// By whom.
        why: String,
    },
    /// It was to be cancelled, and came to its end.
    #[error("{0} was done before it could be cancelled")]
    TooLate(String),
    /// A service is not ready and will not become so by itself.
    #[error("{what} is not ready: {message}")]
    NotReady {
        /// The service.
        what: String,
        /// The reason of its condition.
        reason: String,
        /// Its message.
        message: String,
        /// What to do.
        instead: String,
    },
    /// Waited long enough.
    #[error("{what} is not done after {seconds} s")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// How to go on.
        instead: String,
    },
    /// The person pressed Ctrl-C.
    #[error("stopped waiting; {what} goes on")]
    Interrupted {
        /// What goes on.
        what: String,
        /// How to go on watching.
        instead: String,
    },
    /// A command in a service ended with this code; it has said itself what there is to say.
    #[error("the command ended with exit code {0}")]
    Ended(u8),
    /// A command in a service did not run, or not to its end.
    #[error("{message}")]
    NotRun {
        /// 126 and 127 as a shell has them, else 1.
        code: u8,
        /// Why.
        message: String,
    },
    /// The connection to a command broke.
    #[error("the connection to the command broke; whether it goes on, the server decides")]
    Connection(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    /// The terminal or standard input cannot be used.
    #[error("cannot use standard input")]
    Input(#[source] io::Error),
    /// Some of several things failed; each has been told.
    #[error("{0}")]
    Several(String, u8),
    /// Stdout or stderr cannot be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// The system gives no randomness.
    #[error("cannot draw a random value")]
    Random(#[source] io::Error),
    /// The program itself cannot be set up.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

/// What is said: a code, a sentence, one line per field, one line per advice.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    code: String,
    message: String,
    fields: Vec<String>,
    advice: Vec<String>,
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Server(_) => 2,
            Self::Client(error) => client_code(error),
            Self::Denied(_) | Self::NoSession(_) | Self::Expired { .. } => 4,
            Self::Differs { .. } | Self::TooLate(_) => 5,
            Self::Operation { error, .. } if error.code.contains("Conflict") => 5,
            Self::TimedOut { .. } => 6,
            Self::Interrupted { .. } => 130,
            Self::Edited { source, .. } => source.exit_code(),
            Self::Several(_, code) | Self::Ended(code) | Self::NotRun { code, .. } => *code,
            // Whoever reads our output has seen enough, e.g. `head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            _ => 1,
        }
    }

    /// The whole text for stderr, each thing said once.
    pub fn report(&self) -> String {
        let silent = match self {
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Ended(_) => true,
            _ => false,
        };
        if silent {
            return String::new();
        }
        self.told().render()
    }

    fn told(&self) -> Told {
        match self {
            Self::Client(ClientError::Refused(status)) => refused(status),
            Self::Client(error) => Told::new(client_name(error), with_root(error)).advise(client_advice(error)),
            Self::Usage(message) => Told::new("Usage", message.clone()).advise("see `berth --help`"),
            Self::Server(error) => Told::new("Usage", with_root(error)),
            Self::Manifest(error) => Told::new("Manifest", with_root(error)),
            Self::Differs { instead, .. } => Told::new("AlreadyExists", self.to_string()).advise(instead),
            Self::Operation { operation, error } => failed(operation, error),
            Self::NotReady { reason, instead, .. } => Told::new(reason, self.to_string()).advise(instead),
            Self::TimedOut { instead, .. } => Told::new("Timeout", self.to_string()).advise(instead),
            Self::Interrupted { instead, .. } => Told::new("Interrupted", self.to_string()).advise(instead),
            Self::Tampered(problems) => {
                let told = Told { fields: problems.clone(), ..Told::new("Tampered", self.to_string()) };
                told.advise("keep a copy (`berth audit export`), and compare it with one from elsewhere")
            }
            Self::Denied(_) => Told::new("Forbidden", self.to_string()),
            Self::NoSession(context) => {
                let advice = format!("berth login --server https://HOST:6443 --name {context}");
                Told::new("Unauthorized", self.to_string()).advise(&advice)
            }
            Self::Impostor(_) => Told::new("Untrusted", self.to_string())
                .advise("look whether the address is right, and have another token made: `berth token --qr`"),
            Self::Expired { .. } => {
                let advice = "have another one made: `berth ca NAME`, logged in or as root on the machine";
                Told::new("Unauthorized", self.to_string()).advise(advice)
            }
            Self::TooLate(_) => Told::new("Conflict", self.to_string()).advise("see `berth operations`"),
            Self::Cancelled { .. } => Told::new("Cancelled", self.to_string()).advise("see `berth operations`"),
            Self::Step { words, unit, .. } => {
                let told = Told { fields: words.clone(), ..Told::new("Setup", self.to_string()) };
                told.advise(&format!("`systemctl status {unit}`, and then the same command again"))
            }
            Self::Several(message, _) => Told::new("Failed", message.clone()),
            Self::Ended(_) | Self::NotRun { .. } => Told::new("Failed", self.to_string()),
            Self::Connection(_) => Told::new("Interrupted", with_root(self)),
            Self::Edited { kept, source } => {
                source.told().advise(&format!("what you wrote is kept in {}", kept.display()))
            }
            Self::TooLong { .. } => {
                Told::new("TooLong", self.to_string()).advise("send less at once, or put large files into a volume")
            }
            Self::Input(_)
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Create { .. }
            | Self::Editor { .. }
            | Self::Session { .. }
            | Self::Random(_)
            | Self::Key(_)
            | Self::Code(_)
            | Self::Output(_)
            | Self::Runtime(_) => Told::new("Local", with_root(self)),
        }
    }
}

impl Told {
    fn new(code: &str, message: String) -> Self {
        Self { code: code.to_owned(), message, ..Self::default() }
    }

    fn advise(mut self, advice: &str) -> Self {
        if !advice.is_empty() {
            self.advice.push(advice.to_owned());
        }
        self
    }

    fn render(&self) -> String {
        let mut text = format!("error [{}]: {}\n", self.code, self.message);
        let fields = self.fields.iter().map(|field| format!("  {field}\n"));
        let advice = self.advice.iter().map(|advice| format!("  try: {advice}\n"));
        text.extend(fields.chain(advice));
        text
    }
}

/// The server's message often speaks of the fields already; then they are not said again.
fn refused(status: &Status) -> Told {
    let message = crate::error::told(status);
    let code = status.code.map(|code| code.to_string());
    let words: Vec<String> = code.into_iter().chain(status.reason.clone()).collect();
    let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    let fields = causes.filter(|cause| !holds(&message, cause)).map(cause_line).collect();
    let told = Told { code: words.join(" "), message, fields, advice: Vec::new() };
    match status.code {
        Some(401) => {
            told.advise("log in with `berth login`, name the file that holds a token with --token-file, or run it on the machine as root")
        }
        _ => told,
    }
}

fn holds(message: &str, cause: &StatusCause) -> bool {
    let said = cause.message.as_deref().unwrap_or_default();
    match cause.field.as_deref().filter(|field| !field.is_empty()) {
        Some(field) => message.contains(field),
        None => message.contains(said),
    }
}

fn cause_line(cause: &StatusCause) -> String {
    let parts = [cause.field.as_deref(), cause.message.as_deref().or(cause.reason.as_deref())];
    let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    parts.join(": ")
}

fn failed(operation: &str, error: &OperationError) -> Told {
    let fields = error.detail.lines().filter(|line| !error.message.contains(line)).map(str::to_owned).collect();
    let mut advice = error.suggestions.clone();
    advice.push(format!("berth operation show {operation}"));
    Told { code: error.code.clone(), message: error.message.clone(), fields, advice }
}

fn client_code(error: &ClientError) -> u8 {
    match (error, error.code()) {
        (ClientError::Printed(_), _) => 0,
        (ClientError::NotForYou { .. }, _) | (_, Some(401 | 403)) => 4,
        (_, Some(404)) => 3,
        (_, Some(409)) => 5,
        (_, Some(408 | 504)) => 6,
        _ => 1,
    }
}

fn client_name(error: &ClientError) -> &'static str {
    match error {
        ClientError::Refused(_) | ClientError::Printed(_) => "Server",
        ClientError::Unreachable { .. } => "Unreachable",
        ClientError::NotForYou { .. } => "Denied",
        ClientError::Untrusted { .. } => "Untrusted",
        ClientError::Interrupted { .. } => "Interrupted",
        ClientError::Malformed { .. } => "Malformed",
        ClientError::File { .. }
        | ClientError::Token(_)
        | ClientError::Identity { .. }
        | ClientError::Bootstrap
        | ClientError::Tls(_)
        | ClientError::Setup { .. } => "Local",
    }
}

fn client_advice(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreachable { server, .. } if server.starts_with("unix:") => {
            "`systemctl status berthd` on this machine; for another machine give --server, --token-file and --ca"
        }
        ClientError::Unreachable { .. } => {
            "check the address and, on that machine, `systemctl status berthd`; a firewall may stand between"
        }
        ClientError::NotForYou { .. } => "run it as root, or give --server, --token-file and --ca",
        ClientError::Untrusted { .. } => {
            "give the server's own authority with --ca; on its machine that is /var/lib/berth/ca.crt"
        }
        ClientError::Interrupted { .. } => "the same again; `systemctl status berthd` tells whether it restarted",
        ClientError::Malformed { .. } => "compare `berth version` on both sides; the address may be of another server",
        ClientError::Identity { .. } => "the file must hold a private key and its certificate, both as PEM",
        ClientError::Token(_) => "the file must hold the token and nothing else",
        _ => "",
    }
}

/// The sentence and the deepest cause; what lies between says only which library passed it on.
fn with_root(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    let root = chain(error).last().map(ToString::to_string);
    match root.filter(|root| !text.contains(root.as_str())) {
        Some(root) => format!("{text}: {root}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusDetails;

    use super::*;

    fn status(code: i32, reason: &str, message: &str, causes: &[(&str, &str)]) -> Failure {
        let cause = |(field, message): &(&str, &str)| StatusCause {
            field: Some((*field).to_owned()),
            message: Some((*message).to_owned()),
            reason: Some("FieldValueInvalid".to_owned()),
        };
        let details = StatusDetails { causes: Some(causes.iter().map(cause).collect()), ..StatusDetails::default() };
        Failure::Client(ClientError::Refused(Box::new(Status {
            code: Some(code),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            details: Some(details),
            ..Status::default()
        })))
    }

    #[test]
    fn the_servers_words_are_said_once_with_each_field() {
        let causes = [("spec.image", "must be given"), ("spec.ports[0].name", "`A` is no label")];
        let failure = status(422, "Invalid", "Bundle \"web\" is invalid", &causes);
        assert_eq!(
            failure.report(),
            "error [422 Invalid]: Bundle \"web\" is invalid\n  spec.image: must be given\n  \
             spec.ports[0].name: `A` is no label\n"
        );
    }

    #[test]
    fn a_cause_that_the_message_holds_is_not_said_again() {
        let failure = status(422, "Invalid", "invalid: spec.image: must be given", &[("spec.image", "must be given")]);
        assert_eq!(failure.report(), "error [422 Invalid]: invalid: spec.image: must be given\n");
        let message = "Bundle has unknown field \"spec.imgae\"; correct the spelling";
        let failure = status(400, "BadRequest", message, &[("spec.imgae", "is not known")]);
        assert_eq!(failure.report().lines().count(), 1);
    }

    #[test]
    fn exit_codes_tell_the_kinds_of_failure_apart() {
        let codes = [(400, 1), (401, 4), (403, 4), (404, 3), (409, 5), (422, 1), (500, 1), (503, 1), (504, 6)];
        for (http, exit) in codes {
            assert_eq!(status(http, "X", "x", &[]).exit_code(), exit, "{http}");
        }
        assert_eq!(Failure::Usage("x".into()).exit_code(), 2);
    }

    #[test]
    fn a_failed_operation_says_what_to_do() {
        let error = OperationError {
            code: "WorkloadFailed".into(),
            message: "the image cannot be pulled".into(),
            detail: "registry:5000 answered 404".into(),
            suggestions: vec!["check the tag".into()],
            retryable: false,
        };
        let failure = Failure::Operation { operation: "install-web-1".into(), error: Box::new(error) };
        assert_eq!(
            failure.report(),
            "error [WorkloadFailed]: the image cannot be pulled\n  registry:5000 answered 404\n  \
             try: check the tag\n  try: berth operation show install-web-1\n"
        );
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let failure = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((failure.exit_code(), failure.report()), (0, String::new()));
    }
}
