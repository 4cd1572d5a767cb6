//! The control socket: mode 0600, and only our own user and root may talk.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use tokio::net::{UnixListener, UnixStream, unix::SocketAddr};

/// A bound control socket. The file goes when this is dropped.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Users that may talk.
    allowed: Vec<u32>,
}

impl ControlSocket {
    /// Binds `path`: its folder is made, and a socket file that nobody listens on is replaced.
    ///
    /// # Errors
    /// In words: a live socket, a file that is no socket, or what the kernel says.
    pub fn bind(path: &Path) -> Result<Self, String> {
        let at = |why: io::Error| format!("{}: {why}", path.display());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        }
        clear_stale(path)?;
        let listener = UnixListener::bind(path).map_err(at)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(at)?;
        let allowed = vec![0, rustix::process::geteuid().as_raw()];
        Ok(Self { listener, path: path.into(), allowed })
    }

    /// Lets only these users talk.
    #[must_use]
    pub fn allowing(mut self, users: &[u32]) -> Self {
        self.allowed = users.to_vec();
        self
    }

    fn may_talk(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if self.allowed.contains(&peer.uid()) => true,
            Ok(peer) => {
                tracing::warn!(uid = peer.uid(), "refused a connection to the control socket");
                false
            }
            Err(_) => false,
        }
    }
}

/// Removes a socket file that nobody listens on.
fn clear_stale(path: &Path) -> Result<(), String> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    let shown = path.display();
    if !found.file_type().is_socket() {
        return Err(format!("{shown}: there is a file here that is no socket; choose another --socket"));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(format!(
            "{shown}: a sluice is running on this socket already; stop it or choose another --socket"
        ));
    }
    fs::remove_file(path).map_err(|why| format!("{shown}: {why}"))
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Listener for ControlSocket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) if self.may_talk(&stream) => return (stream, address),
                Ok(_) => (),
                // Out of descriptors or the like: others may end meanwhile.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
