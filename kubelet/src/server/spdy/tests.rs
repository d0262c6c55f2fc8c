//! A scripted peer on the other end of a pipe.

use super::*;
use flate2::{Decompress, FlushDecompress};
use tokio::io::{DuplexStream, duplex};

/// Reads header blocks as a SPDY server does.
fn headers(inflate: &mut Decompress, block: &[u8]) -> Vec<(String, String)> {
    let mut plain = Vec::with_capacity(1024);
    inflate.decompress_vec(block, &mut plain, FlushDecompress::Sync).unwrap();
    let mut at = 0;
    let mut number = || {
        let word = u32::from_be_bytes(plain[at..at + 4].try_into().unwrap()) as usize;
        at += 4;
        word
    };
    let count = number();
    let mut texts = Vec::new();
    for _ in 0..count * 2 {
        let length = u32::from_be_bytes(plain[at..at + 4].try_into().unwrap()) as usize;
        texts.push(String::from_utf8(plain[at + 4..at + 4 + length].to_vec()).unwrap());
        at += 4 + length;
    }
    texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

async fn next(peer: &mut DuplexStream) -> Frame {
    read_frame(peer).await.unwrap().unwrap()
}

fn connected() -> (Connection<DuplexStream>, DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
    let (ours, peer) = duplex(1 << 16);
    let (connection, read) = Connection::client(ours);
    (connection, peer, tokio::spawn(read))
}

#[test]
fn frames_are_laid_out_as_the_protocol_says() {
    for (frame, bytes) in [
        (
            Frame::Data { id: 5, fin: true, data: Bytes::from_static(b"ab") },
            &[0, 0, 0, 5, 1, 0, 0, 2, b'a', b'b'][..],
        ),
        (
            Frame::SynStream { id: 1, fin: false, block: vec![9] },
            &[0x80, 3, 0, 1, 0, 0, 0, 11, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9],
        ),
        (Frame::SynReply { id: 1, fin: false }, &[0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, 1]),
        (Frame::Reset { id: 3, status: 5 }, &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5]),
        (Frame::Ping { id: 2 }, &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 2]),
        (Frame::GoAway { last: 1, status: 0 }, &[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0]),
        (Frame::Other { kind: 4 }, &[0x80, 3, 0, 4, 0, 0, 0, 0]),
    ] {
        assert_eq!(frame.encode(), bytes);
        let head: [u8; frame::HEAD] = bytes[..frame::HEAD].try_into().unwrap();
        assert_eq!(frame::length(&head), bytes.len() - frame::HEAD);
        assert_eq!(Frame::decode(head, bytes[frame::HEAD..].to_vec()).unwrap(), frame);
    }
    assert!(Frame::decode([0x80, 2, 0, 1, 0, 0, 0, 0], Vec::new()).is_err());
    assert!(Frame::decode([0x80, 3, 0, 1, 0, 0, 0, 0], Vec::new()).is_err());
}

#[tokio::test]
async fn streams_carry_headers_data_and_ends_both_ways() {
    let (connection, mut peer, reading) = connected();
    let mut inflate = Decompress::new(true);
    let mut error = connection.open(&[("streamtype", "error")]).await.unwrap();
    let mut stdin = connection.open(&[("streamtype", "stdin"), ("port", "80")]).await.unwrap();
    for (want_id, want) in
        [(1, vec![("streamtype", "error")]), (3, vec![("streamtype", "stdin"), ("port", "80")])]
    {
        let Frame::SynStream { id, fin: false, block } = next(&mut peer).await else {
            panic!("a stream is opened")
        };
        let want: Vec<_> = want.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert_eq!((id, headers(&mut inflate, &block)), (want_id, want));
        peer.write_all(&Frame::SynReply { id, fin: false }.encode()).await.unwrap();
    }
    stdin.write(b"hello").await.unwrap();
    stdin.finish().await.unwrap();
    assert_eq!(next(&mut peer).await, Frame::Data { id: 3, fin: false, data: Bytes::from_static(b"hello") });
    assert_eq!(next(&mut peer).await, Frame::Data { id: 3, fin: true, data: Bytes::new() });
    peer.write_all(&Frame::Data { id: 3, fin: false, data: Bytes::from_static(b"HELLO") }.encode())
        .await
        .unwrap();
    peer.write_all(&Frame::Other { kind: 9 }.encode()).await.unwrap();
    peer.write_all(&Frame::Data { id: 3, fin: true, data: Bytes::new() }.encode()).await.unwrap();
    assert_eq!(stdin.read().await.unwrap(), "HELLO");
    assert_eq!(stdin.read().await, None);
    peer.write_all(&Frame::Reset { id: 1, status: 5 }.encode()).await.unwrap();
    assert_eq!(error.read().await, None);
    drop(peer);
    reading.await.unwrap().unwrap();
}

#[tokio::test]
async fn pings_of_the_peer_come_back_and_its_end_ends_all_streams() {
    let (connection, mut peer, reading) = connected();
    let mut stream = connection.open(&[]).await.unwrap();
    next(&mut peer).await;
    peer.write_all(&Frame::Ping { id: 2 }.encode()).await.unwrap();
    peer.write_all(&Frame::Ping { id: 1 }.encode()).await.unwrap();
    assert_eq!(next(&mut peer).await, Frame::Ping { id: 2 });
    connection.close().await;
    assert_eq!(next(&mut peer).await, Frame::GoAway { last: 0, status: 0 });
    drop(peer);
    assert_eq!(stream.read().await, None);
    reading.await.unwrap().unwrap();
}
