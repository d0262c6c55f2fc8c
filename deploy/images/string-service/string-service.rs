//! The string service, three small TCP servers in one program:
//!
//! * `upper` answers each line in upper case, `reversi` answers each line reversed;
//! * `tcpserver` passes each line through both. It finds them only by the environment variables that a pod gets
//!   for the services of its namespace (`UPPER_SERVICE_HOST`, `UPPER_SERVICE_PORT`, `REVERSI_...`).
//!
//! The port is the second argument. It serves each connection in a thread of its own, until its peer ends.

use std::io::{BufRead, BufReader, Error, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (role, port) = match arguments.as_slice() {
        [_, role, port] => (role.clone(), port.clone()),
        _ => fail("usage: string-service upper|reversi|tcpserver PORT"),
    };
    let answer: fn(&str) -> Result<String, Error> = match role.as_str() {
        "upper" => |line| Ok(line.to_uppercase()),
        "reversi" => |line| Ok(line.chars().rev().collect()),
        "tcpserver" => |line| ask("REVERSI", &ask("UPPER", line)?),
        _ => fail("the role must be upper, reversi or tcpserver"),
    };
    let listener = match TcpListener::bind(format!("0.0.0.0:{port}")) {
        Ok(listener) => listener,
        Err(error) => fail(&format!("cannot listen on port {port}: {error}")),
    };
    println!("{role} listens on port {port}");
    for stream in listener.incoming().flatten() {
        let role = role.clone();
        std::thread::spawn(move || {
            if let Err(error) = serve(stream, answer) {
                println!("{role}: {error}");
            }
        });
    }
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(64);
}

fn serve(stream: TcpStream, answer: fn(&str) -> Result<String, Error>) -> Result<(), Error> {
    let mut out = stream.try_clone()?;
    for line in BufReader::new(&stream).lines() {
        let line = line?;
        println!("received: {line}");
        writeln!(out, "{}", answer(&line)?)?;
    }
    stream.shutdown(Shutdown::Write)
}

/// Sends one line to the service that the environment names and returns its answer.
fn ask(service: &str, line: &str) -> Result<String, Error> {
    let setting = |name: String| std::env::var(&name).map_err(|_| Error::other(format!("{name} is not set")));
    let host = setting(format!("{service}_SERVICE_HOST"))?;
    let port = setting(format!("{service}_SERVICE_PORT"))?;
    let mut stream = TcpStream::connect(format!("{host}:{port}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}
