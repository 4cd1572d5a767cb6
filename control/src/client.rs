//! The command line's side of the control socket: one HTTP request over a Unix socket.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::api::problem::ProblemRead;

/// Talks to the sluice that listens on a socket.
pub struct Client {
    socket: PathBuf,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("{socket}: {why} (is sluice running? --socket says where)")]
    Unreachable {
        /// Where.
        socket: String,
        /// The kernel's reason, in words.
        why: String,
    },
    /// The connection broke.
    #[error("the connection to sluice broke: {0}")]
    Broken(String),
    /// Sluice said no.
    #[error("{}", .0.detail)]
    Refused(ProblemRead),
}

/// A good answer.
pub struct Answer {
    /// Its body.
    pub json: Value,
    /// Set when the list is not complete.
    pub truncated: bool,
}

impl Client {
    /// A client of the sluice at `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    /// One request; blocks until the answer is there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> Result<Answer, ClientError> {
        let broken = |why: io::Error| ClientError::Broken(why.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
        runtime.block_on(self.exchange(method, path, body))
    }

    /// One request.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> Result<Answer, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|why| self.unreachable(&why))?;
        let broken = |why: hyper::Error| ClientError::Broken(why.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "sluice");
        let mut bytes = Bytes::new();
        if let Some((kind, text)) = body {
            request = request.header(header::CONTENT_TYPE, kind);
            bytes = text.into();
        }
        let request = request.body(Full::new(bytes)).map_err(|why| ClientError::Broken(why.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let truncated = response.headers().get("sluice-truncated").is_some_and(|value| value == "true");
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        answer(status, &body).map(|json| Answer { json, truncated })
    }

    fn unreachable(&self, why: &io::Error) -> ClientError {
        let why = match why.kind() {
            io::ErrorKind::NotFound => "no such socket".into(),
            io::ErrorKind::ConnectionRefused => "nobody listens on this socket".into(),
            _ => why.to_string(),
        };
        ClientError::Unreachable { socket: self.socket.display().to_string(), why }
    }
}

fn answer(status: StatusCode, body: &[u8]) -> Result<Value, ClientError> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|why| ClientError::Broken(why.to_string()));
    }
    let mut problem: ProblemRead = serde_json::from_slice(body).unwrap_or_default();
    if problem.detail.is_empty() {
        problem.detail = format!("sluice answered {status}");
    }
    Err(ClientError::Refused(problem))
}
