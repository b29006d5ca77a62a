//! Network namespaces: places with interfaces, routes and sockets of their own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

use crate::process;

/// A named network namespace. Sockets made inside stay there, wherever they are used.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes one, with its loopback up and IPv6 addresses usable without a delay.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create(name: &str) -> Result<Arc<Self>> {
        process::run("ip", ["netns", "add", name])?;
        let file = File::open(format!("/run/netns/{name}"))?;
        let namespace = Arc::new(Self { name: name.to_owned(), file });
        namespace.ip("link set lo up")?;
        // Duplicate address detection holds an address back for a second.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
        }
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is mounted: what the annotation `ambit.dev/netns` names.
    pub fn path(&self) -> PathBuf {
        format!("/run/netns/{}", self.name).into()
    }

    /// Runs `work` on a thread inside.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let entered = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", self.name))?;
            work()
        };
        thread::scope(|scope| scope.spawn(entered).join())
            .map_err(|panic| anyhow!("work inside {} panicked: {panic:?}", self.name))?
    }

    /// A command that runs inside. The process is the program itself: its id, its signals.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command.env("TMPDIR", "/run/scratch");
        command
    }

    /// Runs `ip` with these words inside.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn ip(&self, words: &str) -> Result<()> {
        process::run("ip", ["-n", &self.name].into_iter().chain(words.split_whitespace())).map(drop)
    }

    /// Sets a kernel parameter inside, named by its path below `/proc/sys`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sysctl(&self, parameter: &str, value: &str) -> Result<()> {
        self.inside(|| fs::write(format!("/proc/sys/{parameter}"), value).context(parameter.to_owned()))
    }

    /// Connects from inside.
    ///
    /// # Errors
    /// When the far end does not accept.
    pub fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        self.inside(|| {
            TcpStream::connect_timeout(&to, Duration::from_secs(10))
                .with_context(|| format!("connecting to {to}"))
        })
    }

    /// Connects from inside with a firewall mark, as a process with CAP_NET_RAW can.
    ///
    /// # Errors
    /// When the far end does not accept `within` the time.
    pub fn connect_marked(&self, to: SocketAddr, mark: u32, within: Duration) -> Result<TcpStream> {
        self.inside(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_mark(mark)?;
            socket.connect_timeout(&to.into(), within).with_context(|| format!("connecting to {to}"))?;
            Ok(socket.into())
        })
    }

    /// Connects from inside, and from an address of it.
    ///
    /// # Errors
    /// When the address is not there, or the far end does not accept.
    pub fn connect_from(&self, address: IpAddr, to: SocketAddr) -> Result<TcpStream> {
        self.inside(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&SocketAddr::new(address, 0).into())?;
            socket
                .connect_timeout(&to.into(), Duration::from_secs(10))
                .with_context(|| format!("connecting from {address} to {to}"))?;
            Ok(socket.into())
        })
    }

    /// Listens inside, on every address of both families.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn listen(&self, port: u16) -> Result<TcpListener> {
        self.inside(|| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_only_v6(false)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
            socket.listen(2048)?;
            Ok(socket.into())
        })
    }

    /// Whether any process listens on this TCP port inside.
    ///
    /// # Errors
    /// When it cannot be seen.
    pub fn listens_on(&self, port: u16) -> Result<()> {
        if self.sockets(port, LISTEN)? == 0 {
            bail!("nobody listens on port {port} in {}", self.name);
        }
        Ok(())
    }

    /// The sockets that listen on this TCP port inside, by their inodes: whoever holds them, they are
    /// the same as long as those are.
    ///
    /// # Errors
    /// When they cannot be seen.
    pub fn listening_sockets(&self, port: u16) -> Result<BTreeSet<String>> {
        let tables = self.socket_tables()?;
        let listening = tables.lines().filter(|line| is_socket(line, port, LISTEN));
        Ok(listening.filter_map(|line| line.split_whitespace().nth(9)).map(str::to_owned).collect())
    }

    /// How many TCP connections to this port are open inside.
    ///
    /// # Errors
    /// When it cannot be seen.
    pub fn established_on(&self, port: u16) -> Result<usize> {
        self.sockets(port, ESTABLISHED)
    }

    /// How many TCP connections to this address and port are open inside.
    ///
    /// # Errors
    /// When it cannot be seen.
    pub fn established_at(&self, address: SocketAddrV4) -> Result<usize> {
        let is_there =
            |line: &str| is_socket(line, address.port(), ESTABLISHED) && is_at(line, *address.ip());
        Ok(self.socket_tables()?.lines().filter(|line| is_there(line)).count())
    }

    fn sockets(&self, port: u16, state: &str) -> Result<usize> {
        Ok(self.socket_tables()?.lines().filter(|line| is_socket(line, port, state)).count())
    }

    fn socket_tables(&self) -> Result<String> {
        self.inside(|| {
            // Of the thread: /proc/net is that of the process, which did not enter.
            let read = |family| fs::read_to_string(format!("/proc/thread-self/net/{family}"));
            Ok(read("tcp")? + &read("tcp6")?)
        })
    }
}

/// linux/tcp_states.h, as `/proc/net/tcp` shows them.
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// Reads a line of `/proc/net/tcp`: the local address is the second field and the state the fourth.
fn is_socket(line: &str, port: u16, wanted: &str) -> bool {
    let mut fields = line.split_whitespace().skip(1);
    let (Some(local), Some(state)) = (fields.next(), fields.nth(1)) else { return false };
    let is_port = || local.rsplit(':').next().and_then(|hex| u16::from_str_radix(hex, 16).ok()) == Some(port);
    state == wanted && is_port()
}

/// The kernel prints an address as a number in its own order of octets; one of IPv4 that a socket of
/// IPv6 has ends with the same.
fn is_at(line: &str, address: Ipv4Addr) -> bool {
    let local = line.split_whitespace().nth(1).and_then(|local| local.split(':').next());
    local.is_some_and(|local| local.ends_with(&format!("{:08X}", u32::from_ne_bytes(address.octets()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_socket_is_found_at_its_address_in_both_families() {
        let v4 = "   1: 02010A0A:3AA0 00000000:0000 01 00000000:00000000 00:00000000 00000000     0";
        let v6 = "   1: 0000000000000000FFFF000002010A0A:3AA0 00000000:0000 01 00000000:00000000";
        for line in [v4, v6] {
            assert!(is_at(line, Ipv4Addr::new(10, 10, 1, 2)));
            assert!(!is_at(line, Ipv4Addr::new(10, 10, 1, 3)));
        }
    }

    #[test]
    fn only_sockets_of_the_port_and_state_count() {
        let listening = "   0: 00000000:3A98 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0";
        let connected = "   1: 0100007F:3A98 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0";
        assert!(is_socket(listening, 15000, LISTEN));
        assert!(!is_socket(listening, 15001, LISTEN));
        assert!(!is_socket(connected, 15000, LISTEN));
        assert!(is_socket(connected, 15000, ESTABLISHED));
        assert!(!is_socket("  sl  local_address rem_address   st", 15000, LISTEN));
    }
}
