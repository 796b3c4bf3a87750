//! What goes out of an outbox, however little is taken at once and however its body comes.

use std::collections::VecDeque;

use http::HeaderValue;
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, DuplexStream, ReadBuf};

use super::*;

const HEAD: &str = "head\r\n\r\n";

/// A body that gives these one after another; a none is a time in which there is nothing to give.
struct Played(VecDeque<Option<Result<Frame<Bytes>, BodyError>>>);

impl Body for Played {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.0.pop_front() {
            None => Poll::Ready(None),
            Some(Some(frame)) => Poll::Ready(Some(frame)),
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

fn piece(length: usize) -> Option<Result<Frame<Bytes>, BodyError>> {
    Some(Ok(Frame::data(Bytes::from(vec![b'x'; length]))))
}

fn trailers() -> Option<Result<Frame<Bytes>, BodyError>> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-a", HeaderValue::from_static("1"));
    Some(Ok(Frame::trailers(trailers)))
}

fn outbox(framing: Framing) -> Outbox {
    Outbox::new(framing, |out| out.extend_from_slice(HEAD.as_bytes()))
}

/// What goes out to a receiver with so much room, and how it ends.
async fn sent(
    framing: Framing,
    body: impl IntoIterator<Item = Option<Result<Frame<Bytes>, BodyError>>>,
    takes_trailers: bool,
    room: usize,
) -> (Vec<u8>, Result<(), Unsent>) {
    let (near, mut far) = tokio::io::duplex(room);
    let io = RefCell::new(Io::Layered(Box::new(near)));
    let (mut outbox, mut body) = (outbox(framing), Played(body.into_iter().collect()));
    let mut out = Vec::new();
    let sending = async {
        let result =
            std::future::poll_fn(|cx| outbox.poll_send(&io, Pin::new(&mut body), takes_trailers, cx)).await;
        drop(io);
        result
    };
    let (result, read) = tokio::join!(sending, far.read_to_end(&mut out));
    read.unwrap();
    assert_eq!(outbox.written_bytes(), out.len() as u64);
    (out, result)
}

#[tokio::test]
async fn a_body_goes_out_as_it_is_framed_however_little_is_taken() {
    for lengths in [&[][..], &[0], &[1], &[3, 0, 5], &[COPIED_BYTES_MAX], &[1, COPIED_BYTES_MAX + 1, 2]] {
        let plain = vec![b'x'; lengths.iter().sum()];
        let mut chunked = Vec::new();
        for length in lengths.iter().filter(|length| **length > 0) {
            chunked.extend_from_slice(format!("{length:x}\r\n{}\r\n", "x".repeat(*length)).as_bytes());
        }
        chunked.extend_from_slice(LAST_CHUNK);
        for room in [1, 7, 4096, 64 * 1024] {
            for pauses in [false, true] {
                for (framing, want) in [
                    (Framing::Length(plain.len() as u64), &plain),
                    (Framing::Close, &plain),
                    (Framing::Chunked, &chunked),
                    (Framing::None, &Vec::new()),
                ] {
                    let body = lengths
                        .iter()
                        .flat_map(|length| [piece(*length)].into_iter().chain(pauses.then_some(None)));
                    let (out, result) = sent(framing, body, true, room).await;
                    assert!(result.is_ok(), "{framing:?}, {lengths:?}, {room}: {result:?}");
                    assert!(out == [HEAD.as_bytes(), want].concat(), "{framing:?}, {lengths:?}, {room}");
                }
            }
        }
    }
}

#[tokio::test]
async fn trailers_go_to_who_takes_them_and_where_there_is_room_for_any() {
    for length in [0, 3, COPIED_BYTES_MAX + 1] {
        let body = || [piece(length), None, trailers()];
        let data = match length {
            0 => String::new(),
            _ => format!("{length:x}\r\n{}\r\n", "x".repeat(length)),
        };
        let taken = sent(Framing::Chunked, body(), true, 64).await.0;
        assert_eq!(taken, format!("{HEAD}{data}0\r\nx-a: 1\r\n\r\n").into_bytes());
        let left = sent(Framing::Chunked, body(), false, 64).await.0;
        assert_eq!(left, format!("{HEAD}{data}0\r\n\r\n").into_bytes());
        let close = sent(Framing::Close, body(), true, 64).await.0;
        assert_eq!(close, format!("{HEAD}{}", "x".repeat(length)).into_bytes());
    }
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_was_said_is_told_and_never_filled_up() {
    for body in [vec![piece(2)], vec![piece(2), None, trailers()], vec![]] {
        let (out, result) = sent(Framing::Length(3), body, true, 64).await;
        assert!(matches!(result, Err(Unsent::Length)), "{result:?}");
        assert!(out.len() < HEAD.len() + 3, "{out:?}");
    }
    let (out, result) = sent(Framing::Length(3), [piece(2), piece(2)], true, 64).await;
    assert!(matches!(result, Err(Unsent::Length)), "{result:?}");
    assert!(out.len() < HEAD.len() + 3, "what is too much is not sent either: {out:?}");
}

#[tokio::test]
async fn what_came_before_a_body_broke_off_goes_out_and_no_end_of_it() {
    for framing in [Framing::Chunked, Framing::Length(5), Framing::Close] {
        let (out, result) = sent(framing, [piece(2), Some(Err(BodyError::Short))], true, 3).await;
        assert!(matches!(result, Err(Unsent::Body(BodyError::Short))), "{result:?}");
        let data = if framing == Framing::Chunked { "2\r\nxx\r\n" } else { "xx" };
        assert_eq!(out, format!("{HEAD}{data}").into_bytes());
    }
}

#[tokio::test]
async fn who_takes_nothing_is_waited_for_and_who_has_gone_is_told() {
    let (near, far) = tokio::io::duplex(4);
    let io = RefCell::new(Io::Layered(Box::new(near)));
    let (mut outbox, mut body) = (outbox(Framing::Length(1)), Played([piece(1)].into()));
    let mut cx = Context::from_waker(futures::task::noop_waker_ref());
    assert!(outbox.poll_send(&io, Pin::new(&mut body), true, &mut cx).is_pending());
    assert_eq!((outbox.waits(), outbox.written_bytes()), (true, 4));
    drop(far);
    let told = outbox.poll_send(&io, Pin::new(&mut body), true, &mut cx);
    assert!(matches!(told, Poll::Ready(Err(Unsent::Io(_)))), "{told:?}");
}

#[tokio::test]
async fn a_body_that_has_nothing_yet_is_no_reason_to_wait_with_the_head() {
    let (near, mut far) = tokio::io::duplex(64);
    let io = RefCell::new(Io::Layered(Box::new(near)));
    let (mut outbox, mut body) = (outbox(Framing::Length(1)), Played([None, piece(1)].into()));
    let mut cx = Context::from_waker(futures::task::noop_waker_ref());
    assert!(outbox.poll_send(&io, Pin::new(&mut body), true, &mut cx).is_pending());
    assert!(!outbox.waits(), "it is not the receiver that is waited for");
    let mut head = [0; HEAD.len()];
    far.read_exact(&mut head).await.unwrap();
    assert_eq!(head, HEAD.as_bytes());
}

/// Counts what is written at once.
struct Counting(DuplexStream, std::rc::Rc<RefCell<Vec<usize>>>);

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.1.borrow_mut().push(bytes.len());
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.borrow_mut().push(slices.iter().map(|slice| slice.len()).sum());
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_head_goes_out_with_as_much_of_its_body_as_there_is() {
    let head = HEAD.len();
    for (framing, body, want) in [
        (Framing::None, vec![], vec![head]),
        (Framing::Length(0), vec![], vec![head]),
        (Framing::Length(9), vec![piece(4), piece(5)], vec![head + 9]),
        (Framing::Length(20_000), vec![piece(20_000)], vec![head + 20_000]),
        (Framing::Chunked, vec![piece(4), piece(5)], vec![head + 9 + 15]),
        (Framing::Chunked, vec![piece(4), None, piece(5)], vec![head + 9, 15]),
    ] {
        let (near, _far) = tokio::io::duplex(64 * 1024);
        let writes = std::rc::Rc::<RefCell<Vec<usize>>>::default();
        let io = RefCell::new(Io::Layered(Box::new(Counting(near, writes.clone()))));
        let (mut outbox, mut body) = (outbox(framing), Played(body.into()));
        std::future::poll_fn(|cx| outbox.poll_send(&io, Pin::new(&mut body), true, cx)).await.unwrap();
        assert_eq!(*writes.borrow(), want, "{framing:?}");
    }
}

#[tokio::test]
async fn what_was_written_takes_no_room_though_there_is_always_more() {
    let (near, mut far) = tokio::io::duplex(10);
    let io = RefCell::new(Io::Layered(Box::new(near)));
    let rounds = 1_000;
    let body = std::iter::repeat_with(|| [piece(10), None]).take(rounds).flatten();
    let (mut outbox, mut body) = (outbox(Framing::Length(10 * rounds as u64)), Played(body.collect()));
    let mut cx = Context::from_waker(futures::task::noop_waker_ref());
    let mut taken = [0; 10];
    for _ in 0..rounds {
        assert!(outbox.poll_send(&io, Pin::new(&mut body), true, &mut cx).is_pending());
        far.read_exact(&mut taken).await.unwrap();
        // Of one turn so much is written and no more.
        tokio::task::yield_now().await;
        assert!(outbox.out.len() < 100, "{}", outbox.out.len());
    }
}
