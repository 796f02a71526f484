//! Ports of 127.0.0.1 that stay ours while a process on them is down.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use rand::Rng;

use crate::ServerError;

/// Below the range from which Linux takes the ports of outgoing connections, so that none of
/// those sits on a port while its `mongod` restarts.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port, reserved against all others of ours on this machine.
///
/// The reservation is an abstract Unix socket of that name: it leaves no file, and the kernel
/// frees it with the process.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: UnixListener,
}

impl Port {
    /// A free port, not listened on by anybody and not reserved by us.
    pub fn free() -> Result<Self, ServerError> {
        let mut rng = rand::rng();
        (0..1000).find_map(|_| Self::try_reserve(rng.random_range(RANGE))).ok_or(ServerError::NoPort)
    }

    fn try_reserve(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("stillpoint-port-{number}")).ok()?;
        let reservation = UnixListener::bind_addr(&name).ok()?;
        TcpListener::bind(("127.0.0.1", number)).ok()?;
        Some(Self { number, _reservation: reservation })
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}
