//! DPDK's log, caught: nothing goes to the terminal or syslog unless asked, and errors keep their reason.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{lock, sys};

/// Sends DPDK's log to [`on_log`], and on to standard error when `loud`. Once, before EAL starts.
pub(super) fn install(loud: bool) {
    LOUD.store(loud, Ordering::Relaxed);
    // SAFETY: makes a stream around a function that lives as long as the process.
    let stream = unsafe { sys::sluice_log_stream(Some(on_log)) };
    if stream.is_null() {
        return;
    }
    // SAFETY: the stream is open and never closed.
    unsafe { sys::rte_openlog_stream(stream) };
    if !loud {
        // SAFETY: sets a number.
        unsafe { sys::rte_log_set_global_level(LEVEL_WARNING) };
    }
}

/// What errno `code` (of either sign) means, with the errors that DPDK has logged since the last call.
pub(super) fn reason(code: i32) -> String {
    let mut reason = strerror(code.abs());
    let logged = take();
    if !logged.is_empty() {
        reason.push_str(": ");
        reason.push_str(&logged);
    }
    reason
}

/// The errors logged since the last call, joined with `; `.
pub(super) fn take() -> String {
    std::mem::take(&mut *lock(&ERRORS))
}

/// `rte_errno` of this thread, set by the call before.
pub(super) fn last_errno() -> i32 {
    // SAFETY: reads a thread-local.
    unsafe { sys::sluice_errno() }
}

fn strerror(code: i32) -> String {
    // SAFETY: returns a string that lives until this thread's next call.
    let text = unsafe { sys::rte_strerror(code) };
    if text.is_null() {
        return format!("error {code}");
    }
    // SAFETY: not null, and ends in a zero byte.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The stream's write function: called by stdio in the thread that logs, a line at a time.
extern "C" fn on_log(_: *mut c_void, text: *const c_char, length: usize) -> isize {
    // SAFETY: stdio hands over `length` readable bytes.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    if LOUD.load(Ordering::Relaxed) {
        let _ = std::io::stderr().write_all(bytes);
    }
    // SAFETY: reads a thread-local that the logging call has set.
    let level: c_int = unsafe { sys::rte_log_cur_msg_loglevel() };
    if u32::try_from(level).is_ok_and(|level| level <= LEVEL_ERROR) {
        keep(&String::from_utf8_lossy(bytes));
    }
    length as isize
}

fn keep(text: &str) {
    let mut errors = lock(&ERRORS);
    let text = text.trim();
    if text.is_empty() || errors.len() + text.len() > KEPT_BYTES_MAX {
        return;
    }
    if !errors.is_empty() {
        errors.push_str("; ");
    }
    errors.push_str(text);
}

static ERRORS: Mutex<String> = Mutex::new(String::new());
static LOUD: AtomicBool = AtomicBool::new(false);

/// `RTE_LOG_ERR` and `RTE_LOG_WARNING`.
const LEVEL_ERROR: u32 = 4;
const LEVEL_WARNING: u32 = 5;
const KEPT_BYTES_MAX: usize = 1024;
