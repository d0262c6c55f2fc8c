//! A WebSocket client on one end, a scripted SPDY server on the other.

use super::*;
use crate::server::spdy::Frame;
use tokio::io::{DuplexStream, duplex};

async fn frame(peer: &mut DuplexStream) -> Frame {
    let mut head = [0; 8];
    peer.read_exact(&mut head).await.unwrap();
    let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
    let mut body = vec![0; length];
    peer.read_exact(&mut body).await.unwrap();
    Frame::decode(head, body).unwrap()
}

async fn websocket() -> (Socket<DuplexStream>, Socket<DuplexStream>) {
    let (ours, theirs) = duplex(1 << 16);
    tokio::join!(
        WebSocketStream::from_raw_socket(ours, Role::Server, None),
        WebSocketStream::from_raw_socket(theirs, Role::Client, None)
    )
}

#[test]
fn best_protocol_is_chosen_for_websockets_only() {
    for (upgrade, offered, want) in [
        ("websocket", "v5.channel.k8s.io, v4.channel.k8s.io", Some(Protocol::Channels(V5))),
        ("WebSocket", "v4.channel.k8s.io,channel.k8s.io", Some(Protocol::Channels(V4))),
        ("websocket", "SPDY/3.1+portforward.k8s.io", Some(Protocol::Tunnel)),
        ("websocket", "base64.channel.k8s.io", None),
        ("SPDY/3.1", "v5.channel.k8s.io", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, upgrade.parse().unwrap());
        headers.insert(SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
        assert_eq!(wanted(&headers), want, "{upgrade} {offered}");
    }
}

#[tokio::test]
async fn channels_become_streams_and_back() {
    let (socket, mut client) = websocket().await;
    let (backend, mut peer) = duplex(1 << 16);
    let (connection, reading) = Connection::client(backend);
    tokio::spawn(reading);
    let streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
    let done = tokio::spawn(async move { translate(socket, &connection, streams).await });
    for want in [1, 3, 5, 7] {
        assert!(matches!(frame(&mut peer).await, Frame::SynStream { id, .. } if id == want));
    }
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(Bytes::from_static(&[STDOUT])));
    client.send(Message::Binary(Bytes::from_static(b"\x00hi"))).await.unwrap();
    client.send(Message::Binary(Bytes::from_static(&[CLOSE, STDIN]))).await.unwrap();
    assert_eq!(frame(&mut peer).await, Frame::Data { id: 3, fin: false, data: Bytes::from_static(b"hi") });
    assert_eq!(frame(&mut peer).await, Frame::Data { id: 3, fin: true, data: Bytes::new() });
    for (id, data) in [(1, "{\"status\":\"Success\"}"), (5, "out"), (7, "err")] {
        peer.write_all(&Frame::Data { id, fin: false, data: Bytes::from(data) }.encode()).await.unwrap();
    }
    for id in [5, 7, 1] {
        peer.write_all(&Frame::Data { id, fin: true, data: Bytes::new() }.encode()).await.unwrap();
    }
    let mut got = Vec::new();
    while let Some(Ok(message)) = client.next().await {
        if let Message::Binary(data) = message {
            got.push(String::from_utf8(data.to_vec()).unwrap());
        }
    }
    assert_eq!(got.pop().unwrap(), "\u{3}{\"status\":\"Success\"}", "the result comes last");
    got.sort();
    assert_eq!(got, ["\u{1}out", "\u{2}err"]);
    done.await.unwrap().unwrap();
}

#[tokio::test]
async fn tunnel_passes_bytes_through() {
    let (socket, mut client) = websocket().await;
    let (backend, mut peer) = duplex(1 << 16);
    let done = tokio::spawn(pass_through(socket, backend));
    client.send(Message::Binary(Bytes::from_static(b"ping"))).await.unwrap();
    let mut got = [0; 4];
    peer.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");
    peer.write_all(b"pong").await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(Bytes::from_static(b"pong")));
    drop(peer);
    assert!(
        matches!(client.next().await, Some(Ok(Message::Close(Some(frame)))) if frame.code == CloseCode::Normal)
    );
    done.await.unwrap().unwrap();
}
