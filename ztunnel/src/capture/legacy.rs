//! Lists the chains of the older iptables (ip_tables, not nf_tables) without its programs, which
//! the agent's image need not have.
//!
//! Formats: `linux/netfilter_ipv4/ip_tables.h`, `linux/netfilter/x_tables.h`.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Every chain as (table, chain), in the namespace the thread is in. A family or table that cannot
/// be read has none that could act.
pub(super) fn chains() -> Vec<(String, String)> {
    FAMILIES.iter().flat_map(chains_of).collect()
}

struct Family {
    /// The tables that exist; asking for another would make it.
    tables: &'static str,
    family: AddressFamily,
    level: i32,
    /// Octets of an entry before its target: struct ipt_entry, struct ip6t_entry.
    entry: EntryFormat,
}

/// Where an entry says where its target and the next entry begin.
#[derive(Clone, Copy)]
struct EntryFormat {
    target_offset: usize,
    next_offset: usize,
}

const FAMILIES: [Family; 2] = [
    Family {
        tables: "/proc/thread-self/net/ip_tables_names",
        family: AddressFamily::Inet,
        level: libc::SOL_IP,
        entry: EntryFormat { target_offset: 88, next_offset: 90 },
    },
    Family {
        tables: "/proc/thread-self/net/ip6_tables_names",
        family: AddressFamily::Inet6,
        level: libc::SOL_IPV6,
        entry: EntryFormat { target_offset: 140, next_offset: 142 },
    },
];

/// IPT_SO_GET_INFO, IP6T_SO_GET_INFO
const GET_INFO: i32 = 64;
/// IPT_SO_GET_ENTRIES, IP6T_SO_GET_ENTRIES
const GET_ENTRIES: i32 = 65;
/// Octets of a table's name: XT_TABLE_MAXNAMELEN.
const TABLE_NAME: usize = 32;
/// Octets of struct ipt_getinfo, whose last four are the size of the entries.
const INFO: usize = 84;
/// Octets of struct ipt_get_entries before the entries; the size is at 32.
const ENTRIES_HEADER: usize = 40;

fn chains_of(family: &Family) -> Vec<(String, String)> {
    let Ok(tables) = fs::read_to_string(family.tables) else { return Vec::new() };
    let Ok(socket) = socket(family.family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) else {
        return Vec::new();
    };
    let mut chains = Vec::new();
    for table in tables.lines() {
        let entries = read_entries(&socket, family.level, table).unwrap_or_default();
        chains.extend(chain_names(&entries, family.entry).into_iter().map(|chain| (table.to_owned(), chain)));
    }
    chains
}

fn read_entries(socket: &OwnedFd, level: i32, table: &str) -> io::Result<Vec<u8>> {
    let mut info = vec![0; INFO];
    let name = table.as_bytes().get(..TABLE_NAME - 1).unwrap_or(table.as_bytes());
    info[..name.len()].copy_from_slice(name);
    ask(socket, level, GET_INFO, &mut info)?;
    let size = read_u32(&info, INFO - 4).unwrap_or(0);
    let mut entries = vec![0; ENTRIES_HEADER + usize::try_from(size).unwrap_or(0)];
    entries[..name.len()].copy_from_slice(name);
    entries[TABLE_NAME..TABLE_NAME + 4].copy_from_slice(&size.to_ne_bytes());
    ask(socket, level, GET_ENTRIES, &mut entries)?;
    Ok(entries.split_off(ENTRIES_HEADER))
}

/// getsockopt with a value that is read and written.
#[expect(unsafe_code, reason = "no crate wraps these options")]
fn ask(socket: &OwnedFd, level: i32, option: i32, value: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: `value` is valid for reads and writes of `length` octets, and the kernel writes no
    // more than that; the descriptor is open for the whole call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A chain that a user made begins with an entry whose target is `ERROR` and carries its name.
fn chain_names(mut entries: &[u8], format: EntryFormat) -> Vec<String> {
    /// Octets of struct xt_entry_target: size, name (29), revision.
    const TARGET_HEADER: usize = 32;
    let mut names = Vec::new();
    while let Some((target, next)) =
        read_u16(entries, format.target_offset).zip(read_u16(entries, format.next_offset))
    {
        let target = entries.get(target..next).unwrap_or_default();
        if text(target.get(2..TARGET_HEADER - 1)) == Some("ERROR") {
            names.extend(text(target.get(TARGET_HEADER..)).map(str::to_owned));
        }
        // An entry of no length would never end.
        entries = entries.get(next.max(1)..).unwrap_or_default();
    }
    names
}

fn text(bytes: Option<&[u8]>) -> Option<&str> {
    str::from_utf8(bytes?.split(|byte| *byte == 0).next()?).ok()
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u16(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?).into())
}
