//! Connections between the network inside and the one outside, over Unix sockets that both see.
//!
//! A connection begins with one line, the address to connect to; then bytes are copied both ways.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, copy_bidirectional};

use super::names::{CRATES, CRATES_ADDRESSES};

/// Accepts connections from inside.
const OUTSIDE: &str = "outside.sock";
/// Accepts connections from outside.
const INSIDE: &str = "inside.sock";

/// A port on loopback outside, and the address inside to which it leads.
#[derive(Debug, Clone, Copy)]
pub struct Forward {
    pub port: u16,
    pub to: SocketAddr,
}

/// Outside: connects what comes from inside to hosts of crates.io, and the ports of `forwards` to addresses inside.
pub fn serve_outside(sockets: &Path, forwards: &[Forward]) {
    let listener = UnixListener::bind(sockets.join(OUTSIDE)).expect("a socket");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || connect_outside(stream));
        }
    });
    for forward in forwards {
        let listener = TcpListener::bind(("127.0.0.1", forward.port)).expect("a port");
        let (socket, to) = (sockets.join(INSIDE), forward.to);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Ok(mut inside) = UnixStream::connect(&socket) else { continue };
                if writeln!(inside, "{to}").is_ok() {
                    let other = inside.try_clone().and_then(|inside| Ok((inside, stream.try_clone()?)));
                    let Ok((inside_reader, stream_writer)) = other else { continue };
                    thread::spawn(move || {
                        copy(inside_reader, stream_writer, |stream| stream.shutdown(Shutdown::Write))
                    });
                    thread::spawn(move || copy(stream, inside, |inside| inside.shutdown(Shutdown::Write)));
                }
            }
        });
    }
}

fn connect_outside(stream: UnixStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut target = String::new();
    reader.read_line(&mut target)?;
    let target = target.trim_end();
    if !CRATES.iter().any(|host| target == format!("{host}:443")) {
        return Ok(());
    }
    let peer = TcpStream::connect(target)?;
    let peer_reader = peer.try_clone()?;
    thread::spawn(move || copy(peer_reader, stream, |stream| stream.shutdown(Shutdown::Write)));
    copy(reader, peer, |peer| peer.shutdown(Shutdown::Write))
}

fn copy<W: Write>(mut from: impl io::Read, mut to: W, end: impl FnOnce(&W) -> io::Result<()>) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    end(&to)
}

/// Inside: leads the addresses of crates.io out, and connects what comes from outside.
pub async fn serve_inside(sockets: &Path) -> io::Result<()> {
    for (host, address) in CRATES.into_iter().zip(CRATES_ADDRESSES) {
        let listener = tokio::net::TcpListener::bind((address, 443)).await?;
        let socket = sockets.join(OUTSIDE);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Ok(mut out) = tokio::net::UnixStream::connect(&socket).await else { continue };
                tokio::spawn(async move {
                    out.write_all(format!("{host}:443\n").as_bytes()).await?;
                    copy_bidirectional(&mut stream, &mut out).await
                });
            }
        });
    }
    let listener = tokio::net::UnixListener::bind(sockets.join(INSIDE))?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = tokio::io::BufReader::new(stream);
                let mut target = String::new();
                stream.read_line(&mut target).await?;
                let mut peer = tokio::net::TcpStream::connect(target.trim_end()).await?;
                copy_bidirectional(&mut stream, &mut peer).await
            });
        }
    });
    Ok(())
}
