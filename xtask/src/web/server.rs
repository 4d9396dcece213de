//! Serves a folder to this machine: just enough HTTP for pages and what they load.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

/// A server that runs until the program ends.
pub(super) struct Server {
    address: SocketAddr,
    thread: JoinHandle<()>,
}

impl Server {
    pub(super) fn start(folder: &Path, port: u16) -> Result<Self, String> {
        let failed =
            |error: io::Error| format!("port {port} cannot be served ({error}): choose another with --port");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let folder = folder.to_owned();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let folder = folder.clone();
                // A browser that goes away is no concern of the others.
                std::thread::spawn(move || answer(&folder, stream));
            }
        });
        Ok(Self { address, thread })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the program is stopped.
    pub(super) fn wait(self) {
        let _ = self.thread.join();
    }
}

/// Answers one request, and closes the connection.
fn answer(folder: &Path, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|header| !header.is_empty()) {}
    let (status, kind, body) = match find(folder, &request).map(|path| (std::fs::read(&path), path)) {
        Some((Ok(body), path)) => ("200 OK", media_type(&path), body),
        _ => ("404 Not Found", "text/plain", b"There is no such page.".to_vec()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// The file that a request's first line asks for, inside the folder.
fn find(folder: &Path, request: &str) -> Option<PathBuf> {
    let target = request.strip_prefix("GET /")?.split([' ', '?']).next()?;
    let inside = Path::new(target).components().all(|part| matches!(part, Component::Normal(_)));
    let path = folder.join(target);
    inside.then(|| if path.is_dir() { path.join("index.html") } else { path })
}

fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::find;

    #[test]
    fn only_what_lies_in_the_folder_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = |request: &str| find(folder, request);
        assert_eq!(file("GET /Cargo.toml?a=b HTTP/1.1"), Some(folder.join("Cargo.toml")));
        assert_eq!(file("GET /src/main.rs HTTP/1.1"), Some(folder.join("src/main.rs")));
        assert_eq!(file("GET / HTTP/1.1"), Some(folder.join("index.html")));
        for refused in ["GET /../Cargo.toml HTTP/1.1", "GET //etc/passwd HTTP/1.1", "POST / HTTP/1.1", ""] {
            assert_eq!(file(refused), None, "{refused}");
        }
    }
}
