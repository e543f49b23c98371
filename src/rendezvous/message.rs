//! What the processes of a group say to one another, as bytes.
//!
//! What must stay true: no bytes make [`Message::decode`] panic or allocate more than [`MAX_BYTES`],
//! and only those that [`Message::encode`] writes are accepted. There is no I/O here, so that tests
//! and the fuzzer reach every line. A message is a header (magic, version, kind, length of the
//! rest) and a rest of that length; numbers are little-endian.

use crate::{ExchangePath, MAX_WORLD};

/// Goes up with every change of the messages, of the packets and their arenas, or of the page that
/// failures are written to: processes of one group must agree on all of them.
pub const VERSION: u16 = 5;

/// A message has no more bytes than this.
pub const MAX_BYTES: usize = 1024;

const MAGIC: [u8; 8] = *b"trellink";
const HEADER_BYTES: usize = 16;
/// Keeps a refusal with its reason below [`MAX_BYTES`], whatever the reason.
const MAX_TEXT_BYTES: usize = 768;
/// Longer than any name that [`Address`] is made for, shorter than what a socket address holds.
const MAX_NAME_BYTES: usize = 64;

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Who speaks; the first message of each side.
    Hello(Hello),
    /// Where a rank listens; travels through the caller's own exchange.
    Address(Address),
    /// A file descriptor comes with this message.
    Share(Share),
    /// The sender has everything it needs of everybody.
    Ready,
    /// The sender will not be in a group with the receiver.
    Refusal(Refusal),
    /// What is in the way of exchanging directly, as the sender has found; empty if nothing is.
    Obstacle(String),
    /// The sender leaves in good order.
    Goodbye,
}

/// A rank, and what all ranks of a group must agree on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The sender.
    pub rank: u8,
    /// Ranks of its group.
    pub world: u8,
    /// Where it runs.
    pub kind: DeviceKind,
    /// The UUID of its CUDA device; ordinals may differ between processes.
    pub device: [u8; 16],
    /// Values in a slot of an arena.
    pub slot_values: u64,
    /// The number of the first exchange.
    pub first_epoch: u32,
    /// Calls between two renewals of an arena's tags.
    pub scrub_period: u32,
    /// Which way packets may take.
    pub path: ExchangePath,
    /// Whether links are probed.
    pub probe_links: bool,
}

/// The kind of a rank's device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceKind {
    /// The CPU.
    Host,
    /// A CUDA device.
    Cuda,
}

/// The abstract socket on which a rank listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The rank.
    pub rank: u8,
    /// Ranks of its group.
    pub world: u8,
    /// The name of the socket.
    pub name: Vec<u8>,
}

/// What a file descriptor stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Which memory it is.
    pub what: Shared,
    /// Its size.
    pub bytes: u64,
}

/// Memory that processes share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shared {
    /// The page with the abort word and the reports.
    Board,
    /// The sender's arena.
    Arena,
}

/// Why there will be no group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Bit r: the sender has waited for rank r in vain.
    pub missing: u8,
    /// For a reader.
    pub reason: String,
}

/// Why bytes are not a message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// They do not begin like one.
    #[error("it does not speak this protocol")]
    Foreign,
    /// They begin like one of another version.
    #[error("it speaks version {found} of the protocol, this process version {VERSION}")]
    Version {
        /// The version found.
        found: u16,
    },
    /// They are more or fewer than the header says or than are allowed.
    #[error("its message has {found} bytes where {expected} were expected")]
    Length {
        /// Bytes found.
        found: usize,
        /// What the header or the limit says.
        expected: usize,
    },
    /// A field has a value that no sender writes.
    #[error("its message has an impossible {field}")]
    Field {
        /// The field.
        field: &'static str,
    },
}

/// A setting in which two ranks differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Its name, as in [`Group`](crate::Group).
    pub setting: &'static str,
    /// The value of the rank that compares.
    pub own: String,
    /// The other's value.
    pub theirs: String,
}

impl Hello {
    /// The first setting in which two ranks of one group differ.
    pub fn difference(&self, other: &Hello) -> Option<Difference> {
        let pairs = self.settings().into_iter().zip(other.settings());
        let mut different = pairs.filter(|(own, theirs)| own != theirs);
        different
            .next()
            .map(|((setting, own), (_, theirs))| Difference {
                setting,
                own,
                theirs,
            })
    }

    /// What must be the same on all ranks, in words.
    fn settings(&self) -> [(&'static str, String); 7] {
        [
            ("a world of", self.world.to_string()),
            ("a device of kind", self.kind.to_string()),
            ("slot_values", self.slot_values.to_string()),
            ("first_epoch", self.first_epoch.to_string()),
            ("scrub_period", self.scrub_period.to_string()),
            ("path", self.path.to_string()),
            ("probe_links", self.probe_links.to_string()),
        ]
    }
}

impl std::fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DeviceKind::Host => "host",
            DeviceKind::Cuda => "cuda",
        })
    }
}

impl Refusal {
    /// A refusal whose reason is cut to what a message holds.
    pub fn new(missing: u8, reason: &str) -> Self {
        Refusal {
            missing,
            reason: cut(reason),
        }
    }
}

/// As much of a text as a message holds.
fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl Message {
    /// An obstacle, cut to what a message holds.
    pub fn obstacle(text: &str) -> Self {
        Message::Obstacle(cut(text))
    }

    /// The bytes of this message, at most [`MAX_BYTES`].
    pub fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::new();
        let kind: u16 = match self {
            Message::Hello(hello) => {
                hello.encode(&mut rest);
                1
            }
            Message::Address(address) => {
                rest.extend([address.rank, address.world]);
                rest.extend(&address.name);
                2
            }
            Message::Share(share) => {
                rest.push(match share.what {
                    Shared::Board => 0,
                    Shared::Arena => 1,
                });
                rest.extend(share.bytes.to_le_bytes());
                3
            }
            Message::Ready => 4,
            Message::Refusal(refusal) => {
                rest.push(refusal.missing);
                rest.extend(refusal.reason.as_bytes());
                5
            }
            Message::Goodbye => 6,
            Message::Obstacle(text) => {
                rest.extend(text.as_bytes());
                7
            }
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + rest.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend((rest.len() as u32).to_le_bytes());
        bytes.extend(rest);
        bytes
    }

    /// The message that these bytes are, all of them.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let magic = reader.array().map_err(|_| Malformed::Foreign)?;
        if magic != MAGIC {
            return Err(Malformed::Foreign);
        }
        // Before anything else: what follows may mean something else in another version.
        let found = u16::from_le_bytes(reader.array()?);
        if found != VERSION {
            return Err(Malformed::Version { found });
        }
        let kind = u16::from_le_bytes(reader.array()?);
        let expected = u32::from_le_bytes(reader.array()?) as usize;
        let expected = expected.min(MAX_BYTES - HEADER_BYTES);
        if reader.0.len() != expected {
            let found = reader.0.len();
            return Err(Malformed::Length { found, expected });
        }
        let message = reader.message(kind)?;
        match reader.0 {
            [] => Ok(message),
            rest => Err(Malformed::Length {
                found: expected,
                expected: expected - rest.len(),
            }),
        }
    }
}

impl Hello {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend([self.rank, self.world]);
        bytes.push(match self.kind {
            DeviceKind::Host => 0,
            DeviceKind::Cuda => 1,
        });
        bytes.extend(self.device);
        bytes.extend(self.slot_values.to_le_bytes());
        bytes.extend(self.first_epoch.to_le_bytes());
        bytes.extend(self.scrub_period.to_le_bytes());
        bytes.push(match self.path {
            ExchangePath::Auto => 0,
            ExchangePath::Direct => 1,
            ExchangePath::HostMemory => 2,
        });
        bytes.push(self.probe_links.into());
    }
}

/// The bytes that are left.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((taken, rest)) = self.0.split_first_chunk::<N>() else {
            return Err(Malformed::Length {
                found: self.0.len(),
                expected: N,
            });
        };
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    fn rest(&mut self) -> &[u8] {
        std::mem::take(&mut self.0)
    }

    fn message(&mut self, kind: u16) -> Result<Message, Malformed> {
        Ok(match kind {
            1 => Message::Hello(self.hello()?),
            2 => Message::Address(self.address()?),
            3 => Message::Share(self.share()?),
            4 => Message::Ready,
            5 => Message::Refusal(self.refusal()?),
            6 => Message::Goodbye,
            7 => Message::Obstacle(self.text()?),
            _ => return Err(Malformed::Field { field: "kind" }),
        })
    }

    fn hello(&mut self) -> Result<Hello, Malformed> {
        let (rank, world) = self.rank_and_world()?;
        let kind = match self.byte()? {
            0 => DeviceKind::Host,
            1 => DeviceKind::Cuda,
            _ => return Err(Malformed::Field { field: "device" }),
        };
        Ok(Hello {
            rank,
            world,
            kind,
            device: self.array()?,
            slot_values: u64::from_le_bytes(self.array()?),
            first_epoch: u32::from_le_bytes(self.array()?),
            scrub_period: u32::from_le_bytes(self.array()?),
            path: match self.byte()? {
                0 => ExchangePath::Auto,
                1 => ExchangePath::Direct,
                2 => ExchangePath::HostMemory,
                _ => return Err(Malformed::Field { field: "path" }),
            },
            probe_links: match self.byte()? {
                0 => false,
                1 => true,
                _ => {
                    return Err(Malformed::Field {
                        field: "probe_links",
                    })
                }
            },
        })
    }

    fn rank_and_world(&mut self) -> Result<(u8, u8), Malformed> {
        let (rank, world) = (self.byte()?, self.byte()?);
        if usize::from(world) > MAX_WORLD {
            return Err(Malformed::Field { field: "world" });
        }
        if rank >= world {
            return Err(Malformed::Field { field: "rank" });
        }
        Ok((rank, world))
    }

    fn address(&mut self) -> Result<Address, Malformed> {
        let (rank, world) = self.rank_and_world()?;
        let name = self.rest();
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(Malformed::Field { field: "name" });
        }
        let name = name.to_vec();
        Ok(Address { rank, world, name })
    }

    fn share(&mut self) -> Result<Share, Malformed> {
        let what = match self.byte()? {
            0 => Shared::Board,
            1 => Shared::Arena,
            _ => return Err(Malformed::Field { field: "memory" }),
        };
        let bytes = u64::from_le_bytes(self.array()?);
        Ok(Share { what, bytes })
    }

    fn refusal(&mut self) -> Result<Refusal, Malformed> {
        Ok(Refusal {
            missing: self.byte()?,
            reason: self.text()?,
        })
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let text = self.rest();
        if text.len() > MAX_TEXT_BYTES {
            return Err(Malformed::Field { field: "reason" });
        }
        let text = std::str::from_utf8(text);
        let text = text.map_err(|_| Malformed::Field { field: "reason" })?;
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> impl Strategy<Value = Hello> {
        let path = prop_oneof![
            Just(ExchangePath::Auto),
            Just(ExchangePath::Direct),
            Just(ExchangePath::HostMemory)
        ];
        let settings = (
            any::<u64>(),
            any::<u32>(),
            any::<u32>(),
            path,
            any::<bool>(),
        );
        (
            1..=MAX_WORLD as u8,
            any::<u8>(),
            any::<[u8; 16]>(),
            settings,
        )
            .prop_map(
                |(
                    world,
                    rank,
                    device,
                    (slot_values, first_epoch, scrub_period, path, probe_links),
                )| Hello {
                    rank: rank % world,
                    world,
                    kind: [DeviceKind::Host, DeviceKind::Cuda][usize::from(device[0] & 1)],
                    device,
                    slot_values,
                    first_epoch,
                    scrub_period,
                    path,
                    probe_links,
                },
            )
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            hello().prop_map(Message::Hello),
            (
                hello(),
                prop::collection::vec(any::<u8>(), 1..=MAX_NAME_BYTES)
            )
                .prop_map(|(hello, name)| Message::Address(Address {
                    rank: hello.rank,
                    world: hello.world,
                    name
                })),
            (any::<bool>(), any::<u64>()).prop_map(|(board, bytes)| Message::Share(Share {
                what: if board { Shared::Board } else { Shared::Arena },
                bytes
            })),
            (any::<u8>(), any::<String>())
                .prop_map(|(missing, reason)| Message::Refusal(Refusal::new(missing, &reason))),
            Just(Message::Ready),
            any::<String>().prop_map(|text| Message::obstacle(&text)),
            Just(Message::Goodbye),
        ]
    }

    proptest! {
        #[test]
        fn messages_survive_the_journey(message in message()) {
            let bytes = message.encode();
            prop_assert!(bytes.len() <= MAX_BYTES);
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
        }

        #[test]
        fn what_is_accepted_is_what_would_be_sent(bytes in prop::collection::vec(any::<u8>(), 0..64), kind in 0u16..9) {
            // Random bytes alone would hardly ever pass the header.
            let mut framed = Message::Ready.encode();
            framed[10..12].copy_from_slice(&kind.to_le_bytes());
            framed[12..16].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
            framed.extend(&bytes);
            for bytes in [bytes, framed] {
                if let Ok(message) = Message::decode(&bytes) {
                    prop_assert_eq!(message.encode(), bytes);
                }
            }
        }

        #[test]
        fn a_message_with_a_byte_more_or_less_is_refused(message in message()) {
            let mut bytes = message.encode();
            bytes.push(0);
            prop_assert!(Message::decode(&bytes).is_err());
            for end in 0..bytes.len() - 1 {
                prop_assert!(Message::decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn a_changed_byte_is_refused_or_means_something_else(message in message(), at: prop::sample::Index, by in 1u8..) {
            let mut bytes = message.encode();
            let at = at.index(bytes.len());
            bytes[at] = bytes[at].wrapping_add(by);
            prop_assert_ne!(Message::decode(&bytes), Ok(message));
        }

        #[test]
        fn every_setting_counts_and_rank_and_device_do_not(hello in hello(), by in 1u32..) {
            let mut same = hello;
            same.rank = (hello.rank + 1) % hello.world;
            same.device[1] = !hello.device[1];
            prop_assert_eq!(hello.difference(&same), None);
            let changes: [&dyn Fn(&mut Hello); 7] = [
                &|other| other.world = other.world % 8 + 1,
                &|other| other.kind = if other.kind == DeviceKind::Host { DeviceKind::Cuda } else { DeviceKind::Host },
                &|other| other.slot_values = other.slot_values.wrapping_add(by.into()),
                &|other| other.first_epoch = other.first_epoch.wrapping_add(by),
                &|other| other.scrub_period = other.scrub_period.wrapping_add(by),
                &|other| other.path = if other.path == ExchangePath::Auto { ExchangePath::Direct } else { ExchangePath::Auto },
                &|other| other.probe_links = !other.probe_links,
            ];
            for change in changes {
                let mut other = hello;
                change(&mut other);
                prop_assert!(hello.difference(&other).is_some());
            }
        }
    }

    #[test]
    fn another_version_is_told_from_another_program() {
        let mut bytes = Message::Ready.encode();
        bytes[8..10].copy_from_slice(&7u16.to_le_bytes());
        assert_eq!(
            Message::decode(&bytes),
            Err(Malformed::Version { found: 7 })
        );
        bytes[0] ^= 1;
        assert_eq!(Message::decode(&bytes), Err(Malformed::Foreign));
        assert_eq!(Message::decode(b"GET / HTTP/1.1"), Err(Malformed::Foreign));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_whatever_follows() {
        let mut bytes = Message::Refusal(Refusal::new(0, "")).encode();
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes.resize(1 << 16, b'a');
        assert!(matches!(
            Message::decode(&bytes),
            Err(Malformed::Length { .. })
        ));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let refusal = Refusal::new(0, &"ä€".repeat(500));
        assert!(refusal.reason.len() > MAX_TEXT_BYTES - 4);
        assert!(Message::Refusal(refusal).encode().len() <= MAX_BYTES);
    }
}
