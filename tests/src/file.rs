//! Files to send, and their SHA-256.

use crate::{peer, run};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file of random bytes, gone when this is dropped.
#[derive(Debug)]
pub struct RandomFile {
    /// Where it is.
    pub path: PathBuf,
}

impl RandomFile {
    /// Writes `bytes` bytes, whole mebibytes.
    ///
    /// # Panics
    /// When there is no room.
    pub fn write(bytes: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("slt-{}-{number}", std::process::id()));
        let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(&path).expect("room for a file"));
        // Blocks that differ in their number only, so that making them takes no longer than writing them.
        let mut block = peer::pattern(number, 1 << 20);
        for number in 0..bytes as u64 >> 20 {
            block[..8].copy_from_slice(&number.to_le_bytes());
            file.write_all(&block).expect("room for a file");
        }
        file.flush().expect("room for a file");
        Self { path }
    }
}

impl Drop for RandomFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The SHA-256 of a file, in hexadecimal.
///
/// # Panics
/// When it cannot be read.
pub fn sha256(path: &Path) -> String {
    let text = run(Command::new("sha256sum").arg(path));
    text.split_whitespace().next().unwrap_or_default().to_owned()
}
