//! With git itself on the other side, behind TLS and a password.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_model::kinds::SECRET;
use berth_model::resource::settings::{GitMirror, SecretName};
use berth_tests::spawn::{command, output, start};
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ring::rand::SystemRandom;

use super::super::git::Git;
use super::*;
use crate::audit::Notary;
use crate::secret::{MasterKey, Sealer};

/// git's own server, for whoever knows the password.
struct Server {
    repositories: PathBuf,
    address: SocketAddr,
    authority: String,
}

impl Server {
    async fn new(folder: &Path) -> Self {
        let repositories = folder.join("repositories");
        git(folder, &["init", "--quiet", "--bare", "--initial-branch=main", "repositories/audit"]);
        git(folder, &["-C", "repositories/audit", "config", "http.receivepack", "true"]);
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = authority.self_signed(&key).unwrap().pem();
        let acceptor = acceptor(&Issuer::new(authority, key));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(repositories.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let serving = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                        serving.serve_connection(TokioIo::new(stream), service).await.ok();
                    }
                });
            }
        });
        Self { repositories, address, authority: pem }
    }

    fn mirror(&self) -> GitMirror {
        GitMirror {
            url: format!("https://{}/audit", self.address),
            branch: "main".into(),
            secret: SecretName { namespace: "default".into(), name: "git".into() },
            authority: Some(self.authority.clone()),
        }
    }

    /// What git says of the repository.
    fn says(&self, words: &[&str]) -> String {
        git(&self.repositories.join("audit"), words)
    }

    /// All lines of records, in the order of their files.
    fn lines(&self) -> Vec<String> {
        let files = self.says(&["ls-tree", "-r", "--name-only", "main"]);
        let files = files.lines().filter(|file| file.ends_with(".jsonl"));
        let lines = files.flat_map(|file| {
            let text = self.says(&["show", &format!("main:{file}")]);
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        });
        lines.collect()
    }

    /// Somebody else's work on the branch: he clones it, does this, and pushes it by force.
    fn others(&self, script: &str) {
        let folder = tempfile::tempdir().unwrap();
        let origin = self.repositories.join("audit").to_string_lossy().into_owned();
        git(folder.path(), &["clone", "--quiet", &origin, "."]);
        let script = format!("set -e; git config user.name Olivia; git config user.email o@example; {script}");
        output(command("sh").args(["-c", &script]).current_dir(folder.path())).unwrap();
        git(folder.path(), &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    }
}

fn git(folder: &Path, words: &[&str]) -> String {
    String::from_utf8(output(command("git").args(words).current_dir(folder)).unwrap()).unwrap()
}

fn acceptor(signed_by: &Issuer<'_, KeyPair>) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let chain = vec![params.signed_by(&key, signed_by).unwrap().der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    TlsAcceptor::from(Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

/// As web servers call git: the request in the environment, heads before an empty line.
async fn answer(State(repositories): State<PathBuf>, request: Request) -> Response {
    let head = request.headers().clone();
    let of =
        |name| head.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default().to_owned();
    if of(AUTHORIZATION) != format!("Basic {}", STANDARD.encode("box:let me in")) {
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Basic realm=git")]).into_response();
    }
    let (method, uri) = (request.method().to_string(), request.uri().clone());
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let mut backend = command("git");
    backend.arg("http-backend").stdin(Stdio::piped()).stdout(Stdio::piped());
    backend.env("GIT_PROJECT_ROOT", &repositories).env("GIT_HTTP_EXPORT_ALL", "1").env("REMOTE_USER", "box");
    backend.env("REQUEST_METHOD", method).env("PATH_INFO", uri.path());
    backend.env("QUERY_STRING", uri.query().unwrap_or_default()).env("CONTENT_TYPE", of(CONTENT_TYPE));
    backend.env("CONTENT_LENGTH", body.len().to_string());
    tokio::task::spawn_blocking(move || said(&mut backend, &body)).await.unwrap()
}

fn said(backend: &mut std::process::Command, body: &[u8]) -> Response {
    let mut child = start(backend).unwrap();
    child.stdin.take().unwrap().write_all(body).unwrap();
    let said = child.wait_with_output().unwrap().stdout;
    let end = said.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let mut answer = Response::new(axum::body::Body::from(Bytes::copy_from_slice(&said[end + 4..])));
    for line in String::from_utf8_lossy(&said[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        match name {
            "Status" => *answer.status_mut() = value[..3].parse().unwrap(),
            _ => drop(answer.headers_mut().insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap())),
        }
    }
    answer
}

impl World {
    fn git(&self) -> Mirror<Git> {
        let path = self.dir.path();
        std::fs::create_dir_all(path.join("keys")).unwrap();
        let sealer = Sealer::open(&path.join("keys"), MasterKey::from_bytes(&[7; 32]), Arc::new(SystemRandom::new()));
        let git = Git {
            folder: path.to_owned(),
            hostname: "box".into(),
            sealer,
            notary: Arc::new(Notary::open(path).unwrap()),
            clock: Arc::new(|| "2026-03-01T12:00:00Z".parse().unwrap()),
        };
        Mirror(git, Records { store: self.store.clone() })
    }

    async fn push_to(&self, git: GitMirror, password: &str) {
        let data = [("username", "box"), ("password", password)];
        let data: BTreeMap<_, _> =
            data.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec()))).into();
        let sealer = self.git().0.sealer;
        let write = move |tx: &mut Tx<'_>| {
            // Values are sealed for the uid that the store gives.
            if tx.get_value(&SECRET, "default", "git")?.is_none() {
                let metadata =
                    ObjectMeta { namespace: Some("default".into()), name: Some("git".into()), ..ObjectMeta::default() };
                tx.create(&Secret { metadata, ..Secret::default() })?;
            }
            let mut secret = tx.get::<Secret>("default", "git")?.unwrap();
            secret.data = Some(data);
            let mut secret = serde_json::to_value(secret).unwrap();
            sealer.seal_object(SECRET.sealed, &mut secret, None).unwrap();
            tx.update_value(&SECRET, secret)?;
            let mut settings = tx.get::<Settings>("", settings::NAME)?.unwrap();
            settings.spec.audit.mirror.git = Some(git);
            tx.update(&settings).map(drop)
        };
        self.store.write(&Actor::default(), write).await.unwrap();
    }

    async fn exported(&self) -> Vec<String> {
        let links = self.store.read(|tx: &ReadTx<'_>| tx.audit_after(0, 100)).await.unwrap();
        links.iter().map(Link::line).collect()
    }
}

/// A machine whose first record is at the server.
async fn mirrored() -> (World, Server, Mirror<Git>) {
    let world = World::new();
    let server = Server::new(world.dir.path()).await;
    world.push_to(server.mirror(), "let me in").await;
    let mirror = world.git();
    world.deed("first", DeedResult::Done).await;
    mirror.advance().await.unwrap();
    (world, server, mirror)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_as_commits_that_git_finds_signed_by_this_machine() {
    let (world, server, mirror) = mirrored().await;
    world.deed("second", DeedResult::Denied).await;
    mirror.advance().await.unwrap();
    mirror.advance().await.unwrap();
    assert_eq!(server.lines(), world.exported().await);
    let log = server.says(&["log", "--reverse", "--format=%an <%ae> %ad %s", "--date=unix", "main"]);
    let by = "Berth <audit@box> 1772366400 Records";
    assert_eq!(log, format!("{by} 1 to 1 of box\n{by} 2 to 2 of box\n"));
    let files = server.says(&["ls-tree", "-r", "--name-only", "main"]);
    assert_eq!(files, "2026/03/01/000000000001-000000000001.jsonl\n2026/03/01/000000000002-000000000002.jsonl\n");

    let verify = |key: &str| {
        let signers = world.dir.path().join("signers");
        std::fs::write(&signers, format!("audit@box {key}\n")).unwrap();
        let signers = format!("gpg.ssh.allowedSignersFile={}", signers.display());
        let mut verify = command("git");
        verify.args(["-c", &signers, "verify-commit", "main", "main~1"]).current_dir(server.repositories.join("audit"));
        output(&mut verify).map(drop)
    };
    verify(&mirror.0.notary.public_key().unwrap()).unwrap();
    let other = Notary::open(tempfile::tempdir().unwrap().path()).unwrap();
    assert!(verify(&other.public_key().unwrap()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_between_a_push_and_noting_it_sends_no_record_twice() {
    let (world, server, mirror) = mirrored().await;
    let file = world.dir.path().join("git.json");
    let before: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    world.deed("second", DeedResult::Done).await;
    mirror.advance().await.unwrap();
    let mut cut: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    cut["sent"] = cut["at"].clone();
    cut["at"] = before["at"].clone();
    std::fs::write(&file, cut.to_string()).unwrap();
    world.deed("third", DeedResult::Done).await;
    world.git().advance().await.unwrap();
    assert_eq!(server.lines(), world.exported().await);

    // Killed before the push: what was noted never got there.
    server.says(&["update-ref", "refs/heads/main", before["at"]["commit"].as_str().unwrap()]);
    std::fs::write(&file, cut.to_string()).unwrap();
    world.git().advance().await.unwrap();
    assert_eq!(server.lines(), world.exported().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_add_to_the_branch_stays() {
    let (world, server, mirror) = mirrored().await;
    server.others("echo ours > README; git add .; git commit -qm 'What this is'");
    world.deed("second", DeedResult::Done).await;
    mirror.advance().await.unwrap();
    assert_eq!(server.lines(), world.exported().await);
    assert_eq!(server.says(&["show", "main:README"]), "ours\n");
    assert!(server.says(&["log", "--format=%s", "main"]).contains("What this is"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_was_rewritten_is_told_of_and_left_as_it_is() {
    let (world, server, mirror) = mirrored().await;
    server.others("git commit -q --amend -m 'Nothing to see'");
    let rewritten = server.says(&["rev-parse", "main"]);
    world.deed("second", DeedResult::Done).await;
    let why = crate::log::chain(&mirror.advance().await.unwrap_err());
    assert!(why.contains("somebody rewrote or removed it") && why.contains("set another branch"), "{why}");
    assert_eq!(server.says(&["rev-parse", "main"]), rewritten);
    server.says(&["update-ref", "-d", "refs/heads/main"]);
    assert!(mirror.advance().await.is_err(), "a branch that is gone was rewritten too");

    world.push_to(GitMirror { branch: "audit/anew".into(), ..server.mirror() }, "let me in").await;
    mirror.advance().await.unwrap();
    server.says(&["update-ref", "refs/heads/main", "audit/anew"]);
    assert_eq!(server.lines(), world.exported().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_s_server_a_wrong_password_and_a_secret_without_one_are_told_and_nothing_is_lost() {
    let (world, server, mirror) = mirrored().await;
    world.deed("second", DeedResult::Done).await;
    let refused = async |mirror: &Mirror<Git>| crate::log::chain(&mirror.advance().await.unwrap_err());
    let stranger = Server::new(&world.dir.path().join("repositories")).await;
    world.push_to(GitMirror { authority: Some(stranger.authority), ..server.mirror() }, "let me in").await;
    let why = refused(&mirror).await;
    assert!(why.contains("the authority that is set did not sign it"), "{why}");
    world.push_to(GitMirror { authority: None, ..server.mirror() }, "let me in").await;
    let why = refused(&mirror).await;
    assert!(why.contains("certificate"), "{why}");
    world.push_to(server.mirror(), "a guess").await;
    let why = refused(&mirror).await;
    assert!(why.contains("does not let in whoever has this name"), "{why}");
    assert!(!why.contains("a guess"), "{why}");
    let elsewhere = SecretName { namespace: "default".into(), name: "none".into() };
    world.push_to(GitMirror { secret: elsewhere, ..server.mirror() }, "let me in").await;
    let why = refused(&mirror).await;
    assert!(why.contains("Secret default/none holds no username and password"), "{why}");
    world.push_to(server.mirror(), "let me in").await;
    mirror.advance().await.unwrap();
    assert_eq!(server.lines(), world.exported().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_here_of_the_branch_may_be_damaged_or_lost() {
    let (world, server, mirror) = mirrored().await;
    let objects = world.dir.path().join("git/objects");
    output(command("find").arg(&objects).args(["-type", "f", "-exec", "truncate", "--size=0", "{}", "+"])).unwrap();
    world.deed("second", DeedResult::Done).await;
    if mirror.advance().await.is_err() {
        mirror.advance().await.unwrap();
    }
    assert_eq!(server.lines(), world.exported().await);
    std::fs::remove_dir_all(world.dir.path().join("git")).unwrap();
    world.deed("third", DeedResult::Done).await;
    mirror.advance().await.unwrap();
    assert_eq!(server.lines(), world.exported().await);
}
