//! The files of a virtual machine, as the kernel unpacks them: a cpio archive in the "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! ```text
//!   header 110 B ┊ name, zero, padding to 4 ┊ content, padding to 4      … TRAILER!!!
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, io};

/// An archive that grows; each path is taken once.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    paths: BTreeSet<PathBuf>,
}

impl Archive {
    /// One whose `/bin`, `/lib` and so on lead where they do here, because programs name libraries by either path.
    pub(super) fn like_here() -> Self {
        let mut archive = Self::default();
        for top in ["/bin", "/sbin", "/lib", "/lib64"].map(Path::new) {
            match fs::read_link(top) {
                Ok(target) => {
                    archive.directory(&Path::new("/").join(&target));
                    archive.link(top, &target);
                }
                Err(_) => archive.directory(top),
            }
        }
        for mount in ["/dev", "/proc", "/sys", "/tmp", "/run", "/etc"] {
            archive.directory(Path::new(mount));
        }
        archive
    }

    /// An empty directory at `path`.
    fn directory(&mut self, path: &Path) {
        self.directories(path);
        self.entry(path, DIRECTORY, &[]);
    }

    /// A file at `path`.
    pub(super) fn file(&mut self, path: &Path, content: &[u8]) {
        self.directories(path);
        self.entry(path, FILE, content);
    }

    /// The program or library `path` at the same place, and every library that it loads.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn program(&mut self, path: &Path) -> io::Result<()> {
        self.copy(path)?;
        for library in libraries(path)? {
            self.copy(&library)?;
        }
        Ok(())
    }

    /// Everything, with its end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("/TRAILER!!!"), 0, &[]);
        self.bytes
    }

    /// The file at `path` here, and links to it: the dynamic linker takes two copies for two libraries.
    fn copy(&mut self, path: &Path) -> io::Result<()> {
        let real = path.canonicalize()?;
        if !self.paths.contains(&real) {
            self.file(&real, &stripped(&real)?);
        }
        let folder = path.parent().unwrap_or(Path::new("/")).canonicalize()?;
        let own = folder.join(path.file_name().unwrap_or_default());
        if own != real {
            self.directories(&own);
            self.link(&own, &real);
        }
        Ok(())
    }

    fn link(&mut self, path: &Path, target: &Path) {
        self.entry(path, LINK, target.as_os_str().as_encoded_bytes());
    }

    /// The directories above `path`.
    fn directories(&mut self, path: &Path) {
        let above = path.parent().unwrap_or(path);
        let all: Vec<&Path> = above.ancestors().collect();
        for directory in all.into_iter().rev().filter(|directory| directory.parent().is_some()) {
            self.entry(directory, DIRECTORY, &[]);
        }
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        if !self.paths.insert(path.to_owned()) {
            return;
        }
        let name = path.as_os_str().as_encoded_bytes();
        let name = name.strip_prefix(b"/").unwrap_or(name);
        let (inode, links) = (self.paths.len() as u32, 1);
        let length = u32::try_from(content.len()).expect("a file below 4 GiB");
        let fields = [inode, mode, 0, 0, links, 0, length, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// What the dynamic linker would load for `path`; nothing for a static program.
fn libraries(path: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(path).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// `path`, when it is large without what only debuggers read, as far as `strip` is here and understands it.
fn stripped(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() < LARGE_BYTES {
        return fs::read(path);
    }
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let short = std::env::temp_dir().join(format!("sluice-vm-{}-{number}", std::process::id()));
    let mut strip = Command::new("strip");
    let strip = strip.arg("-o").arg(&short).arg(path).stdin(Stdio::null()).stderr(Stdio::null());
    let is_short = strip.status().is_ok_and(|status| status.success());
    let bytes = fs::read(if is_short { &short } else { path });
    let _ = fs::remove_file(&short);
    bytes
}

/// Symbols are worth leaving out of files from this size on.
const LARGE_BYTES: u64 = 8 << 20;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_what_was_put_in_with_the_directories_above_it() {
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b/c"), b"hello");
        archive.file(Path::new("/a/d"), b"");
        archive.file(Path::new("/a/d"), b"a second time");
        let names = entries(&archive.finish());
        let entry = |name: &str, mode, content: &str| (name.to_owned(), mode, content.to_owned());
        assert_eq!(
            names,
            [
                entry("a", DIRECTORY, ""),
                entry("a/b", DIRECTORY, ""),
                entry("a/b/c", FILE, "hello"),
                entry("a/d", FILE, ""),
                entry("TRAILER!!!", 0, ""),
            ]
        );
    }

    /// Name, mode and content of each entry.
    fn entries(mut bytes: &[u8]) -> Vec<(String, u32, String)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(&bytes[..6], b"070701");
            let field = |at: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * at..14 + 8 * at]).expect("text");
                u32::from_str_radix(text, 16).expect("a number") as usize
            };
            let (mode, length, name_length) = (field(1), field(6), field(11));
            let content = (110 + name_length).next_multiple_of(4);
            let name = String::from_utf8_lossy(&bytes[110..110 + name_length - 1]).into_owned();
            let text = String::from_utf8_lossy(&bytes[content..content + length]).into_owned();
            found.push((name, mode as u32, text));
            bytes = &bytes[(content + length).next_multiple_of(4)..];
        }
        found
    }
}
