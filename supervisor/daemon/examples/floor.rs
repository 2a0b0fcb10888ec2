//! What an answer costs without anything of ours: axum over TLS, and one row read from SQLite. The bench asks it beside
//! the supervisor.
//!
//! `floor PORT CERTIFICATE-FILE`: serves `/kept` on loopback, and writes the certificate that it shows.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rusqlite::Connection;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// As long as the object that the supervisor is asked for.
const ROW: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kept-7","namespace":"default","uid":"00000000-0000-4000-8000-000000000000","resourceVersion":"7","generation":1,"creationTimestamp":"2026-01-01T00:00:00Z"},"data":{"word":"first"}}"#;

type Shared = Arc<Mutex<Connection>>;

async fn kept(State(shared): State<Shared>) -> Result<String, String> {
    let read = move || {
        let connection = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ready = connection.prepare_cached("SELECT body FROM kept WHERE name = ?1")?;
        ready.query_row(["kept-7"], |row| row.get::<_, String>(0))
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
    read.map_err(|error: rusqlite::Error| error.to_string())
}

fn filled() -> Result<Shared, rusqlite::Error> {
    let connection = Connection::open("")?;
    connection.execute_batch("CREATE TABLE kept (name TEXT PRIMARY KEY, body TEXT) STRICT")?;
    connection.execute("INSERT INTO kept VALUES ('kept-7', ?1)", [ROW])?;
    Ok(Arc::new(Mutex::new(connection)))
}

fn acceptor(certificate: &str) -> Result<TlsAcceptor, Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    std::fs::write(certificate, made.cert.pem())?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(port), Some(certificate)) = (words.next(), words.next()) else {
        return Err("usage: floor PORT CERTIFICATE-FILE".into());
    };
    let router = Router::new().route("/kept", get(kept)).with_state(filled()?);
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    let acceptor = acceptor(&certificate)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                // Who asks tells what went wrong.
                let _ended = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            }
        });
    }
}
