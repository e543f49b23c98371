//! Whoever else connects is refused and disturbs nobody.

use crate::meeting::{group, watchdog, AllGather};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trellink::rendezvous::message::{
    DeviceKind, Hello, Malformed, Message, Refusal, MAX_BYTES, VERSION,
};
use trellink::{Error, ExchangePath, Rank, Rendezvous};

fn connect(path: &Path) -> OwnedFd {
    let socket = unconnected();
    net::connect(&socket, &address(path)).unwrap();
    socket
}

fn send(socket: &OwnedFd, bytes: &[u8]) {
    net::send(socket, bytes, net::SendFlags::NOSIGNAL).unwrap();
}

/// Sends bytes along with a file descriptor.
fn send_with_handle(socket: &OwnedFd, bytes: &[u8]) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = net::SendAncillaryBuffer::new(&mut space);
    let handles = [socket.as_fd(), socket.as_fd()];
    assert!(ancillary.push(net::SendAncillaryMessage::ScmRights(&handles)));
    let parts = [rustix::io::IoSlice::new(bytes)];
    net::sendmsg(socket, &parts, &mut ancillary, net::SendFlags::NOSIGNAL).unwrap();
}

/// The answer, if there is one before the connection closes.
fn answer(socket: &OwnedFd) -> Option<Message> {
    let mut bytes = [0; MAX_BYTES];
    let count = match net::recv(socket, &mut bytes, net::RecvFlags::empty()) {
        Ok((_, count)) => count,
        // It was closed without being read.
        Err(Errno::CONNRESET) => 0,
        Err(error) => panic!("{error}"),
    };
    (count > 0).then(|| Message::decode(&bytes[..count]).unwrap())
}

fn refusal(socket: &OwnedFd) -> String {
    match answer(socket) {
        Some(Message::Refusal(Refusal { missing: 0, reason })) => reason,
        other => panic!("{other:?}"),
    }
}

fn hello(rank: u8) -> Hello {
    Hello {
        rank,
        world: 3,
        kind: DeviceKind::Host,
        device: [0; 16],
        slot_values: 256,
        first_epoch: 1,
        scrub_period: 1 << 13,
        path: ExchangePath::Auto,
        probe_links: true,
    }
}

/// As soon as somebody listens there.
fn connect_in_time(path: &Path) -> OwnedFd {
    loop {
        let socket = unconnected();
        if net::connect(&socket, &address(path)).is_ok() {
            return socket;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Says hello to rank 0 as rank 1 of 3 would. When this returns, rank 0 knows its rank 1.
pub fn be_let_in_as_rank_1(path: &Path) -> OwnedFd {
    let socket = connect_in_time(path);
    send(&socket, &Message::Hello(hello(1)).encode());
    match answer(&socket) {
        Some(Message::Hello(Hello { rank: 0, .. })) => socket,
        other => panic!("{other:?}"),
    }
}

/// Runs `disturb` with the socket of rank 0 while ranks 0 and 1 wait for rank 2, which then joins.
fn disturbed(disturb: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("meeting");
    let rendezvous = Rendezvous::directory(&directory).timeout(Duration::from_secs(30));
    let join = |rank| group(3).join(rank, &rendezvous).unwrap();
    let ranks: Vec<Rank> = std::thread::scope(|scope| {
        let early = [0, 1].map(|rank| scope.spawn(move || join(rank)));
        let socket: PathBuf = directory.join("rank-0");
        connect_in_time(&socket);
        disturb(&socket);
        let last = join(2);
        let mut ranks: Vec<Rank> = early.map(|thread| thread.join().unwrap()).into();
        ranks.push(last);
        ranks
    });
    ranks.iter().for_each(|rank| rank.check().unwrap());
}

fn unconnected() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    // Of an answer that does not come: longer than ranks wait here.
    let limit = Some(Duration::from_secs(60));
    net::sockopt::set_socket_timeout(&socket, net::sockopt::Timeout::Recv, limit).unwrap();
    socket
}

fn address(path: &Path) -> SocketAddrUnix {
    SocketAddrUnix::new(path).unwrap()
}

#[test]
fn bytes_that_are_no_hello_are_refused() {
    let _watchdog = watchdog("no hello");
    disturbed(|path| {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 1], &[0xff; 64]] {
            let stranger = connect(path);
            send(&stranger, bytes);
            assert_eq!(refusal(&stranger), Malformed::Foreign.to_string());
        }
        let stranger = connect(path);
        send(&stranger, &vec![b'x'; 100_000]);
        assert!(refusal(&stranger).contains("100000 bytes"));
        for message in [
            Message::Ready,
            Message::Goodbye,
            Message::Refusal(Refusal::new(7, "no")),
        ] {
            let stranger = connect(path);
            send_with_handle(&stranger, &message.encode());
            assert_eq!(refusal(&stranger), "say hello first");
        }
    });
}

#[test]
fn a_process_of_another_version_is_told_so() {
    let _watchdog = watchdog("another version");
    disturbed(|path| {
        let stranger = connect(path);
        let mut bytes = Message::Hello(hello(2)).encode();
        bytes[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
        send(&stranger, &bytes);
        let told = refusal(&stranger);
        let expected = format!("speaks version {} of the protocol", VERSION + 1);
        assert!(told.contains(&expected), "{told}");
    });
}

#[test]
fn a_process_that_claims_the_rank_it_speaks_to_is_refused() {
    let _watchdog = watchdog("a second rank 0");
    disturbed(|path| {
        for _ in 0..3 {
            let stranger = connect(path);
            send(&stranger, &Message::Hello(hello(0)).encode());
            assert_eq!(refusal(&stranger), "rank 0 is another process");
        }
    });
}

/// The first is played here: of a real rank 1 nobody sees when rank 0 has let it in.
#[test]
fn a_second_process_that_claims_a_rank_is_refused_and_the_first_keeps_its_place() {
    let _watchdog = watchdog("a second rank 1");
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("meeting");
    let rendezvous = Rendezvous::directory(&directory);
    std::thread::scope(|scope| {
        let rank_0 = scope.spawn(|| group(3).join(0, &rendezvous));
        let path = directory.join("rank-0");
        let first = be_let_in_as_rank_1(&path);
        let second = connect(&path);
        send(&second, &Message::Hello(hello(1)).encode());
        assert_eq!(refusal(&second), "rank 1 is another process");
        drop(second);
        drop(first);
        let error = rank_0.join().unwrap().unwrap_err();
        let named = matches!(error, Error::PeerLost { rank: 0, peer: 1 });
        assert!(named, "{error}");
    });
}

#[test]
fn many_who_say_nothing_or_go_at_once_hold_up_nobody() {
    let _watchdog = watchdog("silent strangers");
    let mut silent = Vec::new();
    disturbed(|path| {
        for _ in 0..100 {
            silent.push(connect(path));
            drop(connect(path));
        }
    });
}

/// The kernel says for which user a thread has connected, and a thread of root may become another.
#[test]
fn a_process_of_another_user_is_not_even_listened_to() {
    let _watchdog = watchdog("another user");
    if !rustix::process::geteuid().is_root() {
        crate::common::say!("another user: skipped, only root can become another user");
        return;
    }
    let gather = AllGather::new(2);
    std::thread::scope(|scope| {
        let (first, guarded) = (gather.of_rank(0), &gather);
        let _break_on_panic = gather.guard();
        let first = scope.spawn(move || {
            let _break_on_panic = guarded.guard();
            group(2).join(0, &first)
        });
        let name = loop {
            if let Ok(Message::Address(address)) = Message::decode(&gather.part(0)) {
                break address.name;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let stranger = scope.spawn(move || connect_as_another_user(&name));
        let stranger = stranger.join().unwrap();
        group(2).join(1, &gather.of_rank(1)).unwrap();
        first.join().unwrap().unwrap();
        assert_eq!(answer(&stranger), None);
    });
}

/// Only for the calling thread, which is to end soon: the kernel keeps users by thread.
fn connect_as_another_user(name: &[u8]) -> OwnedFd {
    const NOBODY: libc::c_long = 65534;
    // SAFETY: a system call on three integers; it changes the user of this thread alone.
    let status = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    assert_eq!(status, 0);
    let socket = unconnected();
    net::connect(&socket, &SocketAddrUnix::new_abstract_name(name).unwrap()).unwrap();
    send(
        &socket,
        &Message::Hello(Hello {
            world: 2,
            ..hello(1)
        })
        .encode(),
    );
    socket
}
