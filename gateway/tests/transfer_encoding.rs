//! Transfer-Encoding under thousands of disguises beside a Content-Length: neither a target nor a client ever gets both, nor any control
//! character.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use serde_json::json;
use support::{
    Client, in_front, in_front_of, patiently,
    recorder::{Recorder, Seen},
    settings, status,
};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::TcpListener,
};

const NAME: &str = "Transfer-Encoding";

/// The field line written in every way that some parser may take for it: each byte at each of the places where one can be put,
/// alone, twice over and in pairs of places, then other names, values, cases and lines.
fn disguises() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for byte in 0..=255_u8 {
        let one: &[u8] = &[byte];
        for places in 1..32_u8 {
            // Pairs of places and all of them; others only differ in what no parser looks at.
            if places.count_ones() > 2 && places != 31 {
                continue;
            }
            let at = |place: u8| if places & 1 << place == 0 { &b""[..] } else { one };
            let (before, within, colon, space, end) = (at(0), at(1), at(2), at(3), at(4));
            all.push(
                [before, b"Transfer", within, b"-Encoding", colon, b":", space, b"chunked", end].concat(),
            );
        }
        all.push([b"X: y", one, one, NAME.as_bytes(), b": chunked"].concat());
        all.push([NAME.as_bytes(), b": chunked", one, b"identity"].concat());
        all.push([NAME.as_bytes(), b": chun", one, b"ked"].concat());
        all.push([NAME.as_bytes(), one, b" chunked"].concat());
    }
    let names = [
        "Transfer Encoding",
        "Transfer_Encoding",
        "Transfer.Encoding",
        "Transfer--Encoding",
        "TransferEncoding",
        "Transfer-Encoding-",
        "-Transfer-Encoding",
        "Transfer-Encodings",
        "TE",
        "Content-Encoding",
        "Transfer\\-Encoding",
        "\"Transfer-Encoding\"",
        "Transfer%2DEncoding",
        "Tranſfer-Encoding",
        "transfer-encoding",
        "TRANSFER-ENCODING",
        "TrAnSfEr-EnCoDiNg",
        "X\r\nTransfer-Encoding",
        "Transfer\r\n -Encoding",
        "Transfer-Encoding\r\n",
        "Transfer-Encoding\r\n ",
        "Transfer-Encoding:",
        "X: y\nTransfer-Encoding",
    ];
    let values = [
        "chunked",
        " chunked",
        "\tchunked",
        "chunked ",
        "chunked,",
        ",chunked",
        "chunked, chunked",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked;q=0",
        "chunked;a=b",
        "\"chunked\"",
        "'chunked'",
        "(chunked)",
        "xchunked",
        "chunkedx",
        "chunk",
        "chunked chunked",
        "CHUNKED",
        "cHuNkEd",
        "ch\u{fc}nked",
        "chun\u{212a}ed",
        "",
        "identity",
        "x",
        "\r\n chunked",
        "\r\n\tchunked",
        "\n chunked",
        "chunked\r\nTransfer-Encoding: x",
        "x\r\nTransfer-Encoding: chunked",
        "chunked\r\n chunked",
        "chunked\r\n\tx",
        "1",
        "true",
        "\u{feff}chunked",
        "\u{a0}chunked",
        "chunked\u{2003}",
    ];
    for separator in [":", ": ", " :", "\t:", ":\t", "::", "=", " "] {
        for name in names {
            all.extend(values[..3].iter().map(|value| format!("{name}{separator}{value}").into_bytes()));
        }
        all.extend(values.iter().map(|value| format!("{NAME}{separator}{value}").into_bytes()));
    }
    all.sort();
    all.dedup();
    all
}

#[tokio::test]
async fn no_disguise_of_transfer_encoding_goes_through() {
    let target = Recorder::start().await;
    let under = in_front_of(target.address);
    let disguises = disguises();
    assert!(disguises.len() > 1_768, "{}", disguises.len());
    for line in &disguises {
        let shown = String::from_utf8_lossy(line);
        for order in [[&line[..], b"Content-Length: 5"], [b"Content-Length: 5", &line[..]]] {
            let request =
                [b"POST /first HTTP/1.1\r\nHost: a\r\n", &order.join(&b"\r\n"[..])[..], b"\r\n\r\n"].concat();
            let mut client = under.client().await;
            client.write([&request[..], b"0\r\n\r\n"].concat()).await;
            let answer = client.head().await;
            let seen = target.take();
            for seen in &seen {
                assert_eq!(seen.fault(), None, "{shown:?}: {seen:?}");
                assert_eq!(seen.values("transfer-encoding"), [] as [String; 0], "{shown:?}: {seen:?}");
            }
            match status(&answer) {
                "200" => {
                    let lines: Vec<_> = seen.iter().map(|seen| (seen.line(), seen.body.clone())).collect();
                    // Nothing but a header that means something else, with the body that Content-Length says.
                    assert_eq!(
                        lines,
                        [("POST /first HTTP/1.1".to_owned(), b"0\r\n\r\n".to_vec())],
                        "{shown:?}"
                    );
                }
                "400" => assert_eq!(seen, [], "{shown:?}"),
                other => panic!("{shown:?} got {other}: {answer}"),
            }
        }
    }
}

#[tokio::test]
async fn no_disguise_of_transfer_encoding_comes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let health = json!({"passive": {"failures": 1_000_000}});
    let under = in_front(settings(), json!({"targets": [{"address": address}], "health": health}));
    for line in &disguises() {
        let shown = String::from_utf8_lossy(line);
        for order in [[&line[..], b"Content-Length: 5"], [b"Content-Length: 5", &line[..]]] {
            let mut client = under.client().await;
            client
                .write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .await;
            let mut target = Client(BufReader::new(patiently(listener.accept()).await.unwrap().0));
            target.head().await;
            let lines = order.join(&b"\r\n"[..]);
            let answer =
                [b"HTTP/1.1 200 OK\r\nConnection: close\r\n", &lines[..], b"\r\n\r\n0\r\n\r\n"].concat();
            // It may be hung up on.
            let _ = target.0.get_mut().write_all(&answer).await;
            drop(target);
            let got = client.rest_bytes().await;
            let end = got.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            let seen = Seen { head: got[..end].to_vec(), body: got[end..].to_vec() };
            assert_eq!(seen.fault(), None, "{shown:?}: {seen:?}");
            assert_eq!(seen.values("transfer-encoding"), [] as [String; 0], "{shown:?}: {seen:?}");
            match status(&seen.line()) {
                "200" => assert_eq!(seen.body, b"0\r\n\r\n", "{shown:?}"),
                "502" => {}
                other => panic!("{shown:?} got {other}: {seen:?}"),
            }
        }
    }
}
