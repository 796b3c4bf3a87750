//! A client's connection by itself: heads and bodies as they come, the 100, and who has gone.

use futures::task::noop_waker_ref;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const LIMITS: fn() -> Limits = Limits::default;
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

/// A connection, and its client.
fn wire() -> (Rc<Wire>, DuplexStream) {
    let (near, far) = tokio::io::duplex(256 * 1024);
    (Rc::new(Wire::new(Io::Layered(Box::new(near)), Arc::default())), far)
}

fn cx() -> Context<'static> {
    Context::from_waker(noop_waker_ref())
}

/// The next request's method and the rest of what there is of it.
fn next(wire: &Wire) -> Head {
    match wire.poll_next(&LIMITS(), &mut cx()) {
        Poll::Ready(Next::Request(head)) => head,
        Poll::Ready(Next::Bad(fault)) => panic!("{fault}"),
        Poll::Ready(Next::End) => panic!("it has ended"),
        Poll::Pending => panic!("nothing has come"),
    }
}

/// The body of the next request, begun.
fn begin(wire: &Rc<Wire>) -> RequestBytes {
    let head = next(wire);
    wire.begin(head.decoder, head.expects).unwrap()
}

/// What there is of what was written to the client.
fn written(far: &mut DuplexStream) -> String {
    let mut bytes = [0; 4096];
    let mut buf = tokio::io::ReadBuf::new(&mut bytes);
    let _ = tokio::io::AsyncRead::poll_read(Pin::new(far), &mut cx(), &mut buf);
    String::from_utf8(buf.filled().to_vec()).unwrap()
}

/// What goes ahead of the answer.
fn answering(wire: &Wire) -> String {
    let mut out = Vec::new();
    wire.answering(&mut out);
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn requests_come_one_after_another() {
    let (wire, mut far) = wire();
    far.write_all(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /").await.unwrap();
    assert_eq!(next(&wire).parts.uri, "/a");
    assert!(!wire.is_between(), "the next has come already");
    assert_eq!(next(&wire).parts.uri, "/b");
    assert!(wire.poll_next(&LIMITS(), &mut cx()).is_pending());
    assert!(!wire.is_between(), "a part of one has come");
    far.write_all(b"c HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(next(&wire).parts.uri, "/c");
    assert!(wire.is_between());
    drop(far);
    assert!(matches!(wire.poll_next(&LIMITS(), &mut cx()), Poll::Ready(Next::End)));
    assert!(!wire.is_sending());
}

#[tokio::test]
async fn while_it_waits_it_has_no_buffer() {
    let (wire, mut far) = wire();
    assert!(wire.poll_next(&LIMITS(), &mut cx()).is_pending());
    assert_eq!(wire.incoming.borrow().buf.capacity(), 0);
    far.write_all(b"GET /").await.unwrap();
    assert!(wire.poll_next(&LIMITS(), &mut cx()).is_pending());
    assert!(wire.incoming.borrow().buf.capacity() > 0, "what has come is kept");
}

#[tokio::test]
async fn what_is_no_request_is_the_last_that_is_read() {
    let (wire, mut far) = wire();
    far.write_all(b"nonsense\r\n\r\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(wire.poll_next(&LIMITS(), &mut cx()), Poll::Ready(Next::Bad(Fault::Syntax))));
    assert!(wire.is_sending(), "nobody knows what follows");
}

#[tokio::test]
async fn a_client_is_told_to_go_on_once_its_body_is_wanted() {
    let (wire, mut far) = wire();
    far.write_all(POST.as_bytes()).await.unwrap();
    let mut body = begin(&wire);
    assert_eq!(written(&mut far), "", "nobody has asked for it yet");
    for _ in 0..2 {
        assert!(Pin::new(&mut body).poll_frame(&mut cx()).is_pending());
    }
    assert_eq!(written(&mut far), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(answering(&wire), "");
    far.write_all(b"hello").await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
    assert!(body.is_end_stream() && wire.is_read() && wire.taken_bytes() == 5);
    assert_eq!(written(&mut far), "", "once");
}

#[tokio::test]
async fn a_client_is_not_told_to_go_on_where_there_is_no_need() {
    // It is answered first.
    let (wire, mut far) = wire();
    far.write_all(POST.as_bytes()).await.unwrap();
    let mut body = begin(&wire);
    assert_eq!(answering(&wire), "");
    assert!(Pin::new(&mut body).poll_frame(&mut cx()).is_pending());
    assert_eq!(written(&mut far), "");
    // It did not wait.
    let (wire, mut far) = self::wire();
    far.write_all(format!("{POST}hello").as_bytes()).await.unwrap();
    assert_eq!(begin(&wire).collect().await.unwrap().to_bytes(), "hello");
    assert_eq!(written(&mut far), "");
}

#[tokio::test]
async fn a_100_that_was_begun_is_ended_before_the_answer() {
    let (near, mut far) = tokio::io::duplex(10);
    let wire = Rc::new(Wire::new(Io::Layered(Box::new(near)), Arc::default()));
    wire.incoming.borrow_mut().buf.extend_from_slice(POST.as_bytes());
    let mut body = begin(&wire);
    assert!(Pin::new(&mut body).poll_frame(&mut cx()).is_pending());
    let begun = written(&mut far);
    assert_eq!(begun.len(), 10);
    assert_eq!(begun + &answering(&wire), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(answering(&wire), "");
}

#[tokio::test]
async fn what_targets_say_before_the_answer_is_written_between_what_else_is_said() {
    let (near, mut far) = tokio::io::duplex(10);
    let wire = Rc::new(Wire::new(Io::Layered(Box::new(near)), Arc::default()));
    wire.incoming.borrow_mut().buf.extend_from_slice(POST.as_bytes());
    let mut body = begin(&wire);
    // A hint that was begun goes before the 100, and that before another hint.
    wire.tell(b"<hint that is long>");
    assert!(wire.poll_told(&mut cx()).is_pending());
    assert!(Pin::new(&mut body).poll_frame(&mut cx()).is_pending());
    let mut all = written(&mut far);
    assert!(Pin::new(&mut body).poll_frame(&mut cx()).is_pending());
    all += &written(&mut far);
    wire.tell(b"<another>");
    loop {
        let polled = wire.poll_told(&mut cx());
        all += &written(&mut far);
        if polled.is_ready() {
            break;
        }
    }
    assert_eq!(all, "<hint that is long>HTTP/1.1 100 Continue\r\n\r\n<another>");
    // What is left goes with the answer.
    wire.tell(b"<a third that is long>");
    assert!(wire.poll_told(&mut cx()).is_pending());
    wire.tell(b"");
    assert_eq!(written(&mut far) + &answering(&wire), "<a third that is long>");
    assert_eq!(answering(&wire), "");
}

#[tokio::test]
async fn so_much_of_it_waits_for_a_client_that_takes_nothing_and_no_more() {
    let (wire, _far) = wire();
    let large = vec![b'x'; 2 * INTERIM_BYTES_MAX];
    wire.tell(&large);
    wire.tell(b"<left out>");
    assert_eq!(answering(&wire).len(), large.len());
    wire.tell(b"<hint>");
    assert_eq!(answering(&wire), "<hint>");
}

#[tokio::test]
async fn a_body_is_of_its_own_request_alone() {
    let (wire, mut far) = wire();
    far.write_all(
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\naPOST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nb",
    )
    .await
    .unwrap();
    let mut first = begin(&wire);
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    let second = begin(&wire);
    assert!(first.is_end_stream());
    assert!(matches!(first.frame().await, Some(Err(BodyError::Short))));
    drop(first);
    assert!(!wire.incoming.borrow().given_up, "that was another's");
    assert_eq!(second.collect().await.unwrap().to_bytes(), "b");
}

#[tokio::test]
async fn a_body_that_breaks_off_or_is_framed_badly_is_no_body() {
    let (wire, mut far) = wire();
    far.write_all(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab").await.unwrap();
    let body = begin(&wire);
    drop(far);
    assert!(matches!(body.collect().await, Err(BodyError::Short)));
    let (wire, mut far) = self::wire();
    far.write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n").await.unwrap();
    assert!(matches!(begin(&wire).collect().await, Err(BodyError::Framing(Fault::Chunk))));
    assert_eq!(wire.watch.refused(), Some(Fault::Chunk));
}

#[tokio::test]
async fn who_waits_for_an_answer_may_send_so_much_ahead_and_may_go() {
    let (wire, mut far) = wire();
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(wire.begin(next(&wire).decoder, false).is_none());
    assert!(wire.poll_gone(&mut cx()).is_pending());
    far.write_all(&vec![b'x'; 4 * AHEAD_BYTES_MAX]).await.unwrap();
    assert!(wire.poll_gone(&mut cx()).is_pending());
    let ahead = wire.incoming.borrow().buf.len();
    assert!((AHEAD_BYTES_MAX..2 * AHEAD_BYTES_MAX).contains(&ahead), "{ahead}");
    let (wire, mut far) = self::wire();
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    next(&wire);
    drop(far);
    assert!(wire.poll_gone(&mut cx()).is_ready());
}

#[tokio::test]
async fn what_is_unwanted_is_read_away_up_to_a_bound() {
    for (left, whole) in [(5_u64, true), (4, false)] {
        let (wire, mut far) = wire();
        far.write_all(format!("{POST}hello").as_bytes()).await.unwrap();
        let body = begin(&wire);
        body.rest().throw_away();
        drop(body);
        assert!(wire.is_unwanted());
        let mut left = left;
        let read = std::future::poll_fn(|cx| wire.poll_read_away(&mut left, cx)).await;
        assert_eq!((read, written(&mut far).as_str()), (whole, ""));
    }
}

#[tokio::test]
async fn whoever_waits_for_others_to_take_a_body_is_told_of_its_end() {
    for whole in [true, false] {
        let (wire, mut far) = wire();
        far.write_all(POST.as_bytes()).await.unwrap();
        let body = begin(&wire);
        let taking = async {
            tokio::task::yield_now().await;
            if whole {
                far.write_all(b"hello").await.unwrap();
                body.collect().await.unwrap();
            } else {
                drop(body);
            }
        };
        let waiting = std::future::poll_fn(|cx| wire.poll_taken(cx));
        let (taken, ()) = tokio::join!(waiting, taking);
        assert_eq!(taken, whole);
    }
}

#[tokio::test]
async fn what_has_come_ahead_goes_along_with_the_socket() {
    let (wire, mut far) = wire();
    far.write_all(b"GET / HTTP/1.1\r\n\r\nahead").await.unwrap();
    next(&wire);
    let (mut io, first) = Rc::into_inner(wire).unwrap().into_parts();
    assert_eq!(first, "ahead");
    far.write_all(b"more").await.unwrap();
    drop(far);
    let mut rest = String::new();
    io.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "more");
}

/// Takes all, and has it out when it is asked a second time.
struct Late(DuplexStream, Rc<std::cell::Cell<u32>>);

impl tokio::io::AsyncRead for Late {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Late {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.1.set(self.1.get() + 1);
        if self.1.get() == 1 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_100_is_written_once_it_is_out() {
    let (near, _far) = tokio::io::duplex(1024);
    let flushes = Rc::default();
    let io = Io::Layered(Box::new(Late(near, Rc::clone(&flushes))));
    let wire = Rc::new(Wire::new(io, Arc::default()));
    wire.incoming.borrow_mut().buf.extend_from_slice(POST.as_bytes());
    let mut body = begin(&wire);
    for want in [1, 2, 2] {
        assert!(Pin::new(&mut body).poll_frame(&mut cx()).is_pending());
        assert_eq!(flushes.get(), want);
    }
}
