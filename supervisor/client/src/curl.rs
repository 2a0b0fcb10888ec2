//! A request as the curl command that would do the same. The token stays in its file: the command
//! reads it from there when it runs, so that neither the screen nor the shell's history holds it.

use std::path::Path;

use reqwest::Method;

use crate::request::{Archive, Body, Request};
use crate::server::Server;

/// The command, on one line, for a POSIX shell.
pub fn command(server: &Server, request: &Request) -> String {
    let mut words = vec!["curl -sS --fail-with-body".to_owned()];
    words.extend(connection(server));
    if request.method != Method::GET {
        words.push(format!("-X {}", request.method));
    }
    words.extend(headers(server, request));
    words.extend(body(&request.body));
    words.push(quote(request.url(&server.base).as_str()));
    match &request.body {
        Body::Archive(Archive::Directory(dir)) => format!("tar -C {} -c . | {}", path(dir), words.join(" ")),
        _ => words.join(" "),
    }
}

/// The stream of a watch or a log has no end: curl must not hold it back.
pub fn streaming_command(server: &Server, request: &Request) -> String {
    command(server, request).replacen("curl -sS", "curl -sSN", 1)
}

fn connection(server: &Server) -> Vec<String> {
    let socket = server.socket.as_ref().map(|socket| format!("--unix-socket {}", path(socket)));
    let ca = server.ca_file.as_ref().map(|ca| format!("--cacert {}", path(ca)));
    let identity = server.identity_file.as_ref().map(|file| format!("--cert {}", path(file)));
    socket.into_iter().chain(ca).chain(identity).collect()
}

fn headers(server: &Server, request: &Request) -> Vec<String> {
    let mut all = vec![format!("-H {}", quote(&format!("Accept: {}", request.accept)))];
    if let Some(content) = request.body.content_type() {
        all.push(format!("-H {}", quote(&format!("Content-Type: {content}"))));
    }
    if let Some(key) = &request.idempotency_key {
        all.push(format!("-H {}", quote(&format!("Idempotency-Key: {key}"))));
    }
    if let Some(token) = &server.token_file {
        all.push(format!("-H \"Authorization: Bearer $(cat {})\"", path(token)));
    }
    all
}

fn body(body: &Body) -> Vec<String> {
    match body {
        Body::Empty => Vec::new(),
        Body::Json(value) | Body::MergePatch(value) => vec![format!("--data-binary {}", quote(&value.to_string()))],
        Body::Form(form) => vec![format!("--data-raw {}", quote(form))],
        Body::Archive(Archive::File(file)) => vec![format!("-T {}", path(file))],
        Body::Archive(Archive::Directory(_) | Archive::Stdin) => vec!["-T -".to_owned()],
    }
}

fn path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// A word of a POSIX shell, quoted only where needed.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server() -> Server {
        Server::choose(Some("https://box:6443"), Some("/root/my token".into()), Some("/root/ca.crt".into())).unwrap()
    }

    #[test]
    fn the_token_is_named_by_its_file_and_never_shown() {
        let shown = command(&server(), &Request::get(&["version"]));
        assert_eq!(
            shown,
            "curl -sS --fail-with-body --cacert /root/ca.crt -H 'Accept: application/json' \
             -H \"Authorization: Bearer $(cat '/root/my token')\" https://box:6443/version"
        );
    }

    #[test]
    fn a_certificate_is_named_by_its_file() {
        let shown = command(&server().with_identity(Some("/root/me.pem".into())), &Request::get(&["version"]));
        assert!(shown.contains(" --cacert /root/ca.crt --cert /root/me.pem "), "{shown}");
    }

    #[test]
    fn a_body_with_quotes_survives_the_shell() {
        let request = Request::new(Method::POST, &["x"]).body(Body::Json(json!({"a": "it's"}))).once("k1".into());
        let local = Server::choose(None, None, None).unwrap();
        assert_eq!(
            command(&local, &request),
            "curl -sS --fail-with-body --unix-socket /run/berth/api.sock -X POST -H 'Accept: application/json' \
             -H 'Content-Type: application/json' -H 'Idempotency-Key: k1' \
             --data-binary '{\"a\":\"it'\\''s\"}' http://localhost/x"
        );
    }

    #[test]
    fn a_directory_is_packed_on_the_way() {
        let body = Body::Archive(Archive::Directory("/tmp/x".into()));
        let shown = command(&server(), &Request::new(Method::POST, &["y"]).body(body));
        assert!(shown.starts_with("tar -C /tmp/x -c . | curl "), "{shown}");
        assert!(shown.contains(" -T - "), "{shown}");
    }
}
