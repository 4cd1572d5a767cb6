//! [`PcapQueue`]: a queue around a queue that writes every frame, both ways, to a pcapng file.
//!
//! ```text
//!   worker 0 ─ rx, tx ─┐ copies, a bounded queue      one thread a port
//!   worker 1 ─ rx, tx ─┴───────────────────────────▶ writer ─▶ BufWriter ─▶ file
//! ```
//!
//! A worker never waits for the disk: it copies into frames of a store of its own and hands them over without
//! blocking; what the writer is too slow for is left out of the file and counted (`isb_ifdrop` in the file's last
//! block). Hence a thread and not a `BufWriter` in the worker, whose write(2) may take as long as the disk likes.
//! pcapng and not pcap, because it says of each frame which way it went and has nanoseconds. What is written is
//! what the worker sees: super-frames are whole, open checksums open. One clock read a burst.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::SystemTime;

use std::os::fd::RawFd;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{DriverCounters, PortQueue};
use crate::frame::{BURST_MAX, FRAME_MAX_BYTES, Frame, FramePool};

/// One capture file and the thread that writes it. Cloning shares it; it is complete when the last clone is
/// dropped, which waits for the writer.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None` only while dropping.
    records: Option<Sender<Record>>,
    writer: Option<JoinHandle<()>>,
    store: FramePool,
    snap_bytes: usize,
    dropped: Arc<AtomicU64>,
}

struct Record {
    time_ns: u64,
    way: Way,
    original_len: u32,
    copy: Frame,
}

/// Which way a frame went; the value is that of `epb_flags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    In = 1,
    Out = 2,
}

impl Recorder {
    /// Creates (or empties) the file and starts its writer; of each frame the first `snap_bytes` are kept.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(path: &Path, port: &str, snap_bytes: usize) -> io::Result<Self> {
        Self::start(File::create(path)?, port, snap_bytes, WAITING_MAX)
    }

    fn start(
        sink: impl Write + Send + 'static,
        port: &str,
        snap_bytes: usize,
        waiting_max: usize,
    ) -> io::Result<Self> {
        let snap_bytes = snap_bytes.min(FRAME_MAX_BYTES);
        let mut file = BufWriter::new(sink);
        write_head(&mut file, port, snap_bytes)?;
        file.flush()?;
        let (records, waiting) = bounded(waiting_max);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&dropped);
        let name = format!("pcap-{port}");
        let writer =
            std::thread::Builder::new().name(name).spawn(move || write_all(file, &waiting, &count))?;
        let (records, writer) = (Some(records), Some(writer));
        let store = FramePool::new(waiting_max + STAGED_MAX);
        Ok(Self { shared: Arc::new(Shared { records, writer, store, snap_bytes, dropped }) })
    }

    /// Frames that are missing in the file because the writer was too slow.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn copy(&self, frame: &Frame, way: Way, time_ns: u64) -> Option<Record> {
        let kept = &frame.bytes()[..frame.len().min(self.shared.snap_bytes)];
        let copy = self.shared.store.copy_of(kept);
        if copy.is_none() {
            self.drop_one();
        }
        Some(Record { time_ns, way, original_len: frame.len() as u32, copy: copy? })
    }

    fn submit(&self, record: Record) {
        let sender = self.shared.records.as_ref();
        if sender.is_none_or(|records| records.try_send(record).is_err()) {
            self.drop_one();
        }
    }

    fn drop_one(&self) {
        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.records = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to wait for.
            let _ = writer.join();
        }
    }
}

/// A queue whose frames are recorded.
pub struct PcapQueue {
    inner: Box<dyn PortQueue>,
    recorder: Recorder,
    /// Copies of the first of what is to be sent, until it is known how many of it went.
    staged: Vec<Option<Record>>,
}

impl PcapQueue {
    /// Wraps a queue.
    pub fn new(inner: Box<dyn PortQueue>, recorder: Recorder) -> Self {
        Self { inner, recorder, staged: Vec::with_capacity(STAGED_MAX) }
    }
}

impl PortQueue for PcapQueue {
    fn rx(&mut self, frames: &mut Vec<Frame>) -> usize {
        let count = self.inner.rx(frames);
        if count > 0 {
            let now = now_ns();
            let received = frames[frames.len() - count..].iter();
            let records = received.filter_map(|frame| self.recorder.copy(frame, Way::In, now));
            records.for_each(|record| self.recorder.submit(record));
        }
        count
    }

    fn tx(&mut self, frames: &mut Vec<Frame>) -> usize {
        if frames.is_empty() {
            return self.inner.tx(frames);
        }
        let now = now_ns();
        // Those that wait since the last time have their copies.
        let new = frames.iter().skip(self.staged.len());
        self.staged.extend(new.map(|frame| self.recorder.copy(frame, Way::Out, now)));
        let count = self.inner.tx(frames);
        let sent = self.staged.drain(..count).flatten();
        sent.for_each(|record| self.recorder.submit(Record { time_ns: now, ..record }));
        count
    }

    fn wait_fd(&self) -> Option<RawFd> {
        self.inner.wait_fd()
    }

    fn counters(&mut self) -> DriverCounters {
        self.inner.counters()
    }

    fn is_link_up(&mut self) -> bool {
        self.inner.is_link_up()
    }

    fn mtu(&mut self) -> Option<u16> {
        self.inner.mtu()
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// The writer's life: until all senders are gone, or the disk fails (then frames are only counted as dropped).
fn write_all(mut file: impl Write, records: &Receiver<Record>, dropped: &AtomicU64) {
    while let Ok(record) = records.recv() {
        let is_idle = records.is_empty();
        let written = write_record(&mut file, &record);
        if written.and_then(|()| if is_idle { file.flush() } else { Ok(()) }).is_err() {
            return;
        }
    }
    let _ = write_statistics(&mut file, dropped.load(Ordering::Relaxed)).and_then(|()| file.flush());
}

/// Section header and interface description blocks (draft-ietf-opsawg-pcapng sections 4.1 and 4.2).
fn write_head(file: &mut impl Write, port: &str, snap_bytes: usize) -> io::Result<()> {
    let section = [&BYTE_ORDER_MAGIC.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    write_block(file, BLOCK_SECTION, &[&section])?;
    let port = &port.as_bytes()[..port.len().min(255)];
    let name = [&option_head(OPTION_NAME, port.len())[..], port, &PAD[..pad_len(port.len())]].concat();
    let nanoseconds = [&option_head(OPTION_RESOLUTION, 1)[..], &[9, 0, 0, 0]].concat();
    let description = [&[LINK_ETHERNET, 0, 0, 0][..], &(snap_bytes as u32).to_le_bytes()].concat();
    write_block(file, BLOCK_INTERFACE, &[&description, &name, &nanoseconds, &END_OF_OPTIONS])
}

/// An enhanced packet block (section 4.3).
fn write_record(file: &mut impl Write, record: &Record) -> io::Result<()> {
    let bytes = record.copy.bytes();
    let mut head = [0; 20];
    head[4..8].copy_from_slice(&((record.time_ns >> 32) as u32).to_le_bytes());
    head[8..12].copy_from_slice(&(record.time_ns as u32).to_le_bytes());
    head[12..16].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    head[16..20].copy_from_slice(&record.original_len.to_le_bytes());
    let flags = (record.way as u32).to_le_bytes();
    let parts =
        [&head, bytes, &PAD[..pad_len(bytes.len())], &option_head(OPTION_FLAGS, 4), &flags, &END_OF_OPTIONS];
    write_block(file, BLOCK_PACKET, &parts)
}

/// An interface statistics block (section 4.6).
fn write_statistics(file: &mut impl Write, dropped: u64) -> io::Result<()> {
    let now = now_ns();
    let mut head = [0; 12];
    head[4..8].copy_from_slice(&((now >> 32) as u32).to_le_bytes());
    head[8..12].copy_from_slice(&(now as u32).to_le_bytes());
    let parts: [&[u8]; 4] = [&head, &option_head(OPTION_DROPPED, 8), &dropped.to_le_bytes(), &END_OF_OPTIONS];
    write_block(file, BLOCK_STATISTICS, &parts)
}

fn write_block(file: &mut impl Write, kind: u32, parts: &[&[u8]]) -> io::Result<()> {
    let len = 12 + parts.iter().map(|part| part.len()).sum::<usize>();
    let len = (len as u32).to_le_bytes();
    file.write_all(&kind.to_le_bytes())?;
    file.write_all(&len)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.write_all(&len)
}

fn option_head(code: u16, len: usize) -> [u8; 4] {
    let ([a, b], [c, d]) = (code.to_le_bytes(), (len as u16).to_le_bytes());
    [a, b, c, d]
}

fn pad_len(len: usize) -> usize {
    len.wrapping_neg() % 4
}

const PAD: [u8; 3] = [0; 3];
const END_OF_OPTIONS: [u8; 4] = [0; 4];
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const BLOCK_SECTION: u32 = 0x0a0d_0d0a;
const BLOCK_INTERFACE: u32 = 1;
const BLOCK_STATISTICS: u32 = 5;
const BLOCK_PACKET: u32 = 6;
const LINK_ETHERNET: u8 = 1;
const OPTION_NAME: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_FLAGS: u16 = 2;
const OPTION_DROPPED: u16 = 5;

/// Frames that wait for the writer: 68 MB when all are of the largest kind, and as much for those that wait to be sent.
const WAITING_MAX: usize = 1024;
/// Copies that the workers of a port hold until they know what was sent: as many as may wait for two of them.
const STAGED_MAX: usize = 4 * BURST_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::memory::pair;
    use std::sync::Mutex;
    use std::sync::mpsc;

    /// A file in memory that can be read after its writer is gone.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Kind and content of each block; checks the lengths in front and behind.
    fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let len = word(file, 4) as usize;
            assert!(len.is_multiple_of(4) && word(file, len - 4) as usize == len);
            blocks.push((word(file, 0), &file[8..len - 4]));
            file = &file[len..];
        }
        blocks
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn frames_of_both_ways_are_written_in_order_and_cut_to_the_snap_length() {
        let sink = Sink::default();
        let recorder = Recorder::start(sink.clone(), "left", 100, 16).unwrap();
        let (inner, peer) = pair(2);
        let mut queue = PcapQueue::new(Box::new(inner), recorder);
        let pool = FramePool::new(8);
        peer.send(pool.copy_of(&[1; 61]).unwrap()).unwrap();
        let mut frames = Vec::new();
        assert_eq!(queue.rx(&mut frames), 1);
        frames.extend([pool.copy_of(&[2; 64]).unwrap(), pool.copy_of(&[3; 1000]).unwrap()]);
        assert_eq!((queue.tx(&mut frames), frames.len()), (2, 1), "the wire holds two");
        assert_eq!(peer.recv().unwrap().len() + peer.recv().unwrap().len(), 125);
        assert_eq!(queue.tx(&mut frames), 1);
        drop(queue);

        let file = sink.0.lock().unwrap().clone();
        let blocks = blocks(&file);
        let kinds = blocks.iter().map(|block| block.0).collect::<Vec<_>>();
        let packet = BLOCK_PACKET;
        assert_eq!(kinds, [BLOCK_SECTION, BLOCK_INTERFACE, packet, packet, packet, packet, BLOCK_STATISTICS]);
        let short = [(61, 61, 1, Way::In), (61, 61, 1, Way::Out), (64, 64, 2, Way::Out)];
        let wanted = short.into_iter().chain([(100, 1000, 3, Way::Out)]);
        for ((_, block), (kept, original, byte, way)) in blocks[2..6].iter().zip(wanted) {
            assert_eq!((word(block, 12), word(block, 16)), (kept, original));
            assert!(block[20..20 + kept as usize].iter().all(|&found| found == byte));
            let flags = block.len() - 8;
            assert_eq!(word(block, flags), way as u32);
        }
    }

    /// A file whose disk waits for leave to write.
    struct SlowSink(mpsc::Receiver<()>);

    impl Write for SlowSink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without its sender the test is over, and the disk fast.
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_disk_costs_records_and_never_a_frame() {
        let (leave, wait) = mpsc::channel();
        leave.send(()).unwrap();
        let recorder = Recorder::start(SlowSink(wait), "left", 100, 4).unwrap();
        let (inner, peer) = pair(1024);
        let mut queue = PcapQueue::new(Box::new(inner), recorder.clone());
        let pool = FramePool::new(1024);
        (0..1000).for_each(|_| peer.send(pool.copy_of(&[1; 60]).unwrap()).unwrap());
        let mut frames = Vec::new();
        while queue.rx(&mut frames) > 0 {}
        assert_eq!(frames.len(), 1000);
        let dropped = recorder.dropped();
        // The writer ends before the recorder does, or a failed assertion would wait for it.
        drop(leave);
        // What waits, and what fits into the writer's buffer of 8 KiB before it has to wait for the disk.
        let kept_at_most = 4 + 1 + 8 * 1024 / 100;
        assert!(dropped >= 1000 - kept_at_most, "{dropped}");
    }

    #[test]
    fn a_full_disk_is_an_error_at_once() {
        if Path::new("/dev/full").exists() {
            assert!(Recorder::create(Path::new("/dev/full"), "left", 100).is_err());
        }
    }

    #[test]
    fn tcpdump_reads_what_we_write() {
        let path = std::env::temp_dir().join(format!("sluice-pcap-{}.pcapng", std::process::id()));
        let recorder = Recorder::create(&path, "left", 2000).unwrap();
        let (inner, peer) = pair(4);
        let mut queue = PcapQueue::new(Box::new(inner), recorder);
        let pool = FramePool::new(4);
        let arp =
            [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]].concat();
        let arp = [&arp[..], &[192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 9]].concat();
        peer.send(pool.copy_of(&arp).unwrap()).unwrap();
        queue.rx(&mut Vec::new());
        drop(queue);
        let tcpdump = std::process::Command::new("tcpdump").arg("-nr").arg(&path).output();
        let file = std::fs::remove_file(&path);
        let Ok(output) = tcpdump else {
            eprintln!("SKIPPED: tcpdump_reads_what_we_write: tcpdump is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("ARP, Request who-has 192.0.2.9 tell 192.0.2.1"), "{output:?}");
        file.unwrap();
    }
}
