//! Any bytes, taken for a message between processes, are one that would be sent or are refused.
//!
//! ```sh
//! mkdir -p fuzz/corpus/rendezvous
//! cargo +nightly fuzz run rendezvous fuzz/corpus/rendezvous fuzz/seeds/rendezvous -- \
//!     -max_len=2048 -max_total_time=180
//! ```
//!
//! What it finds becomes a test in `src/rendezvous/message.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trellink::rendezvous::message::{DeviceKind, Hello, Message, MAX_BYTES};
use trellink::ExchangePath;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::decode(bytes) else {
        return;
    };
    assert!(bytes.len() <= MAX_BYTES);
    assert_eq!(message.encode(), bytes);
    if let Message::Hello(hello) = message {
        assert!(hello.rank < hello.world);
        assert_eq!(hello.difference(&hello), None);
        let differs = own().difference(&hello).is_some();
        assert_eq!(differs, hello.difference(&own()).is_some());
    }
});

fn own() -> Hello {
    Hello {
        rank: 0,
        world: 2,
        kind: DeviceKind::Host,
        device: [0; 16],
        slot_values: 64 * 8192,
        first_epoch: 1,
        scrub_period: 1 << 13,
        path: ExchangePath::Auto,
        probe_links: true,
    }
}
