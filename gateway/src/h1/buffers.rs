//! A thread's buffers that are not in use, so that a connection which waits has none.

use std::cell::RefCell;

use bytes::BytesMut;

/// What a buffer has room for: most heads with most small bodies.
pub(crate) const BYTES: usize = 8 * 1024;
/// What a buffer may have grown to and still be kept.
const KEPT_BYTES_MAX: usize = 4 * BYTES;
/// The most that a thread keeps of each.
const KEPT_MAX: usize = 64;

thread_local! {
    static READ: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static WRITE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer to read into.
fn take() -> BytesMut {
    READ.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(BYTES))
}

/// Sees to it that a buffer is one to read so many bytes into; one that it has is good for a quarter of them.
pub(crate) fn make_room(buf: &mut BytesMut, bytes: usize) {
    if buf.capacity() == 0 && bytes <= BYTES {
        *buf = take();
    }
    if buf.capacity() - buf.len() < bytes / 4 {
        buf.reserve(bytes);
    }
}

/// Takes back a buffer to read into, unless something is in it or parts of it are still in use.
pub(crate) fn give(mut buf: BytesMut) {
    if buf.is_empty() && buf.try_reclaim(BYTES) && buf.capacity() <= KEPT_BYTES_MAX {
        READ.with_borrow_mut(|kept| {
            if kept.len() < KEPT_MAX {
                kept.push(buf);
            }
        });
    }
}

/// An empty buffer to write from.
pub(crate) fn take_out() -> Vec<u8> {
    WRITE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BYTES / 2))
}

/// Takes back a buffer that was written from.
pub(crate) fn give_out(mut out: Vec<u8>) {
    if (1..=KEPT_BYTES_MAX).contains(&out.capacity()) {
        out.clear();
        WRITE.with_borrow_mut(|kept| {
            if kept.len() < KEPT_MAX {
                kept.push(out);
            }
        });
    }
}
