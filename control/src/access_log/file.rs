//! The access log in a file: appended to, and opened anew when somebody has moved it away.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Batch, Report};

/// A file that lines are appended to.
pub(super) struct FileTarget {
    path: PathBuf,
    /// With its device and inode; `None` when it is to be opened.
    open: Option<(File, (u64, u64))>,
    /// The last line was written in part.
    is_torn: bool,
    looked: Option<Instant>,
}

/// Opens `path` for appending; makes it, readable by its owner and group, when it is not there. A pipe that nobody
/// reads is an error.
pub(super) fn open(path: impl AsRef<Path>) -> io::Result<File> {
    // Without waiting: it may be a pipe.
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags.cast_signed()).open(path)
}

impl FileTarget {
    pub(super) fn new(path: &str) -> Self {
        Self { path: path.into(), open: None, is_torn: false, looked: None }
    }

    /// Appends a batch, in one write where the kernel takes it. What the kernel refuses is lost.
    pub(super) fn write(&mut self, batch: &Batch) -> Report {
        match self.append(batch) {
            (lines, None) => Report { lines, ..Report::default() },
            (lines, Some(why)) => {
                let error = Some(format!("{}: {why}", self.path.display()));
                Report { lines, lost: batch.len() - lines, error }
            }
        }
    }

    /// How many lines were written as a whole, and what went wrong with the next.
    fn append(&mut self, batch: &Batch) -> (u64, Option<io::Error>) {
        let (file, is_torn) = match opened(&mut self.open, &self.path) {
            Ok(file) => (file, &mut self.is_torn),
            Err(why) => return (0, Some(why)),
        };
        // A line that was torn ends here, so that the next one is a line.
        if *is_torn && let (_, Some(why)) = write_all(file, b"\n") {
            return (0, Some(why));
        }
        let (written, error) = write_all(file, &batch.bytes);
        *is_torn = written > 0 && batch.ends.binary_search(&written).is_err();
        (batch.ends.partition_point(|end| *end <= written) as u64, error)
    }

    /// Looks once a second whether it was moved away or removed, and opens it anew then, so that whoever waits for the
    /// new file finds it though no request comes.
    pub(super) fn tick(&mut self, now: Instant) -> Report {
        if self.looked.is_some_and(|before| now.duration_since(before) < LOOK_PERIOD) {
            return Report::default();
        }
        self.looked = Some(now);
        if let Some((_, id)) = &self.open
            && std::fs::metadata(&self.path).map_or(true, |found| id_of(&found) != *id)
        {
            self.reopen();
        }
        let error = opened(&mut self.open, &self.path).err();
        Report { error: error.map(|why| format!("{}: {why}", self.path.display())), ..Report::default() }
    }

    /// Opens the path anew before the next line.
    pub(super) fn reopen(&mut self) {
        (self.open, self.is_torn) = (None, false);
    }
}

fn opened<'a>(kept: &'a mut Option<(File, (u64, u64))>, path: &Path) -> io::Result<&'a mut File> {
    if kept.is_none() {
        let file = open(path)?;
        let id = id_of(&file.metadata()?);
        *kept = Some((file, id));
    }
    kept.as_mut().map(|(file, _)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Device and inode: what makes it the same file.
fn id_of(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// How many bytes were written, and what went wrong with the next.
fn write_all(file: &mut File, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return (written, Some(why)),
        }
    }
    (written, None)
}

const LOOK_PERIOD: Duration = Duration::from_secs(1);
