//! Asking a proxy for a way on by SOCKS, version 5 (RFC 1928, RFC 1929).

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dialer::Stream;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
/// The version of what is said about the login.
const LOGIN_VERSION: u8 = 1;

/// Has the proxy connect to a host, whose name it resolves, and port.
pub(super) async fn ask(
    stream: &mut Stream,
    host: &str,
    port: u16,
    login: Option<&(String, String)>,
) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let method = if login.is_some() { LOGIN } else { NO_LOGIN };
    stream.write_all(&[VERSION, 1, method]).await.map_err(failed)?;
    match take::<2>(stream).await? {
        [VERSION, chosen] if chosen == method => {}
        [VERSION, _] => return Err("no acceptable authentication methods".to_owned()),
        [other, _] => return Err(format!("unexpected protocol version {other}")),
    }
    if let Some((name, password)) = login {
        let said = [vec![LOGIN_VERSION], text(name)?, text(password)?].concat();
        stream.write_all(&said).await.map_err(failed)?;
        if take::<2>(stream).await?[1] != 0 {
            return Err("username/password authentication failed".to_owned());
        }
    }
    let address = match host.parse() {
        Ok(std::net::IpAddr::V4(address)) => [&[1][..], &address.octets()].concat(),
        Ok(std::net::IpAddr::V6(address)) => [&[4][..], &address.octets()].concat(),
        Err(_) => [vec![3], text(host)?].concat(),
    };
    let request = [&[VERSION, 1, 0][..], &address, &port.to_be_bytes()].concat();
    stream.write_all(&request).await.map_err(failed)?;
    let [_, code, _, kind] = take::<4>(stream).await?;
    if code != 0 {
        return Err(reason(code).to_owned());
    }
    // Where the proxy speaks from: nobody wants to know.
    let size = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(take::<1>(stream).await?[0]),
        other => return Err(format!("unknown address type {other}")),
    };
    let mut rest = vec![0; size + 2];
    stream.read_exact(&mut rest).await.map_err(failed)?;
    Ok(())
}

async fn take<const N: usize>(stream: &mut Stream) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// A text with its length before it.
fn text(text: &str) -> Result<Vec<u8>, String> {
    let size = u8::try_from(text.len()).map_err(|_| "a name is too long".to_owned())?;
    Ok([&[size][..], text.as_bytes()].concat())
}

fn reason(code: u8) -> &'static str {
    match code {
        1 => "general SOCKS server failure",
        2 => "connection not allowed by ruleset",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => "unknown code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a proxy hears that says this; and what comes of it.
    async fn asked(host: &str, login: Option<(&str, &str)>, says: &[u8]) -> (Vec<u8>, Result<(), String>) {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut stream: Stream = Box::new(near);
        far.write_all(says).await.expect("said");
        let login = login.map(|(name, password)| (name.to_owned(), password.to_owned()));
        let outcome = ask(&mut stream, host, 443, login.as_ref()).await;
        drop(stream);
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.expect("heard");
        (heard, outcome)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_names_and_addresses() {
        let opened = [5, 0, 0, 1, 127, 0, 0, 1, 0, 80];
        let (heard, outcome) = asked("a.b", None, &[&[5, 0][..], &opened].concat()).await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(heard, [&[5, 1, 0, 5, 1, 0, 3, 3][..], b"a.b", &[1, 187]].concat());
        let by_name = [5, 0, 0, 3, 2, b'x', b'y', 0, 80];
        let (heard, outcome) =
            asked("10.0.0.1", Some(("u", "pw")), &[&[5, 2, 1, 0][..], &by_name].concat()).await;
        assert_eq!(outcome, Ok(()));
        let login = [&[1, 1][..], b"u", &[2], b"pw"].concat();
        assert_eq!(heard, [&[5, 1, 2][..], &login, &[5, 1, 0, 1, 10, 0, 0, 1, 1, 187]].concat());
    }

    #[tokio::test]
    async fn what_a_proxy_refuses_is_told() {
        for (login, says, expected) in [
            (None, &[5, 255][..], "no acceptable authentication methods"),
            (None, &[4, 0], "unexpected protocol version 4"),
            (Some(("u", "p")), &[5, 2, 1, 1], "username/password authentication failed"),
            (None, &[5, 0, 5, 5, 0, 1], "connection refused"),
        ] {
            assert_eq!(asked("::1", login, says).await.1, Err(expected.to_owned()));
        }
    }
}
